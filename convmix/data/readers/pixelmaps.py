"""Image files that hold a class, or an object, for every pixel, and the names files that say what their values mean.

class maps    values of mode L or P, or colours of a palette -> H,W uint8 classes
object maps   8 or 16 bits, 0 the background, every other value one object -> masks
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from convmix.config import Data, Size
from convmix.data import rle
from convmix.data.decode import BadImage, read_file
from convmix.data.formats import read_class_names
from convmix.data.readers.objectrows import Fault, image_size
from convmix.data.regular import open_regular
from convmix.data.targets import IGNORE, UNKNOWN, Regions
from convmix.errors import DataError, first_line

Colour = tuple[int, int, int]
NAME_FILES = "classes.json, classes.txt, class_dict.csv, labelmap.txt or objectInfo150.txt"


@dataclass(frozen=True)
class Meaning:
    """What the values in the files of a data set mean."""

    classes: tuple[str, ...]
    values: tuple[int, ...]  # 256: value -> class, IGNORE for what is not scored, UNKNOWN for what has no meaning
    palette: tuple[Colour, ...] | None = None  # the colour of each value, where the files hold colours


def read_regions(regions: Regions) -> np.ndarray:
    """The map as H,W uint8 classes, IGNORE where nothing is scored.

    Raises BadImage with a short reason: unreadable, of a mode that holds no classes, a value or colour that the names do not know.
    """
    if regions.palette is None or _is_array(regions.path):
        values = read_values(regions.path)
    else:
        values = _from_colours(_open(regions.path), regions.palette)
    table = np.asarray(regions.classes, np.int64)
    present = np.bincount(values.ravel(), minlength=len(table))
    if len(present) > len(table):
        raise BadImage(f"the value {len(present) - 1} in the class map, expected 0 to 255")
    unknown = np.flatnonzero((present > 0) & (table == UNKNOWN))
    if len(unknown):
        raise BadImage(f"the value {unknown[0]} in the class map, which no class has")
    classes: np.ndarray = table.astype(np.uint8)[values]
    return classes


def read_values(path: str | Path) -> np.ndarray:
    """The numbers in a map of one number a pixel: H,W uint8 or, from files of 16 bits, int64. Raises BadImage."""
    return _array(path) if _is_array(path) else _values(_open(path))


def read_colours(path: str | Path) -> set[Colour]:
    """The colours in a map; a transparent pixel is black. Raises BadImage."""
    codes = np.unique(_codes(_open(path)))
    return {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in codes}


def read_objects(path: str | Path, size: Size) -> Iterator[tuple[int, bytes]]:
    """(value, mask) of every object in an object map. Raises BadImage for one of another size too."""
    values = read_values(path)
    if values.shape != size:
        raise BadImage(f"the object map is {values.shape[1]}x{values.shape[0]}, the image {size[1]}x{size[0]}")
    for value in np.unique(values):
        if value:
            yield int(value), rle.encode((values == value)[None])[0]


def mode_of(path: str | Path) -> str:
    """Pillow's name for what the file holds, from its header; "" where nothing can be read."""
    try:
        with open_regular(path) as file, PIL.Image.open(file) as picture:
            return picture.mode
    except Exception:  # codecs raise anything on broken bytes
        return ""


def map_size(path: Path, data: Data) -> Size:
    """Height and width of a map, from its header. Raises Fault."""
    if not _is_array(path):
        return image_size(path, data)
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError) as error:
        raise Fault(f"cannot be read: {first_line(error)}") from None
    if len(shape) != 2:
        raise Fault(f"an array of {len(shape)} axes, expected H,W")
    return int(shape[0]), int(shape[1])


# Pixels


def _is_array(path: str | Path) -> bool:
    return str(path).lower().endswith(".npy")


