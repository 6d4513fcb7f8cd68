"""Files written whole or not at all: beside their place, flushed to disk, then moved there."""

import csv
import errno
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convmix.errors import WriteError

if TYPE_CHECKING:
    from torch import Tensor

_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_HARMLESS = re.compile(r"[-+]|[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")  # a sign alone, and numbers as labels
_LEFTOVER = ".unfinished"
_LEFTOVER_NAME = re.compile(
    r"\..+\.[a-z0-9_]{8}\.unfinished"
    r"|\.(?:(?:model|last)\.safetensors|(?:config|convmix|record|job)\.json|(?:splits|bad_images|curves)\.csv"
    r"|(?:curves|predictions)\.png|README\.md)\.[a-z0-9_]{8}"  # as they were written once
)
_CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR, errno.EEXIST,
    errno.EISDIR, errno.ENAMETOOLONG, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT,
)  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair, of JSON that somebody changed, as JSON writes it


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], *, raw: bool = False) -> None:
    """Replace `path` by a table, atomically; `raw` as for `csv_line`."""
    write_bytes(path, b"".join(csv_line(row, raw=raw) for row in [header, *rows]))


def csv_line(values: Sequence[object], *, raw: bool = False) -> bytes:
    """One line of a table, UTF-8, for people and their spreadsheets; with `raw`, whatever a file name may hold is read back as it was.

    A name or a label is somebody else's text. A spreadsheet would compute a cell that begins with = + - or @, and a terminal obey its
    control characters: the first gets an apostrophe, the others are written out. Numbers stay.
    """
    if not raw:
        values = [_harmless(value) if isinstance(value, str) else value for value in values]
    line = io.StringIO()
    quote_all = any(isinstance(v, str) and "\r" in v for v in values)  # Python 3.11 leaves a bare \r unquoted
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerow(values)
    return line.getvalue().encode("utf-8", "surrogateescape")


def _harmless(text: str) -> str:
    text = _CONTROL.sub(lambda c: c[0].encode("unicode_escape").decode(), text)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and not _HARMLESS.fullmatch(text) else text


def write_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """Replace `path` by a safetensors file, atomically."""
    from safetensors.torch import save

    write_bytes(path, save(tensors, metadata))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, atomically."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end: written beside it, flushed to disk, then moved.

    Raises WriteError where the disk is full or read-only. After any error what was there before remains.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.", suffix=_LEFTOVER)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        with suppress(OSError):  # some file systems know no rights
            Path(temporary).chmod(0o666 & ~umask)  # mkstemp's 0600 would hide a shared run from colleagues
        Path(temporary).replace(path)
        temporary = None
        _settle(path.parent)
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise WriteError(f"cannot write {path}: {error.strerror}; what was there before is kept") from None
        raise
    finally:
        if temporary:
            with suppress(OSError):  # of the two errors the first is told
                Path(temporary).unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """The new name to disk as well: after a power failure the folder would have the old file."""
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_leftover(name: str) -> bool:
    """Whether a file was being written by `replacing`; of a killed process it stays, as large as what it was to become."""
    return _LEFTOVER_NAME.fullmatch(name) is not None


def remove_leftovers(folder: Path, *, older_than_s: float) -> None:
    """Take away what killed processes left half written in a folder; younger ones may be somebody's who is still writing."""
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            with suppress(OSError):
                if is_leftover(entry.name) and time.time() - entry.lstat().st_mtime >= older_than_s:
                    entry.unlink()
