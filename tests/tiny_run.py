"""A model directory and image folders made by hand, for the tests of what reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convmix.artifacts.artifact import Artifact, load_artifact, save_artifact
from convmix.atomic import write_csv
from convmix.config import Data, Run, to_dict
from convmix.data.preprocessing import Preprocess
from convmix.data.scan import digest_of
from convmix.models.catalog import create_model
from convmix.tasks.classify import Classify

LABELS = ("ant", "bee", "cat")


def write_image(path: Path, seed: int, *, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Path:
    """A file of noise, height and width as in `size`."""
    rng = np.random.default_rng(seed)
    shape = size if mode == "L" else (*size, len(mode))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    return path


def write_folder(root: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """ROOT/CLASS/N.png; the images differ."""
    for c, (label, n) in enumerate(counts.items()):
        for i in range(n):
            write_image(root / label / f"{i}.png", seed + 1000 * c + i)
    return root


def hand_made_info(spec: str = "photos") -> dict[str, Any]:
    """What a training writes into convmix.json beside task, labels and preprocessing; the numbers are made up."""
    scores = {"n": 10, "correct": 8, "accuracy": 0.8, "accuracy_interval": [0.4902, 0.9433], "top5": 1.0, "loss": 0.75}
    run = Run(model="convmixer_8_1_k3_p4", recipe="default", source="a test", data=Data(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3))
    return {
        "finished": True,
        "model": run.model,
        "run": to_dict(run),
        "data": {
            "spec": spec, "fingerprint": "0123456789abcdef", "origin": {"train": "given", "val": "made: 0.1 of train", "test": "given"},
            "counts": {"train": 80, "val": 10, "test": 10}, "bad": 2, "notes": ["2 of the 82 train images are broken and left out"],
        },
        "metrics": {"val": scores | {"accuracy": 0.9, "loss": 0.5}, "test": scores},
        "training": {
            "epochs_done": 3, "steps": 120, "images_seen": 7680, "elapsed_s": 75.2, "images_per_s": 512.0, "kept_epoch": 2,
            "stopped": "early stopping", "precision": "fp32", "processes": 1,
        },
        "machine": {"device": "cpu", "name": "a processor", "cores": 2},
        "versions": {"convmix": "0.1.0", "torch": "2.11.0"},
    }  # fmt: skip


def make_run(
    path: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    splits: dict[str, Path] | None = None,
    spec: str = "photos",
    size: tuple[int, int] = (8, 8),
    **preprocess: Any,
) -> Artifact:
    """An untrained ConvMixer of width 8 and one block; `splits` are folders of class folders to record in splits.csv."""
    torch.manual_seed(0)
    prepare = {"fit": "crop", "interpolation": "bicubic", "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.25,) * 3, **preprocess}
    prepared = Preprocess(size=size, **prepare)
    model = create_model("convmixer_8_1_k3_p4", num_classes=len(labels), in_chans=prepared.in_chans)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # answers that differ from image to image
    save_artifact(path, model=model, task=Classify(labels), preprocess=prepared, info=hand_made_info(spec))
    rows = [
        (split, str(file.relative_to(root)), digest_of(str(file)), file.parent.name)
        for split, root in (splits or {}).items()
        for file in sorted(root.rglob("*.png"))
    ]
    write_csv(path / "splits.csv", ("split", "name", "digest", "label"), rows)
    return load_artifact(path)
