"""What INPUT means: every image, parquet file and .tar shard of it, one after the other and in a fixed order.

a folder, a file, a quoted pattern, a .txt with a name a line; local, or a URL (s3://bucket/photos)  ->  Entry, Entry, ...

One folder's names are held at a time, so a listing of millions in many folders needs no memory.
"""

import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from convmix.batch_inference.storage import opened
from convmix.data.formats import IMAGE_SUFFIXES, printable
from convmix.data.remote.stores import version_of
from convmix.data.remote.urls import file_system, is_url, scheme
from convmix.errors import DataError, did_you_mean

SHARD_SUFFIXES = frozenset((".tar",))
TABLE_SUFFIXES = frozenset((".parquet", ".pq"))
_WANTED = IMAGE_SUFFIXES | SHARD_SUFFIXES | TABLE_SUFFIXES


@dataclass(frozen=True)
class Entry:
    """A file as it was when it was listed."""

    name: str  # as the user would write it: a path, or a URL
    size: int | None = None  # bytes; None: not asked for
    version: str = ""  # another one where the file was written again

    @property
    def suffix(self) -> str:
        return PurePath(self.name).suffix.lower()


def entries(data: str) -> Iterator[Entry]:
    """Everything that `data` means. DataError where it means nothing."""
    found = False
    for entry in _listed(data) if data.lower().endswith(".txt") else _remote(data) if is_url(data) else _local(data):
        found = True
        yield entry
    if not found:
        raise DataError(f"{printable(data)} {_nothing(data)}")


def _listed(data: str) -> Iterator[Entry]:
    """The lines of a text. Nothing is asked about each: that would be a request for every one in an object store."""
    try:
        with opened(data) as file:
            for line in file:
                if name := os.fsdecode(line.rstrip(b"\r\n")).strip():
                    yield Entry(name)
    except OSError as error:
        raise DataError(f"{printable(data)}: the list cannot be read: {error.strerror or error}{_near(data)}") from None


def _local(data: str) -> Iterator[Entry]:
    is_pattern = glob.has_magic(data) and not os.path.lexists(data)
    matches = sorted(glob.glob(data, recursive=True)) if is_pattern else [data]  # noqa: PTH207 - Path.glob takes no absolute pattern
    visited: set[str] = set()
    for match in matches:
        if Path(match).is_dir():
            if not is_pattern or "**" not in data:  # `a/**` names the folders as well as what is in them
                yield from _below(match, visited)
        elif os.path.lexists(match):
            yield _entry(match)


def _below(folder: str, visited: set[str]) -> Iterator[Entry]:
    """As `convmix predict` goes: a folder's own files sorted, then its folders; hidden ones left out."""
    real = os.path.realpath(folder)
    if real in visited:  # a link to a folder above would go round for ever
        return
    visited.add(real)
    inner = []
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - of a million files the names alone are held, not a Path each
        if name.startswith("."):
            continue
        path = Path(folder, name)
        if path.is_dir():
            inner.append(str(path))
        elif path.suffix.lower() in _WANTED:
            yield _entry(str(path))
    for below in inner:
        yield from _below(below, visited)


def _entry(path: str) -> Entry:
    try:
        found = Path(path).stat()
    except OSError:  # a link to nothing: a row that says so
        return Entry(path)
    return Entry(path, found.st_size, str(found.st_mtime_ns)) if stat.S_ISREG(found.st_mode) else Entry(path)


def _remote(data: str) -> Iterator[Entry]:
    fs, path = file_system(data)
    prefix = f"{scheme(data)}://"
    try:
        if glob.has_magic(path) and not fs.exists(path):
            for _, info in sorted(fs.glob(path, detail=True).items()):
                if info["type"] == "file":
                    yield _remote_entry(info, prefix)
                elif "**" not in path:
                    yield from _remote_below(fs, info["name"], prefix)
        elif fs.isfile(path):
            yield _remote_entry(fs.info(path), prefix)
        else:
            yield from _remote_below(fs, path, prefix)
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise DataError(f"{data}: access is denied: {error}") from None


def _remote_below(fs: Any, folder: str, prefix: str) -> Iterator[Entry]:
    inner = []
    for info in sorted(fs.ls(folder, detail=True), key=lambda info: str(info["name"])):
        name = info["name"].rstrip("/")
        if name.rpartition("/")[2].startswith(".") or name == folder.rstrip("/"):
            continue
        if info["type"] == "directory":
            inner.append(name)
        elif PurePath(name).suffix.lower() in _WANTED:
            yield _remote_entry(info, prefix)
    for name in inner:
        yield from _remote_below(fs, name, prefix)


def _remote_entry(info: dict[str, Any], prefix: str) -> Entry:
    name = str(info["name"])
    return Entry(name if is_url(name) else f"{prefix}{name}", info.get("size"), version_of(info))


def _nothing(data: str) -> str:
    if not is_url(data) and Path(data).is_dir():
        return f"has no images, shards or tables; their names end in {', '.join(sorted(_WANTED))}"
    return f"matches nothing{_near(data)}; expected a folder, a file, a quoted pattern or a .txt with a name a line"


def _near(data: str) -> str:
    if is_url(data):
        return ""
    folder = Path(data).absolute().parent
    if not folder.is_dir():
        return f" (there is no folder {printable(str(folder))})"
    return did_you_mean(Path(data).name, sorted(p.name for p in folder.iterdir()))
