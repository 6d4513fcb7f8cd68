"""Small images and annotation files for the tests of the readers."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convmix.data.examples import Source
from convmix.data.targets import Objects


def draw(path: Path, *, height: int = 20, width: int = 30, seed: int = 0) -> Path:
    """A noisy picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save_map(path: Path, values: Any, mode: str | None = None) -> Path:
    """An array as an image file; mode "P" with some palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values))
    if mode == "P":
        picture.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
    picture.save(path)
    return path


def coco(path: Path, images: list[Any], annotations: list[Any], categories: list[Any] | None = None) -> Path:
    listed = categories if categories is not None else [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]
    return write(path, json.dumps({"images": images, "annotations": annotations, "categories": listed}, indent=1))


def objects(source: Source, split: str, index: int = 0) -> Objects:
    annotation = source.splits[split].annotation(index)
    assert isinstance(annotation, Objects)
    return annotation


def unpacked(archive: Path, folder: Path) -> Path:
    """The one folder in a .tar.gz."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(p for p in folder.iterdir() if p.is_dir())