def _array(path: str | Path) -> np.ndarray:
    """H,W of whole numbers, where -1 is ignored. Raises BadImage."""
    try:
        values = np.load(io.BytesIO(read_file(path)), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadImage(f"the class map cannot be decoded: {first_line(error)[:100]}") from None
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise BadImage(f"a class map of shape {values.shape} and type {values.dtype}, expected H,W of whole numbers")
    whole = values.astype(np.int64)
    whole[whole == -1] = IGNORE
    if whole.min(initial=0) < 0:
        raise BadImage(f"the value {whole.min()} in the class map, expected 0 to 255")
    return whole.astype(np.uint8) if whole.max(initial=0) <= 255 else whole


def _open(path: str | Path) -> PIL.Image.Image:
    encoded = read_file(path)
    if not encoded:
        raise BadImage("empty class map")
    try:
        picture: PIL.Image.Image = PIL.Image.open(io.BytesIO(encoded))
        picture.load()
        if picture.mode == "L" and encoded[:4] == b"\x89PNG" and encoded[24] in (2, 4):  # Pillow stretches few bits to 0..255
            picture = picture.point([v // (85 if encoded[24] == 2 else 17) for v in range(256)])
        return PIL.ImageOps.exif_transpose(picture)
    except Exception as error:  # codecs raise anything on broken bytes
        raise BadImage(f"the class map cannot be decoded: {first_line(error)[:100]}") from None


def _values(picture: PIL.Image.Image) -> np.ndarray:
    """H,W uint8, or int64 for more than 8 bits."""
    if picture.mode in ("L", "P"):
        return np.asarray(picture)
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0:
            raise BadImage(f"the value {values.min()} in the class map, expected 0 to 65535")
        return values
    if picture.mode == "LA":
        return np.asarray(picture)[:, :, 0]
    if picture.mode in ("RGB", "RGBA"):
        bands_hwc = _opaque(picture)
        if (bands_hwc == bands_hwc[:, :, :1]).all():
            return bands_hwc[:, :, 0]  # a grey map saved in colour
    raise BadImage(f"a class map in mode {picture.mode}, expected one number a pixel (L or P), or colours and a class_dict.csv")


def _from_colours(picture: PIL.Image.Image, palette: tuple[Colour, ...]) -> np.ndarray:
    """H,W uint8: the position in the palette of every pixel's colour."""
    if picture.mode not in ("RGB", "RGBA", "P", "L", "1"):
        raise BadImage(f"a class map in mode {picture.mode}, expected RGB colours")
    codes = _codes(picture)
    known = np.array([(r << 16) | (g << 8) | b for r, g, b in palette])
    order = np.argsort(known)
    at = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    wrong = known[at] != codes
    if wrong.any():
        code = int(codes[wrong][0])
        red, green, blue = code >> 16, code >> 8 & 255, code & 255
        raise BadImage(f"the colour {red},{green},{blue} in the class map, which no class has")
    return at.astype(np.uint8)


def _opaque(picture: PIL.Image.Image) -> np.ndarray:
    """H,W,3 uint8: the colours, black where nothing is to be seen."""
    if picture.mode != "RGBA":
        return np.asarray(picture.convert("RGB"))
    bands_hwc = np.asarray(picture)
    return bands_hwc[:, :, :3] * (bands_hwc[:, :, 3:] > 0).astype(np.uint8)


def _codes(picture: PIL.Image.Image) -> np.ndarray:
    """H,W int64: a number for every colour."""
    bands_hwc = _opaque(picture).astype(np.int64)
    return (bands_hwc[:, :, 0] << 16) | (bands_hwc[:, :, 1] << 8) | bands_hwc[:, :, 2]


# What the values mean


def read_meaning(folder: Path) -> Meaning | None:
    """From class_dict.csv (name,r,g,b), CVAT's labelmap.txt, classes.json, classes.txt, ADE20K's objectInfo150.txt, Roboflow's
    _classes.csv, CamVid's label_colors.txt, labelme2voc's class_names.txt or nnU-Net's dataset.json; None without any.

    classes.json: {"names": [...], "ignore_index": 11}, where names may also be {"0": "road", ...}, or what folders of classes take. The
    ignored value is no class, and 255 is ignored unless it has a name. Values of the same name are one class.
    Raises DataError for a file that cannot be read.
    """
    listed = _read_json(folder / "classes.json") or _of_nnunet(folder / "dataset.json")
    ignored: Any = listed.get("ignore_index") if listed else None
    ignored = ignored if isinstance(ignored, list) else [] if ignored is None else [ignored]
    if (folder / "class_dict.csv").is_file():
        names, palette = _read_palette(folder / "class_dict.csv")
        return meaning(dict(enumerate(names)), folder, ignored=ignored, palette=palette)
    if (folder / "labelmap.txt").is_file() and (labels := _read_labelmap(folder / "labelmap.txt")):
        return meaning(dict(enumerate(labels)), folder, palette=tuple(labels.values()))
    if listed is not None:
        plain = listed["names"]
        return meaning(dict(enumerate(plain)) if isinstance(plain, list) else plain, folder, ignored=ignored)
    if (folder / "_classes.csv").is_file() and (values := _of_roboflow(folder / "_classes.csv")):
        return meaning(values, folder)
    if (folder / "label_colors.txt").is_file() and (labels := _label_colors(folder / "label_colors.txt")):
        return meaning(dict(enumerate(labels)), folder, palette=tuple(labels.values()))
    if (folder / "class_names.txt").is_file():  # labelme2voc
        names = [line.strip() for line in _text_lines(folder / "class_names.txt") if line.strip() not in ("", "__ignore__")]
        return meaning(dict(enumerate(names)), folder)
    ade20k = folder / "objectInfo150.txt"
    if ade20k.is_file():  # columns Idx, Ratio, Train, Val, Stuff, Name; in the maps 0 is what none of the 150 classes is
        lines = ade20k.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
        rows = [line.split("\t") for line in lines if line.strip()]
        return meaning({row[0].strip(): row[-1].split(",")[0].strip() for row in rows}, folder, ignored=[0])
    plain_names = read_class_names(folder)
    return meaning(plain_names, folder) if plain_names else None


def meaning(names: Any, where: object, *, ignored: Any = (), palette: tuple[Colour, ...] | None = None) -> Meaning:
    """names: value -> name. Raises DataError for values that are none."""
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{where}: the names of the classes are {str(names)[:60]}, expected a list of names or value: name")
    by_value = {_value(value, where): name for value, name in names.items()}
    skip = {_value(value, where) for value in ignored}
    kept = {value: by_value[value] for value in sorted(by_value) if value not in skip}
    classes = tuple(dict.fromkeys(kept.values()))
    if not classes or len(classes) > IGNORE:
        raise DataError(f"{where}: {len(classes)} classes, expected 1 to {IGNORE}")
    table = [UNKNOWN] * 256
    table[IGNORE] = IGNORE
    for value in skip:
        table[value] = IGNORE
    for value, name in kept.items():
        table[value] = classes.index(name)
    return Meaning(classes, tuple(table), palette)


def colour_meaning(colours: Sequence[Colour]) -> Meaning:
    """Every colour a class of its own, called by its hexadecimal digits."""
    names = {i: "#{:02x}{:02x}{:02x}".format(*colour) for i, colour in enumerate(colours)}
    return meaning(names, "", palette=tuple(colours))


def _value(value: Any, where: object) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= 255:
        raise DataError(f"{where}: a class of value {value!r}, expected 0 to 255")
    return number


def _read_json(path: Path) -> dict[str, Any] | None:
    """The file where it is of the form with "names"; other forms are read as for folders of classes."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as class names ({error}); mend it or take it away") from None
    return content if isinstance(content, dict) and isinstance(content.get("names"), list | dict) else None


def _of_nnunet(path: Path) -> dict[str, Any] | None:
    """{"labels": {"background": 0, "tumour": 1}}, or number: name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else None
    except (OSError, ValueError):
        return None
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        return None
    if all(type(value) is int for value in labels.values()):
        return {"names": {str(value): name for name, value in labels.items()}}
    return {"names": labels} if all(key.isdecimal() and isinstance(name, str) for key, name in labels.items()) else None


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as class names: {error}") from None


def _of_roboflow(path: Path) -> dict[str, str]:
    """Pixel Value, Class: a line a class. Empty for other tables of that name."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(_text_lines(path))]
    if not rows or [cell.lower() for cell in rows[0]] != ["pixel value", "class"]:
        return {}
    return {row[0]: row[1] for row in rows[1:] if len(row) == 2 and row[0].isdecimal()}


def _label_colors(path: Path) -> dict[str, Colour]:
    """r g b name, a line a class. Empty where it has other lines."""
    labels: dict[str, Colour] = {}
    for line in _text_lines(path):
        words = line.split(None, 3)
        if len(words) == 4 and all(w.isdecimal() and int(w) <= 255 for w in words[:3]):
            labels[words[3].strip()] = (int(words[0]), int(words[1]), int(words[2]))
    return labels


def _read_labelmap(path: Path) -> dict[str, Colour]:
    """label:r,g,b:parts:actions, a line a class; # begins a comment. Empty where it has no such line."""
    labels: dict[str, Colour] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a palette: {error}") from None
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [v.strip() for v in rest.partition(":")[0].split(",")]
        if not line.startswith("#") and len(numbers) == 3 and all(v.isdecimal() and int(v) <= 255 for v in numbers):
            labels[name.strip()] = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return labels


def _read_palette(path: Path) -> tuple[list[str], tuple[Colour, ...]]:
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a palette: {error}") from None
    names: list[str] = []
    colours: list[Colour] = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line]
        if not any(cells) or (number == 1 and [c.lower() for c in cells] == ["name", "r", "g", "b"]):
            continue
        if len(cells) != 4 or not all(c.isdecimal() and int(c) <= 255 for c in cells[1:]):
            raise DataError(f"{path}:{number}: {','.join(line)[:60]!r}, expected name,r,g,b with numbers from 0 to 255")
        red, green, blue = map(int, cells[1:])
        if (red, green, blue) in colours:
            raise DataError(f"{path}:{number}: the colour {red},{green},{blue} a second time")
        names.append(cells[0])
        colours.append((red, green, blue))
    if not names or len(names) > IGNORE:
        raise DataError(f"{path}: {len(names)} colours, expected 1 to {IGNORE}")
    return names, tuple(colours)
