"""YOLO's text files, one an image: `class cx cy width height`, or `class x1 y1 x2 y2 ...` around an object, all in shares of the image.

Which text belongs to which image, and which split it is in, is told by `readers/`; the names of the classes are in data.yaml (a list or
number: name), classes.txt or obj.names, else their numbers. Format: https://docs.ultralytics.com/datasets/detect.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from convmix.config import Data, Size
from convmix.data import rle
from convmix.data.formats import printable
from convmix.data.readers.objectrows import Box, Fault, ObjectRows, ObjectSet, fit_box, image_size, left_out
from convmix.data.readers.paired import PairedSplits
from convmix.data.readers.yaml_splits import load_data_yaml
from convmix.errors import DataError, first_line

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names", "_darknet.labels")
LARGEST = 2.0  # a share beyond this is no overhang but a number in pixels
ALIGNED = 1e-3  # share of the image: sides that differ by less are parallel, and parallel to the image's

Lines = list[tuple[int, list[str]]]  # line, words


@dataclass(frozen=True)
class LineForm:
    """What the lines of a data set hold, beside what one line shows."""

    keypoints: int = 0  # numbers behind the box that belong to keypoints
    extra: int = 0  # numbers behind the box that are none of the object's: a confidence or the number of a track
    oriented: bool = False  # four corners of a box that may be turned
    corners: bool = False  # left, top, right, bottom in the place of centre and sides


def read_yolo(pairs: PairedSplits, *, masks: bool | None, data: Data, names: tuple[str, ...] | None, keypoints: int = 0) -> ObjectSet:
    """masks: whether outlines are read; None: where most objects have one. An object without one is then not learned from.

    names: of the classes; None: from a file of names. keypoints: numbers of keypoints on a line, as data.yaml tells. An image without text
    file is one without objects. Raises DataError for a file of names that cannot be read.
    """
    found = ObjectSet({}, (), list(pairs.dropped), list(pairs.notes), pairs.origin)
    texts = {split: _texts(of_split, pairs.root, found.dropped) for split, of_split in pairs.splits.items()}
    lines = [words for of_split in texts.values() for _, of_image in of_split.values() for _, words in of_image]
    form = _form_of(lines, keypoints)
    found.notes += _notes(form, lines)
    outlines = 0 if form.keypoints or form.oriented else sum(map(_is_outline, lines))
    with_masks = bool(lines) and 3 * outlines >= 2 * len(lines) if masks is None else masks
    if with_masks and outlines < len(lines) and masks is None:
        found.notes.append(
            f"{len(lines) - outlines} of {len(lines)} objects are a box without outline: they are neither learned from nor scored; "
            "--task detect reads boxes alone"
        )
    elif not with_masks and outlines and masks is None:
        found.notes.append(f"{outlines} of {len(lines)} objects have an outline, the others a box alone: all are read as boxes")
    found.classes = names or read_names(pairs.root) or _numbered(lines)
    _refuse_from_one(lines, found.classes, pairs.root)
    for split, of_split in texts.items():
        found.splits[split] = rows = ObjectRows(with_masks=with_masks)
        for image, (text, of_image) in of_split.items():
            _read(image, text, of_image, rows, pairs.root, found, data, form)
    return found


# Files


def _texts(pairs: list[tuple[str, str | None]], root: Path, dropped: list[tuple[str, str]]) -> dict[Path, tuple[str, Lines]]:
    """Image -> the name of its text file and the lines that are not empty."""
    read: dict[Path, tuple[str, Lines]] = {}
    for image, label in pairs:
        name = printable(label or f"{os.path.splitext(image)[0]}.txt")  # noqa: PTH122 - a name
        try:
            text = _decoded((root / label).read_bytes()) if label else ""
        except (OSError, UnicodeDecodeError) as error:
            dropped.append((name, f"cannot be read ({first_line(error)}); its image is left out"))
            continue
        read[root / image] = name, [(i, line.split()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return read


def _decoded(content: bytes) -> str:
    """Raises UnicodeDecodeError."""
    marks = (b"\xff\xfe", b"\xfe\xff")
    # a mark alone tells UTF-16 only where the text behind it has both bytes of every letter
    is_utf16 = content.startswith(marks) and len(content) > 2 and b"\0" in content
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def read_names(root: Path) -> tuple[str, ...] | None:
    """From the first of NAME_FILES that there is. DataError where it holds none."""
    for file in (root / name for name in NAME_FILES):
        if not file.is_file():
            continue
        if file.suffix in (".yaml", ".yml"):
            return load_data_yaml(file).names
        try:
            names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read as class names: {first_line(error)}") from None
        if names:
            return tuple(names)
    return None


def _numbered(lines: list[list[str]]) -> tuple[str, ...]:
    """0, 1, ... up to the largest number in use, where no file tells the names."""
    numbers = [int(words[0]) for words in lines if words[0].isdecimal() and len(words[0]) < 5]
    return tuple(str(i) for i in range(max(numbers, default=-1) + 1))


def _refuse_from_one(lines: list[list[str]], classes: tuple[str, ...], root: Path) -> None:
    """DataError where the classes are plainly counted from 1: read from 0 every name would be the next one's."""
    used = {int(words[0]) for words in lines if words[0].isdecimal() and len(words[0]) < 5}
    if len(classes) > 1 and len(lines) >= 5 and used and min(used) == 1 and max(used) == len(classes):
        raise DataError(
            f"{root}: the label files hold the classes 1 to {len(classes)} and there are {len(classes)} names, which YOLO counts "
            "from 0: take 1 "
            "from the numbers, or add a name for class 0"
        )


