"""Measures how many photographs one core prepares, for docs/how_to/plan.md.

    python benchmarks/plan.py

Reads the BCCD photographs (640 x 480 JPEG) of ../shared/data, or of $CONVMIX_SHARED/data; writes benchmarks/results/plan/images.json.
"""

import json
import os
import statistics
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from convmix.config import Augment
from convmix.data.augment.training_transform import training_transform
from convmix.data.decode import decode
from convmix.data.preprocessing import Preprocess
from convmix.hardware import describe_machine

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/results/plan/images.json"
IMAGES, ROUNDS = 100, 7


def photographs(folder: Path) -> list[bytes]:
    """The first JPEG files of the archive, as they are encoded."""
    with tarfile.open(folder / "bccd_voc.tar.gz") as archive:
        members = sorted((m for m in archive if m.name.endswith(".jpg")), key=lambda m: m.name)[:IMAGES]
        return [archive.extractfile(m).read() for m in members]  # type: ignore[union-attr]


def rate(prepare: Callable[[bytes], Any], images: list[bytes]) -> list[float]:
    """Images per second of one thread, a number per round."""
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for image in images:
            prepare(image)
        rates.append(len(images) / (time.perf_counter() - started))
    return rates


def main() -> None:
    torch.set_num_threads(1)
    images = photographs(Path(os.environ.get("CONVMIX_SHARED", ROOT.parent / "shared")) / "data")
    size = decode(images[0], in_chans=3, max_pixels=10**9).size
    preprocess = Preprocess(
        size=(224, 224), fit="crop", interpolation="bicubic", crop_pct=0.96, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    recipe = Augment(scale=(0.08, 1.0), ratio=(0.75, 4 / 3), hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", erasing=0.25)
    training = training_transform(preprocess, recipe)
    rates = {
        "evaluation": rate(preprocess.load, images),
        "training": rate(lambda image: training.change(training.read(image), 0), images),
    }
    record = {
        "kind": "plan", "command": "python benchmarks/plan.py", "date": datetime.now(UTC).date().isoformat(),
        "images": {"n": len(images), "width": size[0], "height": size[1], "bytes": statistics.fmean(map(len, images))},
        "images_per_core_second": rates, "machine": describe_machine(torch.device("cpu")),
    }  # fmt: skip
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print({name: round(statistics.median(values)) for name, values in rates.items()})


if __name__ == "__main__":
    main()
