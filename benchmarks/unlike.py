"""How well "unlike the training images" is told: AUROC on noise, on another data set, and on classes that were left out.

    python benchmarks/unlike.py            writes benchmarks/results/unlike/imagenette160.json

A classifier on frozen features of seven of imagenette160's ten classes, 50 photos each (few.py says whose weights), is shown test images of
its classes, and beside them images that are none of these. Beside the distance to the training images stands what needs no features: one
minus the best probability.
"""

import io
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import few
import numpy as np
import show
import tables

RESULTS = show.RESULTS / "unlike"
KNOWN, PER_CLASS, VAL, TEST, OTHERS = 7, 50, 15, 40, 120  # classes, images of each of them, images of each other kind


def write(folder: Path, some: Sequence[tuple[str, bytes]]) -> Path:
    folder.mkdir(parents=True)
    for name, encoded in some:
        (folder / name).write_bytes(encoded)
    return folder


def noise(rng: np.random.Generator, side: int = 160) -> bytes:
    """A picture of coloured noise, coarse or fine."""
    from PIL import Image

    grain = int(rng.choice([1, 4, 16]))
    cells = -(-side // grain)
    pixels = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8).repeat(grain, 0).repeat(grain, 1)[:side, :side]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def main() -> int:
    import torch
    from rich.console import Console
    from sklearn.metrics import roc_auc_score

    import convmix
    from convmix.hardware import describe_machine
    from convmix.training.session import train_session

    photos, other = few.images("imagenette160"), few.images("cifar10")
    place = few.PLACE / "unlike"
    shutil.rmtree(place, ignore_errors=True)
    classes = sorted(photos["train"])
    for label in classes[:KNOWN]:
        pool = photos["train"][label]
        write(place / "data/train" / label, pool[:PER_CLASS])
        write(place / "data/val" / label, pool[PER_CLASS : PER_CLASS + VAL])
        write(place / "data/test" / label, photos["test"][label][:TEST])
    settings = {"model": few.MODEL, "weights": str(few.weights_file()), "freeze": "backbone"}
    train_session(
        str(place / "data"), recipe=None, overrides=settings, out=place / "run", resume=False, console=Console(quiet=True), device="cpu"
    )  # fmt: skip
    rng = np.random.default_rng(0)
    each = OTHERS // (len(classes) - KNOWN)
    kinds = {
        "noise": [(f"{i}.png", noise(rng)) for i in range(OTHERS)],
        "CIFAR-10": [image for label in sorted(other["test"]) for image in other["test"][label][: OTHERS // 10]],
        "left-out classes": [(f"{label}-{name}", x) for label in classes[KNOWN:] for name, x in photos["test"][label][:each]],
    }
    model = convmix.load(place / "run")

    def answers(folder: Path) -> list[Any]:
        return [p for p in model.predict(folder) if p.error is None]

    own = answers(place / "data/test")
    found: dict[str, Any] = {}
    for kind, some in kinds.items():
        theirs = answers(write(place / "others" / kind.replace(" ", "_"), some))
        truth = [0] * len(own) + [1] * len(theirs)
        found[kind] = {
            "n": len(theirs),
            "auroc": float(roc_auc_score(truth, [p.distance for p in own + theirs])),
            "auroc_probability": float(roc_auc_score(truth, [1 - p.probability for p in own + theirs])),
            "told": float(np.mean([p.unlike for p in theirs])),
        }
    record = {
        "name": "imagenette160",
        "date": datetime.now(UTC).date().isoformat(),
        "model": few.MODEL,
        "classes": KNOWN,
        "per_class": PER_CLASS,
        "own": {"n": len(own), "false_alarms": float(np.mean([p.unlike for p in own]))},
        "others": found,
        "machine": describe_machine(torch.device("cpu")),
        "versions": {name: version(name) for name in ("convmix", "torch", "timm", "scikit-learn")},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "imagenette160.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["others"], indent=1), record["own"])
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
