"""Images with a map that holds a value for every pixel: class maps, or object maps.

Which map belongs to which image, and which split it is in, is told by `readers/`. Without a file of names the classes are the values in the
maps, or their colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convmix.config import Data
from convmix.data import rle
from convmix.data.decode import BadImage
from convmix.data.formats import image_rows, printable, storable
from convmix.data.readers.objectrows import Fault, ObjectRows, ObjectSet, fit_box, image_size
from convmix.data.readers.paired import PairedSplits
from convmix.data.readers.pixelmaps import (
    NAME_FILES,
    Meaning,
    colour_meaning,
    map_size,
    meaning,
    mode_of,
    read_colours,
    read_meaning,
    read_objects,
    read_values,
)
from convmix.data.readers.survey import spread
from convmix.data.targets import IGNORE
from convmix.errors import DataError

if TYPE_CHECKING:
    import datasets

MOST_CLASSES = 64  # different values or colours in class maps; a photograph has more


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
    notes: list[str] = field(default_factory=list)
    origin: str = ""  # where the splits come from


def read_class_maps(pairs: PairedSplits, *, homes: Sequence[Path], data: Data) -> MapSet:
    """Images with a class for every pixel. homes: the folders that may hold a file of names, the likeliest first.

    Without one the classes are class_0, class_1, ... after the values in the maps, or #rrggbb after their colours.
    """
    maps = [pairs.root / path for of_split in pairs.splits.values() for _, path in of_split if path]
    sample = spread([str(path) for path in maps], 5)
    known = _meaning_in(homes)
    if known and known.palette and all(mode_of(path) == "L" for path in sample):
        known = replace(known, palette=None)  # the palette is for show: the maps hold the numbers
    notes = list(pairs.notes)
    found = MapSet({}, known or _from_maps(pairs.root, maps, sample, notes), list(pairs.dropped), notes, pairs.origin)
    for split, of_split in pairs.splits.items():
        rows = found.splits[split] = MapRows()
        for name, path in of_split:
            try:
                _check_size(pairs.root / name, pairs.root / (path or ""), data)
            except Fault as fault:
                found.dropped.append((printable(name), str(fault)))
                continue
            rows.paths.append(storable(str((pairs.root / name).absolute())))
            rows.names.append(printable(name))
            rows.maps.append(storable(str((pairs.root / (path or "")).absolute())))
    return found


def read_object_maps(pairs: PairedSplits, *, homes: Sequence[Path], data: Data) -> ObjectSet:
    """Images with object maps: 0 is the background, every other value one object, all of the one class that a names file may name.

    Nothing tells an object map from a class map, so this is for those who ask for it.
    """
    known = _meaning_in(homes)
    if known and len(known.classes) > 1:
        raise DataError(
            f"{pairs.root}: names of {len(known.classes)} classes, but object maps hold objects of one; class maps are for the task segment"
        )
    found = ObjectSet({}, known.classes if known else ("object",), list(pairs.dropped), list(pairs.notes), pairs.origin)
    for split, of_split in pairs.splits.items():
        rows = found.splits[split] = ObjectRows(with_masks=True)
        for name, path in of_split:
            image = pairs.root / name
            try:
                size = image_size(image, data)
                objects = [mask for _, mask in read_objects(pairs.root / (path or ""), size)]
            except (Fault, BadImage) as bad:
                found.dropped.append((printable(name), str(bad)))
                continue
            rows.image(image, name, size)
            for mask, (left, top, right, bottom) in zip(objects, rle.boxes(objects, size).tolist(), strict=True):
                rows.object(fit_box(left, top, right, bottom, size), 0, mask=mask)
    return found


def _meaning_in(homes: Sequence[Path]) -> Meaning | None:
    return next((known for home in homes if (known := read_meaning(home))), None)


# Maps


def _check_size(image: Path, path: Path, data: Data) -> None:
    """Headers alone: the pixels are looked at when they are learned from."""
    height, width = image_size(image, data)
    try:
        map_height, map_width = map_size(path, data)
    except Fault as fault:
        raise Fault(f"its map {path.name}: {fault}") from None
    if (map_height, map_width) != (height, width):
        raise Fault(f"its map {path.name} is {map_width}x{map_height}, the image {width}x{height}")


def why_no_class_map(image: Path, path: Path, data: Data, *, coloured: bool) -> str:
    """What a file holds that has no classes for the pixels of the image, for people; nothing for a class map."""
    try:
        _check_size(image, path, data)
        if coloured and mode_of(path) in ("RGB", "RGBA", "P"):
            return ""
        try:
            count = len(np.unique(read_values(path)))
        except BadImage:
            count = len(read_colours(path))
        return "" if count <= MOST_CLASSES else f"{count} different values, as a photograph or a smoothed map has"
    except Fault as fault:
        return str(fault)
    except BadImage as bad:
        return bad.reason


def _from_maps(root: Path, maps: Sequence[Path], sample: Sequence[str], notes: list[str]) -> Meaning:
    """Classes after the values or the colours in the maps, all of which are read."""
    try:
        for path in sample:
            read_values(path)
    except BadImage:
        if any(mode_of(path) in ("RGB", "RGBA") for path in sample):
            return _from_colours(root, maps, notes)
    return _from_values(root, maps, notes)


def _from_colours(root: Path, maps: Sequence[Path], notes: list[str]) -> Meaning:
    present: set[tuple[int, int, int]] = set()
    for path in maps:
        try:
            present.update(read_colours(path))
        except BadImage:
            continue  # the scan lists it
    if not 2 <= len(present) <= MOST_CLASSES:
        raise DataError(
            f"{root}: the maps hold {len(present)} colours, expected 2 to {MOST_CLASSES}, one a class; were they saved as JPEG or resized "
            "with smoothing? Give the colours in class_dict.csv (name,r,g,b)"
        )
    found = colour_meaning(sorted(present))
    notes.append(f"the colours in the masks are the classes: {', '.join(found.classes[:8])}; class_dict.csv (name,r,g,b) names them")
    return found


def _from_values(root: Path, maps: Sequence[Path], notes: list[str]) -> Meaning:
    present: set[int] = set()
    reasons: list[str] = []
    for path in maps:
        try:
            present.update(np.unique(read_values(path)).tolist())
        except BadImage as bad:
            reasons.append(f"{path}: {bad.reason}")
    if not present and reasons:
        raise DataError(f"{reasons[0]}; give the classes in {NAME_FILES}")
    if present == {0, IGNORE}:
        notes.append(f"the masks hold 0 and {IGNORE} alone: {IGNORE} is read as a class, not as ignored; classes.json names the two")
        return meaning({value: f"class_{value}" for value in sorted(present)}, root)
    values = sorted(present - {IGNORE})
    if len(values) < 2 or values[-1] > IGNORE:
        held = ", ".join(map(str, sorted(present)[:8]))
        raise DataError(
            f"{root}: the maps hold the values {held}; expected two or more classes from 0 to 254 ({IGNORE} is ignored unless named), or "
            f'{NAME_FILES}, such as {{"0": "background", "255": "object"}}; --task instances reads every value as an object'
        )
    return meaning({value: f"class_{value}" for value in values}, root)
