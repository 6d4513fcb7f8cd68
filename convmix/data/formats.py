"""What every reader of a local or remote data set hands over, and what readers share.

path -> `Found` (per split: images not decoded, labels as written, names); `sources.py` turns labels into class numbers.
"""

import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from convmix.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import datasets

AnyPath = TypeVar("AnyPath", bound=PurePath)
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".npy", ".avif", ".heic", ".heif", ".hif", ".jxl",
))  # fmt: skip
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
IMAGE_COLUMNS = (
    "image", "img", "path", "image_path", "img_path", "file", "filename", "file_name", "filepath", "file_path", "image_file",
    "image_filename", "image_name", "imagepath", "images", "photo", "picture",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "species", "fine_label", "label_name",
    "category_name", "class_id", "label_id", "cls", "y", "choice", "diagnosis", "breed", "emotion",
)  # fmt: skip


@dataclass
class Table:
    """One split as found."""

    images: "datasets.Dataset"  # column image {bytes, path}, not decoded; for shards also offset and size in the shard
    labels: list[Any]  # as written; None or "" where there is none
    names: list[str]


@dataclass
class Found:
    """A data set as found, before its labels become numbers."""

    tables: dict[str, Table]  # "train", "val", "test", or "all" where the data is not split
    root: str = ""  # what relative image paths are relative to
    names: Sequence[str] | Mapping[str, str] | None = None  # a sequence: the labels index it; a mapping: label text -> readable name
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    notes: list[str] = field(default_factory=list)  # one line each, for people
    split_origin: str = ""  # where the splits come from, for people
    layout: str = ""  # how it was read
    read_files: frozenset[str] = frozenset()  # tables and texts that this reading took classes from
    by_number: bool = True  # sort classes that are all whole numbers by value; folders sort as text, as torchvision does


def split_word(name: str) -> str | None:
    """train, val or test where `name` begins with such a word in any letter case: 'Valid', 'train-00000-of-00002', 'test_1.tar'."""
    word = re.match(r"[a-z]+", name.lower())
    return SPLIT_WORDS.get(word.group()) if word and re.fullmatch(r"[a-z]+([-_.\d].*)?", name.lower(), re.DOTALL) else None


def image_rows(paths: Sequence[str] | None = None, encoded: Sequence[bytes] | None = None) -> "datasets.Dataset":
    """A data set of one column, image {bytes, path}, from paths or from encoded images."""
    import datasets
    import pyarrow as pa

    n = len(paths if paths is not None else encoded or ())
    columns = [pa.array(encoded, pa.binary()) if encoded is not None else pa.nulls(n, pa.binary())]
    columns.append(pa.array(paths, pa.string()) if paths is not None else pa.nulls(n, pa.string()))
    rows = datasets.Dataset.from_dict({"image": pa.StructArray.from_arrays(columns, ["bytes", "path"])})
    return rows.cast_column("image", datasets.Image(decode=False))


def printable(text: str) -> str:
    """`text` with the bytes of a file name that is not UTF-8 written as \\xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def storable(path: str) -> str:
    """`path`, or a file: URI where its bytes are not UTF-8, which no table can hold as text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def plain_path(stored: str) -> str:
    """The inverse of `storable`."""
    return os.fsdecode(unquote_to_bytes(stored[7:])) if stored.startswith("file://") else stored


def read_class_names(folder: Path) -> dict[str, str] | None:
    """Readable class names from classes.json, labels.json or classes.txt in `folder`, or None."""
    return class_names_among(lambda name: (folder / name).read_bytes() if (folder / name).is_file() else None, folder)


def class_names_among(read: Callable[[str], bytes | None], folder: object) -> dict[str, str] | None:
    """The same of any folder: `read` gives a file's content by its name, None where there is none.

    Accepted: {"n01440764": "tench"}, {"tench": 0}, ["tench", ...]; the text file holds one name a line. Other JSON is not a list of
    classes (an annotation file, perhaps) and is ignored.
    """
    for name in ("classes.json", "labels.json", "classes.txt"):
        try:
            content = read(name)
            if content is None:
                continue
            text = content.decode("utf-8-sig")
            value = json.loads(text) if name.endswith(".json") else [line.strip() for line in text.splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}/{name}: cannot be read as class names ({error}); mend it or take it away") from None
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return {str(i): v for i, v in enumerate(value)}
        if isinstance(value, dict) and value and all(type(v) is int for v in value.values()):
            return {str(v): k for k, v in value.items()}
        if isinstance(value, dict) and value and all(isinstance(v, str) for v in value.values()):
            return value
    return None


def find_column(kind: str, columns: Sequence[str], asked: str | None, where: object) -> str:
    """The column with the image or the label: the one asked for, else by its name.

    Raises DataError that lists the columns and names the setting.
    """
    listed = ", ".join(columns)
    if asked is not None:
        if asked not in columns:
            raise DataError(f"{where}: no column {asked!r} for data.{kind}_column{did_you_mean(asked, columns)}; columns: {listed}")
        return asked
    usual = IMAGE_COLUMNS if kind == "image" else LABEL_COLUMNS
    plain = {re.sub(r"[\s-]+", "_", c.strip().lower()): c for c in reversed(columns)}
    for name in usual:
        if name in plain:
            return plain[name]
    raise DataError(f"{where}: no column is called {usual[0]}, {usual[2]} or the like; set data.{kind}_column to one of: {listed}")


def by_split(files: Iterable[AnyPath], dropped: list[tuple[str, str]]) -> dict[str, list[AnyPath]]:
    """Files by the split their own name or their folder's begins with; all of them are 'all' where no name tells a split."""
    words = {f: split_word(f.name) or SPLIT_WORDS.get(f.parent.name.lower()) for f in sorted(files)}
    if not any(words.values()) or len(words) == 1:
        return {"all": list(words)}
    dropped += [(f.name, "its name begins with no split") for f, w in words.items() if w is None]
    return {s: [f for f, w in words.items() if w == s] for s in ("train", "val", "test") if s in words.values()}


def expand(pattern: str) -> list[Path]:
    """Files that a pattern with *, ?, [..], {000..003} or {a,b} names, sorted; numbers keep their leading zeros."""
    return [Path(p) for choice in braces(pattern) for p in sorted(glob.glob(choice))]  # noqa: PTH207


def braces(pattern: str) -> list[str]:
    """What {000..003} and {a,b} stand for, one text for each choice."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match.group(1))
    if span:
        low, high = span.groups()
        choices = [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]
    else:
        choices = match.group(1).split(",")
    return [text for choice in choices for text in braces(pattern[: match.start()] + choice + pattern[match.end() :])]
