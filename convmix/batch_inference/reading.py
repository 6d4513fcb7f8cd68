"""A block -> (name, encoded image) of each of its images, in order; one that cannot be had is there with the reason.

What a network or a disk does wrong for the moment is raised, not written down as a broken image: the block is tried again.
"""

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import singledispatch
from pathlib import Path
from typing import IO, Any, Self

from convmix.batch_inference.blocks import Block, Images, RowBlock, ShardBlock
from convmix.batch_inference.storage import opened, plain
from convmix.data.decode import BadImage, read_file
from convmix.data.formats import printable
from convmix.data.readers.shards import image_suffix
from convmix.data.remote.urls import file_system, is_url
from convmix.errors import first_line

Source = tuple[str, bytes | BadImage]
_AT_ONCE = 32  # files that are asked for at once; rows that are read at once


@singledispatch
def sources(block: Block, folder: str) -> Iterator[Source]:
    """folder: where relative paths start."""
    raise TypeError(f"no images are read from a {type(block).__name__}")


@sources.register
def _(block: Images, folder: str) -> Iterator[Source]:
    names = [file.name for file in block.files]
    with ThreadPoolExecutor(_AT_ONCE if any(map(is_url, names)) else 1) as pool:  # requests wait for each other's answers
        for begin in range(0, len(names), _AT_ONCE):
            some = names[begin : begin + _AT_ONCE]
            yield from zip(some, pool.map(lambda name: _read(name, folder), some), strict=True)


def _read(name: str, folder: str) -> bytes | BadImage:
    if is_url(name) and is_url(plain(name)):
        fs, path = file_system(name)
        try:
            return bytes(fs.cat_file(path))
        except FileNotFoundError:
            return BadImage("no such file")
    try:
        return read_file(Path(folder, plain(name)))
    except BadImage as problem:
        return problem


@sources.register
def _(block: RowBlock, folder: str) -> Iterator[Source]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    [file] = block.files
    done = 0
    with opened(file.name, folder) as raw, pq.ParquetFile(raw) as table:
        columns = [block.image] if block.name is None else [block.name, block.image]
        try:
            for batch in table.iter_batches(batch_size=_AT_ONCE, row_groups=range(*block.groups), columns=columns):
                cells = batch.column(block.image).to_pylist()
                names = batch.column(block.name).to_pylist() if block.name else [None] * len(cells)
                for name, cell in zip(names, cells, strict=True):
                    yield _row_name(name, file.name, block.first + done), _cell(cell)
                    done += 1
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk or the network; Arrow's own complaints about bytes have no number
            reason = BadImage(f"the table cannot be read from here on ({first_line(error)})")
            yield from ((f"{file.name}[{i}]", reason) for i in range(block.first + done, block.first + block.count))


def _row_name(name: Any, file: str, row: int) -> str:
    if name is None:
        return f"{file}[{row}]"
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _cell(cell: Any) -> bytes | BadImage:
    encoded = cell.get("bytes") if isinstance(cell, dict) else cell
    return BadImage("no image in this row") if encoded is None else encoded


@sources.register
def _(block: ShardBlock, folder: str) -> Iterator[Source]:
    """One image of each sample, read from the front to the back. A shard that breaks off has a row of its own that says so."""
    [file] = block.files
    with opened(file.name, folder) as raw:
        sample: dict[str, Source] = {}  # suffix -> the sample's images so far
        key = None
        try:
            with tarfile.open(fileobj=raw, mode="r|", tarinfo=_Header) as archive:
                while member := archive.next():
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
                    where, _, base = member.name.rpartition("/")
                    if not member.isreg() or base.startswith("."):
                        continue
                    stem, _, suffix = base.partition(".")
                    if (where, stem) != key:
                        yield from _image_of(sample)
                        key, sample = (where, stem), {}
                    if image_suffix((suffix.lower(),)):
                        sample[suffix.lower()] = (f"{file.name}/{printable(member.name)}", _member(archive.extractfile(member), member))
        except (tarfile.TarError, EOFError) as error:
            yield from _image_of(sample)
            yield file.name, BadImage(f"the shard cannot be read to its end ({first_line(error)})")
            return
        yield from _image_of(sample)


class _Header(tarfile.TarInfo):
    """Only the mark at the end of an archive ends it: tarfile takes a damaged header, or one that is cut off, for the end too."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from None


def _image_of(sample: dict[str, Source]) -> Iterator[Source]:
    suffix = image_suffix(sample)
    if suffix is not None:
        yield sample[suffix]


def _member(content: IO[bytes] | None, member: tarfile.TarInfo) -> bytes | BadImage:
    assert content is not None  # of a regular file
    try:
        encoded = content.read()
    except (tarfile.TarError, EOFError):
        return BadImage("truncated")
    return encoded if len(encoded) == member.size else BadImage("truncated")
