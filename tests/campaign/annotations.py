"""Data sets whose annotations were damaged: read, looked through and trained on, or refused in a sentence."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import convmix
from convmix.config import Data
from convmix.data.inspection import inspect
from convmix.data.scan import scan
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from tests.campaign.mutation import ODD_TEXTS, as_text, mutated, mutated_json
from tests.dense_scenes import write_coco, write_maps
from tests.tiny_run import write_image

_COUNTS = {"train": 6, "val": 3}


def _coco(folder: Path) -> None:
    write_coco(folder, _COUNTS, masks=True)


def _maps(folder: Path) -> None:
    write_maps(folder, _COUNTS)


def _table(folder: Path) -> None:
    names = [write_image(folder / "images" / f"{i}.png", i).name for i in range(12)]
    rows = "".join(f"images/{name},{'ant' if i % 2 else 'bee'}\n" for i, name in enumerate(names))
    (folder / "labels.csv").write_text("image,label\n" + rows)


def write_tagged_boxes(folder: Path) -> None:
    """Nine pictures with a box each, in the format of Pascal VOC."""
    for i in range(9):
        write_image(folder / "JPEGImages" / f"{i}.png", i, size=(32, 32))
        place = folder / "Annotations" / f"{i}.xml"
        place.parent.mkdir(exist_ok=True)
        box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
        size = "<size><width>32</width><height>32</height><depth>3</depth></size>"
        place.write_text(f"<annotation><filename>{i}.png</filename>{size}<object><name>ant</name>{box}</object></annotation>")


def _yolo(folder: Path) -> None:
    for i in range(9):
        split = "train" if i < 6 else "val"
        write_image(folder / "images" / split / f"{i}.png", i, size=(32, 32))
        place = folder / "labels" / split / f"{i}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("0 0.5 0.5 0.4 0.3\n1 0.3 0.3 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnc: 2\nnames: [ant, bee]\n")


SEEDS: tuple[Callable[[Path], None], ...] = (_coco, _maps, _table, write_tagged_boxes, _yolo)
_TEXT = (".json", ".xml", ".txt", ".yaml", ".csv")


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of one data set with damage in one to three of its annotation files."""
    data = folder / "data"
    rng.choice(SEEDS)(data)
    files = sorted(path for path in data.rglob("*") if path.suffix in _TEXT) or sorted(data.rglob("*.png"))
    for file in rng.sample(files, min(len(files), rng.randint(1, 3))):
        file.write_bytes(_damaged(file, rng))
    where = str(data)
    refused = ""
    try:
        inspect(where)
        source = open_source(where, Data())
        scan(with_splits(source, Data()), Data(), workers=0)
        dense = source.task != "classify"
        convmix.train(
            where, out=folder / "out", model="convmixer_8_1_k3_p4", epochs=1, size=32, batch_size=4, workers=0, quiet=True, tune="never",
            precision="fp32", **({"pyramid_channels": 8} if dense else {}),
        )  # fmt: skip
    except convmix.ConvmixError as error:
        refused = str(error)
    if "\n" in refused:
        return "traceback", f"a refusal of several lines: {refused[:200]!r}", 1
    return ("refused" if refused else "answered"), "", 1


def _damaged(file: Path, rng: random.Random) -> bytes:
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.8:
        return as_text(mutated_json(json.loads(content), rng))
    if file.suffix in _TEXT and rng.random() < 0.6:
        words = content.replace(b">", b"> ").replace(b"<", b" <").split(b" ")
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] = rng.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
        return b" ".join(words)
    return mutated(content, rng)