# Lines


def _form_of(lines: list[list[str]], keypoints: int) -> LineForm:
    """What all lines together show: a single one may be anything."""
    lengths = Counter(map(len, lines))
    if not lines or len(lengths) > 1:
        return LineForm(keypoints=keypoints if keypoints and lengths[5 + keypoints] else 0)
    length, values = next(iter(lengths)), [_numbers(words) for words in lines]
    if any(v is None for v in values):
        return LineForm()
    numbers = [v for v in values if v is not None]
    if keypoints and length == 5 + keypoints:
        return LineForm(keypoints=keypoints)
    if length > 8 and (length - 5) % 3 == 0 and all(v in (0, 1, 2) for line in numbers for v in line[7::3]):
        return LineForm(keypoints=length - 5)
    if length == 6 and len(lines) > 1:
        return LineForm(extra=1)
    if length == 9 and all(map(_is_turned_box, numbers)) and not all(map(_is_upright, numbers)):
        return LineForm(oriented=True)
    return LineForm(corners=length == 5 and _are_corners(numbers))


def _notes(form: LineForm, lines: list[list[str]]) -> list[str]:
    notes = []
    if form.keypoints:
        notes.append(f"keypoints are left out: of the {len(lines)} objects the box is read")
    if form.extra:
        notes.append("the sixth number of a line (a confidence or the number of a track) is left out")
    if form.oriented:
        notes.append("oriented boxes are read as the upright boxes around them; --task instances reads their outlines")
    if form.corners:
        notes.append("the boxes are read as left, top, right, bottom (xyxy): as centre and sides most would leave the image")
    return notes


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _is_turned_box(numbers: list[float]) -> bool:
    """class x1 y1 ... x4 y4: opposite sides are alike, which holds in shares of the image as it does in pixels."""
    x1, y1, x2, y2, x3, y3, x4, y4 = numbers[1:]
    return abs(x1 + x3 - x2 - x4) < ALIGNED * 5 and abs(y1 + y3 - y2 - y4) < ALIGNED * 5


def _is_upright(numbers: list[float]) -> bool:
    return len({round(v / ALIGNED) for v in numbers[1::2]}) <= 2 and len({round(v / ALIGNED) for v in numbers[2::2]}) <= 2


def _are_corners(lines: list[list[float]]) -> bool:
    """Whether boxes that leave the image, taken as centre and sides, lie all inside as two corners."""
    over = sum(min(x - w / 2, y - h / 2) < -0.02 or max(x + w / 2, y + h / 2) > 1.02 for _, x, y, w, h in lines)
    inside = all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for _, left, top, right, bottom in lines)
    return len(lines) >= 5 and inside and 5 * over >= len(lines)


def _is_outline(words: list[str]) -> bool:
    """Five words are a box; three points take seven."""
    return len(words) >= 7 and len(words) % 2 == 1


def _read(image: Path, text: str, lines: Lines, rows: ObjectRows, root: Path, found: ObjectSet, data: Data, form: LineForm) -> None:
    name = os.path.relpath(image, root)
    try:
        size = image_size(image, data)
    except Fault as fault:
        found.dropped.append((printable(name), left_out(str(fault), len(lines))))
        return
    rows.image(image, name, size)
    for number, words in lines:
        try:
            label = _class(words[0], found.classes)
            box, mask = _outline(words[: 5 if form.keypoints or form.extra else None], size, form, with_masks=rows.with_masks)
            if rows.with_masks and mask is None:
                rows.box_alone(box, label, size)
                raise Fault("a box without an outline")
            rows.object(box, label, mask=mask)
        except Fault as fault:
            found.dropped.append((f"{text}:{number}", str(fault)))


def _class(word: str, classes: tuple[str, ...]) -> int:
    try:
        number = float(word)
    except ValueError:
        raise Fault(f"a class of {word[:40]!r}, expected a number") from None
    if not number.is_integer() or not 0 <= number < len(classes):
        raise Fault(f"of class {word[:40]}, expected 0 to {len(classes) - 1}")
    return int(number)


def _outline(words: list[str], size: Size, form: LineForm, *, with_masks: bool) -> tuple[Box, bytes | None]:
    if len(words) != 5 and not _is_outline(words):
        raise Fault(f"{len(words)} numbers, expected class cx cy width height, or class and x y of at least 3 points")
    values = [_share(word) for word in words[1:]]
    height, width = size
    if len(values) == 4:
        cx, cy, w, h = values
        if form.corners:
            return fit_box(cx * width, cy * height, w * width, h * height, size), None
        return fit_box((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height, size), None
    x, y = [v * width for v in values[0::2]], [v * height for v in values[1::2]]
    box = fit_box(min(x), min(y), max(x), max(y), size)
    if not with_masks:
        return box, None
    mask = rle.from_polygons([[v for point in zip(x, y, strict=True) for v in point]], size)
    if not rle.areas([mask], size)[0]:
        raise Fault("an outline without area inside the image")
    return box, mask


def _share(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise Fault(f"{word[:40]!r}, expected a number") from None
    if not abs(value) <= LARGEST:  # false for NaN too
        raise Fault(f"{word[:40]}, expected a share of the image in 0..1")
    return value
