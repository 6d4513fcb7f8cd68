"""Which files a user means: files, folders, quoted patterns, and a list on standard input.

["cat.jpg", "new/", "old/*.png", "-"] -> ["cat.jpg", "new/a.jpg", "new/b.jpg", "old/c.png", ...]
"""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convmix.data.formats import IMAGE_SUFFIXES, printable
from convmix.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Files:
    """File names in the shape that the loaders read; nothing is known of them."""

    names: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.names), np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def source(self, i: int, /) -> str:
        return self.names[i]

    def annotation(self, i: int, /) -> None:
        return None


def find_files(arguments: Sequence[str | Path], *, recursive: bool = True) -> list[str]:
    """The files that `arguments` mean, in their order, repetitions kept.

    A folder gives its files with an image's suffix, hidden ones left out, sorted; a file that is named is always taken. '-' reads
    names from standard input, one a line, or separated by NUL where there is one. An argument that matches nothing stays in the
    list, so that every argument has a row that says what became of it. Raises DataError where no argument matches anything.
    """
    if isinstance(arguments, (str, Path)):
        arguments = [arguments]
    found: list[str] = []
    exists = False
    for argument in (os.fspath(a) for a in arguments):
        names = _names_on_stdin() if argument == "-" else [argument]
        for name in names:
            matches = list(_matches(name, recursive=recursive, is_pattern=argument != "-"))
            exists |= bool(matches)
            found += matches or [name]
    if not exists:
        raise DataError(_nothing(found))
    return found


def _matches(name: str, *, recursive: bool, is_pattern: bool) -> Iterator[str]:
    if Path(name).is_dir():
        yield from _images_below(name, recursive=recursive)
    elif os.path.lexists(name):
        yield name
    elif is_pattern and glob.has_magic(name):
        for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
            yield from _matches(match, recursive=recursive, is_pattern=False)


def _images_below(folder: str, *, recursive: bool) -> Iterator[str]:
    visited: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in visited:  # a link to a folder above would go round for ever
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        images = (f for f in files if not f.startswith(".") and Path(f).suffix.lower() in IMAGE_SUFFIXES)
        yield from (str(Path(where, f)) for f in sorted(images))


def _names_on_stdin() -> list[str]:
    data = sys.stdin.buffer.read()
    names: Iterable[bytes] = data.split(b"\0") if b"\0" in data else (line.rstrip(b"\r") for line in data.split(b"\n"))
    return [os.fsdecode(name) for name in names if name.strip()]


def _nothing(names: Sequence[str]) -> str:
    if not names:
        return "no files named; give files, folders, patterns, or - for a list on standard input"
    name, others = names[0], f" (nor {len(names) - 1} others)" if len(names) > 1 else ""
    if Path(name).is_dir():
        return f"{printable(name)} has no images{others}; their names end in {', '.join(sorted(IMAGE_SUFFIXES))}"
    return f"{printable(name)} matches no file{others}{_near(name)}"


def _near(name: str) -> str:
    """The nearest name in the same folder, or the first folder of the path that does not exist."""
    path = Path(name)
    for step in (path, *path.parents):
        if step.parent.is_dir():
            hint = did_you_mean(step.name, sorted(p.name for p in step.parent.iterdir()))
            return hint or ("" if step == path else f"; there is no folder {printable(str(step))}")
    return ""
