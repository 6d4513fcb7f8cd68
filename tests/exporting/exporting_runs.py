"""A small run with its data, for the tests of what is exported."""

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_run import LABELS, make_run

from convmix.artifact import Artifact, load_artifact, save_calibration, write_csv
from convmix.calibration import Calibration
from convmix.data.scan import digest_of

CALIBRATION = Calibration(1.7, 0.6, "val", 36, 0.2, 0.1, 0.7, 0.6)


def blotches(path: Path, seed: int) -> None:
    """A picture of soft colours, of a size of its own: what resizing meets in life, unlike noise."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(14, 60, 2)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path)


def run_with_data(root: Path, **preprocess: object) -> Artifact:
    """root/run and root/photos; a temperature and a threshold that leaves some answers unsure."""
    photos = root / "photos"
    for k, (split, n) in enumerate({"train": 2, "val": 12}.items()):
        for c, label in enumerate(LABELS):
            for i in range(n):
                blotches(photos / split / label / f"{i}.png", 1000 * k + 100 * c + i)
    made = make_run(root / "run", spec=str(photos), **preprocess)  # type: ignore[arg-type]
    rows = [
        (split, str(file.relative_to(photos)), digest_of(str(file)), file.parent.name)
        for split in ("train", "val")
        for file in sorted((photos / split).rglob("*.png"))
    ]
    write_csv(made.path / "splits.csv", ("split", "name", "digest", "label"), rows)
    save_calibration(made.path, CALIBRATION)
    return load_artifact(made.path)
