"""Folders of images beside folders of maps with a value for every pixel: class maps, or object maps.

images/ + masks/, images/train/ + annotations/train/ (ADE20K), train/images/ + train/masks/, train/ + trainannot/ (CamVid), X/ + X_masks/.
Image and map belong together by the stem of their names.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convmix.config import Data
from convmix.data import rle
from convmix.data.decode import BadImage
from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS, image_rows, printable, storable
from convmix.data.objectrows import Fault, ObjectRows, ObjectSet, fit_box, image_size
from convmix.data.pixelmaps import NAME_FILES, Meaning, meaning, mode_of, read_meaning, read_objects, read_values
from convmix.data.targets import IGNORE
from convmix.errors import DataError

if TYPE_CHECKING:
    import datasets

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
MAP_FOLDERS = ("masks", "mask", "annotations", "annotation", "labels", "label", "annot", "gt")
MAP_SUFFIXES = frozenset((".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm"))  # without loss: a JPEG changes the values
MAP_ENDINGS = ("", "_mask", "_L", "_label", "_labels", "_gt")  # what the stem of a map may add to that of its image
MOST_CLASSES = 64  # different values in one class map; a grey photograph has more


@dataclass
class MapRows:
    """One split."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)

    def rows(self) -> "datasets.Dataset":
        """Every image counts as one of class 0: it holds many."""
        import pyarrow as pa

        rows = image_rows(self.paths).add_column("label", pa.array(np.zeros(len(self.paths)), pa.int64()))
        return rows.add_column("name", pa.array(self.names, pa.string())).add_column("mask", pa.array(self.maps, pa.string()))


@dataclass
class MapSet:
    """A data set of class maps."""

    splits: dict[str, MapRows]
    meaning: Meaning
    dropped: list[tuple[str, str]]  # name, reason


def read_class_maps(root: Path, *, data: Data, plainly: bool) -> MapSet | None:
    """Images with a class for every pixel, or None where there are no such folders.

    plainly: only where the maps cannot be photographs of class folders: one number a pixel, or a palette file, few different values, of
    the size of their images. Without a names file the classes are class_0, class_1, ... after the values in the maps.
    """
    pairs = _pairs(root)
    if not pairs:
        return None
    dropped: list[tuple[str, str]] = []
    matched = {split: list(_matched(*folders, root, dropped)) for split, folders in pairs.items()}
    sample = next(iter(matched.values()))[:5]
    if plainly and not all(_is_class_map(image, path, data, coloured=(root / "class_dict.csv").is_file()) for image, path in sample):
        return None
    known = read_meaning(root)
    if known and known.palette and all(mode_of(path) == "L" for _, path in sample):
        known = replace(known, palette=None)  # the palette is for show: the maps hold the numbers
    found = MapSet({}, known or _from_values(root, [path for of_split in matched.values() for _, path in of_split]), dropped)
    for split, of_split in matched.items():
        rows = found.splits[split] = MapRows()
        for image, path in of_split:
            name = os.path.relpath(image, root)
            try:
                _check_size(image, path, data)
            except Fault as fault:
                dropped.append((printable(name), str(fault)))
                continue
            rows.paths.append(storable(str(image.absolute())))
            rows.names.append(printable(name))
            rows.maps.append(storable(str(path.absolute())))
    return found


def read_object_maps(root: Path, *, data: Data) -> ObjectSet | None:
    """Images with object maps: 0 is the background, every other value one object, all of the one class that a names file may name.

    None where there are no such folders. Nothing tells an object map from a class map, so this is for those who ask for it.
    """
    pairs = _pairs(root)
    if not pairs:
        return None
    known = read_meaning(root)
    if known and len(known.classes) > 1:
        raise DataError(
            f"{root}: names of {len(known.classes)} classes, but object maps hold objects of one; class maps are for the task segment"
        )
    found = ObjectSet({}, known.classes if known else ("object",))
    for split, folders in pairs.items():
        rows = found.splits[split] = ObjectRows(with_masks=True)
        for image, path in _matched(*folders, root, found.dropped):
            name = os.path.relpath(image, root)
            try:
                size = image_size(image, data)
                objects = [mask for _, mask in read_objects(path, size)]
            except (Fault, BadImage) as bad:
                found.dropped.append((printable(name), str(bad)))
                continue
            rows.image(image, name, size)
            for mask, (left, top, right, bottom) in zip(objects, rle.boxes(objects, size).tolist(), strict=True):
                rows.object(fit_box(left, top, right, bottom, size), 0, mask=mask)
    return found


