"""Files written whole or not at all: beside their place, flushed to disk, then moved there."""

import csv
import errno
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convmix.errors import WriteError

if TYPE_CHECKING:
    from torch import Tensor

_CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR, errno.EEXIST,
    errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Replace `path` by a table, atomically."""
    write_bytes(path, b"".join(map(csv_line, [header, *rows])))


def csv_line(values: Sequence[object]) -> bytes:
    """One line of a table, UTF-8; whatever a file name may hold is read back as it was."""
    line = io.StringIO()
    quote_all = any(isinstance(v, str) and "\r" in v for v in values)  # Python 3.11 leaves a bare \r unquoted
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerow(values)
    return line.getvalue().encode("utf-8", "surrogateescape")


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
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.")
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp's 0600 would hide a shared run from colleagues
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise WriteError(f"cannot write {path}: {error.strerror}; what was there before is kept") from None
        raise
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
