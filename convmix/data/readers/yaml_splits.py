"""YOLO's data.yaml: where the images of every split lie, and what the classes are called.

`path:` is relative to the YAML, to the folder one works in, or absolute; `train:`, `val:` and `test:` are folders, text files that list
images, or lists of both. A place that was moved is found below the YAML by the last parts of its path. Roboflow's '../train/images' means
'train/images'. Words such as no and on are names, not truth values.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmix.data.formats import SPLIT_WORDS, printable
from convmix.data.readers.names import ImageIndex
from convmix.data.readers.splits import ORDER, Splits, by_lists
from convmix.data.readers.survey import Survey, survey
from convmix.errors import DataError, first_line


@dataclass(frozen=True)
class DataYaml:
    """What such a file says, every value as text."""

    path: Path
    base: str  # `path:`, "" where it is not given
    entries: dict[str, tuple[str, ...]]  # split -> its folders, lists or images
    names: tuple[str, ...] | None
    keypoints: int  # numbers of keypoints per object on a line, 0 where there are none


def load_data_yaml(path: Path) -> DataYaml:
    """DataError where the file cannot be read or its names are none."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: cannot be read as class names: {' '.join(str(error).split())}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as class names: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: cannot be read as class names: expected names, a list or number: name")
    try:
        names = tuple(_names(content.get("names")))
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as class names: {error}") from None
    entries: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        split = SPLIT_WORDS.get(str(key).lower())
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        places = tuple(v.strip() for v in values if isinstance(v, str))
        if split and (places := tuple(p for p in places if p not in ("", "~", "null"))):
            entries[split] = (*entries.get(split, ()), *places)
    return DataYaml(path, _text(content.get("path")), entries, names, _keypoints(content.get("kpt_shape")))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _names(names: Any) -> list[str]:
    """By number. Raises ValueError, for people."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(map(str, range(len(names)))):
            raise ValueError(f"names has the keys {', '.join(map(str, names))[:80]}, expected 0 to {len(names) - 1}")
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError("expected names, a list or number: name")
    return [str(name).strip() for name in names]


def _keypoints(shape: Any) -> int:
    try:
        return int(shape[0]) * int(shape[1])
    except (TypeError, ValueError, IndexError):
        return 0


# Where it is


def yaml_splits(described: DataYaml, *, within: Path | None = None) -> tuple[Survey, Splits, list[str]]:
    """What lies where the YAML points, and its splits; notes for people.

    within: the folder that the user gave, which the images must be in. DataError where the training images are nowhere.
    """
    bases = _bases(described, within)
    found: dict[str, list[Path]] = {}
    notes: list[str] = []
    for split, entries in described.entries.items():
        places = [place for entry in entries if (place := _place(entry, bases, described.path.parent))]
        if len(places) < len(entries):
            missing = next(e for e in entries if _place(e, bases, described.path.parent) is None)
            if split == "train":
                where = f"neither below {bases[0]} nor below the folder of the file"
                raise DataError(f"{described.path}: its train: {missing} is {where}; mend the path")
            notes.append(f"{described.path.name} names {missing} for {split}, which is not there")
        if places:
            found[split] = places
    if not found:
        raise DataError(f"{described.path}: names no images; expected train: and val:, or give the folder of the images")
    root = _root([place for places in found.values() for place in places], bases)
    seen = survey(root, _roots(root, found))
    return seen, _split(seen, found, described.path), notes


def _bases(described: DataYaml, within: Path | None) -> list[Path]:
    """What the entries may be relative to, the likeliest first."""
    folder = described.path.parent.absolute()
    given = Path(os.path.expanduser(described.base.replace("\\", "/"))) if described.base else None  # noqa: PTH111 - "~" inside other text
    listed = [folder / given, Path.cwd() / given] if given else []
    if given and (moved := _moved(given, folder)):
        listed.append(moved)
    unique = [b for b in dict.fromkeys(Path(os.path.normpath(b)) for b in [*listed, folder, Path.cwd()]) if b.is_dir()]
    return [b for b in unique if within is None or b == within or within in b.parents] or [folder]


def _moved(path: Path, folder: Path) -> Path | None:
    """A place by as many of its last parts as are there, below the folder of the YAML or of its parent."""
    parts = [p for p in path.parts if p not in ("/", "..", ".")]
    for start in range(len(parts)):
        for base in (folder, folder.parent):
            if (place := base.joinpath(*parts[start:])).exists():
                return place
    return None


def _place(entry: str, bases: list[Path], folder: Path) -> Path | None:
    text = entry.replace("\\", "/")
    stripped = text
    while stripped.startswith("../"):
        stripped = stripped[3:]
    for form in dict.fromkeys((text, stripped)):
        for base in bases:
            place = Path(os.path.normpath(base / form))
            if place.exists() and place != base.parent:
                return place
    return _moved(Path(text), folder)


def _counterpart(place: Path) -> Path | None:
    """Where the labels of a folder called images, or below one, lie by the rule of YOLO's authors."""
    at = next((i for i in reversed(range(len(place.parts))) if place.parts[i].lower() == "images"), None)
    return None if at is None else Path(*place.parts[:at], "labels", *place.parts[at + 1 :])


def _root(places: list[Path], bases: list[Path]) -> Path:
    """The lowest folder that holds all of them with their labels; the first base where that is it."""
    folders = [place if place.is_dir() else place.parent for place in places]
    folders += [labels for folder in folders if (labels := _counterpart(folder)) and labels.is_dir()]
    common = Path(os.path.commonpath(folders))
    return next((base for base in bases if common == base or base in common.parents), common)


def _roots(root: Path, found: dict[str, list[Path]]) -> list[Path]:
    """What is walked: the folders that are named and those of their labels, or all below the root where lists name the images."""
    places = [place for of_split in found.values() for place in of_split]
    if any(place.is_file() for place in places) or len(root.parts) > 2:
        return [root]
    return [p for place in places for p in (place, _counterpart(place)) if p and p.is_dir()]


def _split(seen: Survey, found: dict[str, list[Path]], yaml: Path) -> Splits:
    index = ImageIndex(seen.root, seen.images)
    images: dict[str, list[str]] = {}
    lists: dict[str, list[str]] = {}
    for split, places in found.items():
        for place in places:
            name = os.path.relpath(place, seen.root).replace(os.sep, "/")
            if place.is_dir():
                images.setdefault(split, []).extend(_below(seen.images, "" if name == "." else name))
            elif place.suffix.lower() in (".txt", ".lst"):
                lists.setdefault(split, []).append(name)
            else:
                images.setdefault(split, []).append(name)
    dropped: list[tuple[str, str]] = []
    if lists:
        listed = by_lists(seen, index, {**lists, **({} if "train" in lists else {"train": []})}, among=seen.images)
        dropped = [entry for entry in listed.dropped if entry[1] != "an image in none of the lists"]
        for split, names in listed.images.items():
            images.setdefault(split, []).extend(names)
    unique = {split: list(dict.fromkeys(names)) for split, names in images.items()}
    return Splits({s: unique[s] for s in ORDER if unique.get(s)}, f"{printable(yaml.name)}", dropped)


def _below(images: list[str], folder: str) -> Iterator[str]:
    return (image for image in images if not folder or image.startswith(f"{folder}/"))