# Folders


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Per split the folder of the images and that of the maps."""
    pairs: dict[str, tuple[Path, Path]] = {}
    for word, images, maps in _candidates(root):
        if _is_pair(images, maps):
            split = SPLIT_WORDS.get(word.lower(), "all")
            if pairs.setdefault(split, (images, maps)) != (images, maps):
                what = "the images" if split == "all" else f"the {split} split"
                raise DataError(f"{root}: {pairs[split][0]} and {images} both look like {what}; keep one")
    if len(pairs) > 1:
        pairs.pop("all", None)
    return {split: pairs[split] for split in ("train", "val", "test", "all") if split in pairs}


def _candidates(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """(a word that may name a split, folder of images, folder of maps), whether they exist or not."""
    for folder in _folders(root):
        beside = [root / f"{folder.name}{mark}{ending}" for ending in MAP_FOLDERS for mark in ("", "_", "-")]
        yield from ((folder.name, folder, maps) for maps in beside)
        if folder.name.lower() in SPLIT_WORDS:
            yield from ((folder.name, folder / images, folder / maps) for images in IMAGE_FOLDERS for maps in MAP_FOLDERS)
    for images, maps in ((root / images, root / maps) for images in IMAGE_FOLDERS for maps in MAP_FOLDERS):
        yield "", images, maps
        yield from ((inner.name, inner, maps / inner.name) for inner in _folders(images) if inner.name.lower() in SPLIT_WORDS)


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []


def _is_pair(images: Path, maps: Path) -> bool:
    return images.is_dir() and maps.is_dir() and _ending(_by_stem(images, IMAGE_SUFFIXES), _by_stem(maps, MAP_SUFFIXES)) is not None


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    return {f.stem: f for f in sorted(folder.iterdir(), reverse=True) if f.suffix.lower() in suffixes}


def _ending(images: dict[str, Path], maps: dict[str, Path]) -> str | None:
    """What the maps' stems add, the first of MAP_ENDINGS by which any map finds its image; None where none does."""
    return next((ending for ending in MAP_ENDINGS if any(stem + ending in maps for stem in images)), None)


def _matched(images: Path, maps: Path, root: Path, dropped: list[tuple[str, str]]) -> Iterator[tuple[Path, Path]]:
    """(image, map), by name; what has no partner is dropped."""
    by_stem, map_by_stem = _by_stem(images, IMAGE_SUFFIXES), _by_stem(maps, MAP_SUFFIXES)
    ending = _ending(by_stem, map_by_stem) or ""
    for stem, image in sorted(by_stem.items()):
        path = map_by_stem.pop(stem + ending, None)
        if path is None:
            where = printable(os.path.relpath(maps, root))
            dropped.append((printable(os.path.relpath(image, root)), f"no map {printable(stem)}{ending}.png in {where}/"))
        else:
            yield image, path
    dropped += [(printable(os.path.relpath(path, root)), "a map without image") for _, path in sorted(map_by_stem.items())]


# Maps


def _check_size(image: Path, path: Path, data: Data) -> None:
    """Headers alone: the pixels are looked at when they are learned from."""
    height, width = image_size(image, data)
    try:
        map_height, map_width = image_size(path, data)
    except Fault as fault:
        raise Fault(f"its map {path.name}: {fault}") from None
    if (map_height, map_width) != (height, width):
        raise Fault(f"its map {path.name} is {map_width}x{map_height}, the image {width}x{height}")


def _is_class_map(image: Path, path: Path, data: Data, *, coloured: bool) -> bool:
    try:
        _check_size(image, path, data)
        if coloured and mode_of(path) in ("RGB", "RGBA", "P"):
            return True
        return mode_of(path) in ("L", "P", "1") and len(np.unique(read_values(path))) <= MOST_CLASSES
    except (Fault, BadImage):
        return False


def _from_values(root: Path, maps: list[Path]) -> Meaning:
    """Classes after the values in the maps, all of which are read."""
    present: set[int] = set()
    reasons: list[str] = []
    for path in maps:
        try:
            present.update(np.unique(read_values(path)).tolist())
        except BadImage as bad:
            reasons.append(f"{path}: {bad.reason}")
    if not present and reasons:
        raise DataError(f"{reasons[0]}; give the classes in {NAME_FILES}")
    values = sorted(present - {IGNORE})
    if len(values) < 2 or values[-1] > IGNORE:
        held = ", ".join(map(str, sorted(present)[:8]))
        raise DataError(
            f"{root}: the maps hold the values {held}; expected two or more classes from 0 to 254 ({IGNORE} is ignored unless named), or "
            f'{NAME_FILES}, such as {{"0": "background", "255": "object"}}'
        )
    return meaning({value: f"class_{value}" for value in values}, root)
