"""YOLO's text files, one an image: `class cx cy width height`, or `class x1 y1 x2 y2 ...` around an object, all in shares of the image.

images/train/ + labels/train/, or train/images/ + train/labels/, or images/ + labels/ without splits; the names of the classes in
data.yaml (a list or number: name), classes.txt or obj.names. Format: https://docs.ultralytics.com/datasets/detect.
"""

import os
from pathlib import Path

from convmix.config import Data, Size
from convmix.data import rle
from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS, first_line, printable
from convmix.data.objectrows import Box, Fault, ObjectRows, ObjectSet, fit_box, image_size, left_out
from convmix.errors import DataError

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
NOT_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt")  # text files that like to lie among the labels
LARGEST = 2.0  # a share beyond this is no overhang but a number in pixels

Lines = list[tuple[int, list[str]]]  # line, words


def read_yolo(root: Path, *, masks: bool | None, data: Data) -> ObjectSet | None:
    """The data set in a folder, or None where it is no such folder.

    masks: whether outlines are read; None: where every object has one. Objects without one are then dropped. An image without text file
    is one without objects. Raises DataError for a file of names that cannot be read.
    """
    pairs = _pairs(root)
    if not pairs:
        return None
    found = ObjectSet({}, ())
    texts = {split: _texts(images, labels, root, found.dropped) for split, (images, labels) in pairs.items()}
    lines = [words for of_split in texts.values() for _, of_image in of_split.values() for _, words in of_image]
    with_masks = bool(lines) and all(map(_is_outline, lines)) if masks is None else masks
    found.classes = _names(root) or _numbered(lines)
    for split, of_split in texts.items():
        found.splits[split] = rows = ObjectRows(with_masks=with_masks)
        for image, (text, of_image) in of_split.items():
            _read(image, text, of_image, rows, root, found, data)
    return found


# Files


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Per split the folder of the images and that of the text files."""
    words = {f.name: SPLIT_WORDS[f.name.lower()] for f in _folders(root) + _folders(root / "images") if f.name.lower() in SPLIT_WORDS}
    pairs: dict[str, tuple[Path, Path]] = {}
    for word, split in sorted(words.items()):
        for images, labels in ((root / "images" / word, root / "labels" / word), (root / word / "images", root / word / "labels")):
            if _is_pair(images, labels):
                if split in pairs:
                    raise DataError(f"{root}: {pairs[split][0]} and {images} both look like the {split} split; keep one")
                pairs[split] = images, labels
    if not pairs and _is_pair(root / "images", root / "labels"):
        return {"all": (root / "images", root / "labels")}
    return {split: pairs[split] for split in ("train", "val", "test") if split in pairs}


def _is_pair(images: Path, labels: Path) -> bool:
    """Whether a folder of images has text files beside it; PNG files there would be class maps."""
    if not images.is_dir() or not labels.is_dir():
        return False
    texts = any(f.suffix == ".txt" and f.name.lower() not in NOT_LABELS for f in labels.iterdir())
    return texts and any(f.suffix.lower() in IMAGE_SUFFIXES for f in images.iterdir())


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []


def _texts(images: Path, labels: Path, root: Path, dropped: list[tuple[str, str]]) -> dict[Path, tuple[str, Lines]]:
    """Image -> the name of its text file and the lines that are not empty."""
    texts = {f.stem: f for f in sorted(labels.iterdir()) if f.suffix == ".txt" and f.name.lower() not in NOT_LABELS}
    read: dict[Path, tuple[str, Lines]] = {}
    stems: dict[str, Path] = {}
    for image in sorted(f for f in images.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES):
        name = printable(os.path.relpath(image, root))
        if stems.setdefault(image.stem, image) != image:
            dropped.append((name, f"its text file is that of {stems[image.stem].name} too"))
            continue
        file = texts.pop(image.stem, None)
        label_name = printable(os.path.relpath(file or labels / f"{image.stem}.txt", root))
        try:
            text = file.read_text(encoding="utf-8-sig") if file else ""
        except (OSError, UnicodeDecodeError) as error:
            dropped.append((label_name, f"cannot be read ({first_line(error)}); its image is left out"))
            continue
        read[image] = label_name, [(i, line.split()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    dropped += [(printable(os.path.relpath(file, root)), "no image of this name") for file in texts.values()]
    return read


def _names(root: Path) -> tuple[str, ...] | None:
    for name in NAME_FILES:
        file = root / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8-sig")
            names = _yaml_names(text) if file.suffix in (".yaml", ".yml") else [line.strip() for line in text.splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read as class names: {first_line(error)}") from None
        if names:
            return tuple(names)
    return None


def _yaml_names(text: str) -> list[str]:
    """`names`, by number. Raises ValueError, for people."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"names has the keys {', '.join(map(str, names))[:80]}, expected 0 to {len(names) - 1}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError("expected names, a list or number: name")
    return [str(name) for name in names]


def _numbered(lines: list[list[str]]) -> tuple[str, ...]:
    """class_0, class_1, ... up to the largest number in use, where no file tells the names."""
    numbers = [int(words[0]) for words in lines if words[0].isdecimal() and len(words[0]) < 5]
    return tuple(f"class_{i}" for i in range(max(numbers, default=-1) + 1))


# Lines


def _is_outline(words: list[str]) -> bool:
    """Five words are a box; three points take seven."""
    return len(words) >= 7 and len(words) % 2 == 1


def _read(image: Path, text: str, lines: Lines, rows: ObjectRows, root: Path, found: ObjectSet, data: Data) -> None:
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
            box, mask = _outline(words, size, with_masks=rows.with_masks)
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


def _outline(words: list[str], size: Size, *, with_masks: bool) -> tuple[Box, bytes | None]:
    if len(words) != 5 and not _is_outline(words):
        raise Fault(f"{len(words)} numbers, expected class cx cy width height, or class and x y of at least 3 points")
    values = [_share(word) for word in words[1:]]
    height, width = size
    if len(values) == 4:
        if with_masks:
            raise Fault("a box without an outline")
        cx, cy, w, h = values
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
