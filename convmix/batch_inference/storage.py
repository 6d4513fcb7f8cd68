"""Local paths and object stores behind the same few verbs; through fsspec where a place is a URL.

A file appears whole or not at all: local ones are written beside their place and moved, object stores show an object when it is complete.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from convmix.atomic import replacing
from convmix.data.remote.urls import file_system, is_url, scheme
from convmix.errors import ConfigError
from convmix.system.locking import NAME as LOCK

_ATOMIC_PUT = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "tos", "memory")
)  # no half-written object is ever seen


def plain(place: str | Path) -> str:
    """A place as text; file:// URLs are local paths."""
    return os.fspath(place).removeprefix("file://")


@contextmanager
def opened(place: str, folder: str = "") -> Iterator[BinaryIO]:
    """A file or an object for reading; relative paths are below `folder`."""
    if not is_url(place):
        with Path(folder, place).open("rb") as local:
            yield local
        return
    fs, path = file_system(place)
    with fs.open(path, "rb") as remote:
        yield cast(BinaryIO, remote)


class Folder:
    """A folder that results are written to."""

    def __init__(self, place: str | Path) -> None:
        self.place = plain(place)
        self._remote: tuple[Any, str] | None = None
        if is_url(self.place):
            self._remote = file_system(self.place)
        else:
            self.place = str(Path(self.place).absolute())  # the workers stand elsewhere

    def __str__(self) -> str:
        return self.place

    def names(self) -> set[str]:
        """Of everything in it; empty where there is no such folder. ConfigError where it is a file."""
        try:
            if self._remote:
                fs, root = self._remote
                return {entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(root, detail=False)} - {"", root.rpartition("/")[2]}
            return {path.name for path in Path(self.place).iterdir()} - {LOCK}
        except FileNotFoundError:
            return set()
        except NotADirectoryError:
            raise ConfigError(f"output: {self.place} is a file, expected a folder") from None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes start to end of a file, all of them where nothing is said."""
        if self._remote:
            fs, root = self._remote
            return cast(bytes, fs.cat_file(f"{root}/{name}", start=start, end=end))
        with self.open(name) as file:
            file.seek(start or 0)
            return file.read(-1 if end is None else end - (start or 0))

    def open(self, name: str) -> BinaryIO:
        if self._remote:
            fs, root = self._remote
            return cast(BinaryIO, fs.open(f"{root}/{name}", "rb"))
        return Path(self.place, name).open("rb")

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._remote:
                fs, root = self._remote
                fs.rm_file(f"{root}/{name}")
            else:
                Path(self.place, name).unlink()

    @contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write that takes the place of `name` at the end; after an error what stood there before stays."""
        if not self._remote:
            with replacing(Path(self.place, name)) as file:
                yield file
            return
        with tempfile.NamedTemporaryFile(prefix="convmix-") as spool:
            yield cast(BinaryIO, spool)
            spool.flush()
            self._upload(spool.name, name)

    def _upload(self, file: str, name: str) -> None:
        assert self._remote
        fs, root = self._remote
        fs.makedirs(root, exist_ok=True)
        if scheme(self.place) in _ATOMIC_PUT:
            fs.put_file(file, f"{root}/{name}")
            return
        beside = f"{root}/.{name}.{uuid.uuid4().hex}"
        fs.put_file(file, beside)
        fs.mv(beside, f"{root}/{name}")
