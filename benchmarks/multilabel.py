"""Trains on pictures of several labels whose answer is known, CIFAR-10 tiled two by two, and collects the record for RESULTS.md.

    python benchmarks/multilabel.py                              builds the data, trains ten minutes (two cores), writes the record
    python benchmarks/multilabel.py --collect                    nothing is trained: takes the record of the finished run again
    python benchmarks/multilabel.py --build FOLDER               only the data: images/, labels.csv with a column per class

Every picture is 64x64: four photos, each used once, and its labels are their classes, so one to four of ten. Train is made of CIFAR-10's
training photos, test of its test photos; training takes its validation images from train. Data comes from ../shared/data (or
$CONVMIX_SHARED/data) and goes to runs/show/, which git ignores. Expected: a mean AP of at least 0.80 with the default recipe; what chance
gives, the share of pictures that have a label, is about 0.34 and stands in the record.
"""

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import show
import tables
from show import Experiment

RESULTS = tables.ROOT / "benchmarks/results/multilabel"
DATA = "cifar10_tiled"
SIDE = 32  # of a photo, pixels
SEED = 0
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXPERIMENTS = (Experiment("cifar10_tiled", f"convmix train {DATA} --budget 10m"),)


def build(folder: Path, origin: Path) -> Path:
    """`folder` with images/ and labels.csv from the parquet files in `origin`; nothing is done where it stands already."""
    if folder.exists():
        return folder
    parts = {"train": sorted(origin.glob("train-*.parquet")), "test": sorted(origin.glob("test-*.parquet"))}
    if not all(parts.values()):
        raise SystemExit(
            f"{origin} holds no train-*.parquet and test-*.parquet of CIFAR-10; set CONVMIX_SHARED to the folder of data/cifar10"
        )
    building = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    (building / "images").mkdir(parents=True)
    rows = [row for split, files in parts.items() for row in _tiled(files, split, building / "images")]
    with (building / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", *CLASSES, "split"), *rows])
    building.rename(folder)  # only a complete data set gets its name
    return folder


def _tiled(files: Sequence[Path], split: str, images: Path) -> list[tuple[object, ...]]:
    """Writes a picture for every four photos, drawn without repeating one; its rows of the table."""
    photos: list[bytes] = []
    labels: list[int] = []
    for file in files:
        table = pq.read_table(file)
        photos += [row["bytes"] for row in table["image"].to_pylist()]
        labels += table["label"].to_pylist()
    order = np.random.default_rng(SEED).permutation(len(photos))
    rows = []
    for number, four in enumerate(order[: len(order) // 4 * 4].reshape(-1, 4)):
        picture = PIL.Image.new("RGB", (2 * SIDE, 2 * SIDE))
        for place, i in enumerate(four):
            with PIL.Image.open(io.BytesIO(photos[i])) as photo:
                picture.paste(photo.convert("RGB"), (place % 2 * SIDE, place // 2 * SIDE))
        name = f"{split}_{number:05d}.png"
        picture.save(images / name)
        there = {labels[i] for i in four}
        rows.append((name, *(int(c in there) for c in range(len(CLASSES))), split))
    return rows


def by_chance(folder: Path) -> float:
    """The mean AP of answers that know nothing, on the test pictures: the mean over the labels of the share that has one."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return float(np.mean([[int(row[name]) for name in CLASSES] for row in rows]))


def collect(experiment: Experiment) -> Path:
    """The run's record, under the experiment's name, with the command as anybody would type it and what chance would give."""
    record = json.loads((experiment.out / "record.json").read_text())
    record |= {"name": experiment.name, "command": experiment.command, "map_by_chance": by_chance(show.PLACE / DATA)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{experiment.name}.json"
    target.write_text(json.dumps(record, indent=1) + "\n")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--build" in given:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--build", type=Path, required=True, metavar="FOLDER", help="write the data there and train nothing")
        print(build(parser.parse_args(given).build, show.SHARED / "data/cifar10"))
        return 0
    build(show.PLACE / DATA, show.SHARED / "data/cifar10")
    return show.run_all(EXPERIMENTS, collect, given, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
