"""The input divided into numbered blocks, each of which becomes one partition; the same input is always divided in the same way.

Images   so many single files                           a partition has as many rows
RowBlock     neighbouring row groups of one parquet file
ShardBlock    one .tar
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from convmix.batch_inference.listing import SHARD_SUFFIXES, TABLE_SUFFIXES, Entry
from convmix.batch_inference.storage import opened
from convmix.errors import DataError, did_you_mean, first_line

_NAME_COLUMNS = ("name", "id", "key", "__key__", "filename", "file_name", "path", "url")


@dataclass(frozen=True)
class Images:
    files: tuple[Entry, ...]

    def __str__(self) -> str:
        return self.files[0].name if len(self.files) == 1 else f"{self.files[0].name} ... {self.files[-1].name}"


@dataclass(frozen=True)
class RowBlock:
    files: tuple[Entry, ...]  # one
    image: str  # the column with the encoded bytes
    name: str | None  # the column with the name; None: FILE[row]
    groups: tuple[int, int]  # from, to (excluded)
    first: int  # position of the first row in the file
    count: int

    def __str__(self) -> str:
        return f"{self.files[0].name}[{self.first}:{self.first + self.count}]"


@dataclass(frozen=True)
class ShardBlock:
    files: tuple[Entry, ...]  # one

    def __str__(self) -> str:
        return self.files[0].name


Block = Images | RowBlock | ShardBlock
_KINDS: dict[str, type[Images | RowBlock | ShardBlock]] = {"images": Images, "rows": RowBlock, "shard": ShardBlock}


def divide(entries: Iterable[Entry], *, part_size: int, image_column: str | None, name_column: str | None) -> Iterator[Block]:
    """Blocks of at most `part_size` rows, but no row group and no shard is cut. DataError for a table without such columns."""
    single: list[Entry] = []
    for entry in entries:
        if entry.suffix in SHARD_SUFFIXES:
            yield ShardBlock((entry,))
        elif entry.suffix in TABLE_SUFFIXES:
            yield from _divide_table(entry, part_size, image_column, name_column)
        else:
            single.append(entry)
            if len(single) == part_size:
                yield Images(tuple(single))
                single = []
    if single:
        yield Images(tuple(single))


def _divide_table(entry: Entry, part_size: int, image_column: str | None, name_column: str | None) -> Iterator[RowBlock]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(entry.name) as file, pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{entry.name}: cannot be read as parquet: {first_line(error)}") from None
    image, name = _image_column(entry.name, schema, image_column), _name_column(entry.name, schema, name_column)
    begin = first = count = 0
    for i, size in enumerate(sizes):
        if count and count + size > part_size:
            yield RowBlock((entry,), image, name, (begin, i), first, count)
            begin, first, count = i, first + count, 0
        count += size
    if count:
        yield RowBlock((entry,), image, name, (begin, len(sizes)), first, count)


def _image_column(where: str, schema: "object", asked: str | None) -> str:
    import pyarrow as pa

    assert isinstance(schema, pa.Schema)

    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):  # as `datasets` stores images
            return any(kind.field(i).name == "bytes" and holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if asked is not None:
        if asked not in schema.names:
            raise DataError(f"{where}: has no column {asked!r} for image_column{did_you_mean(asked, schema.names)}; columns: {listed}")
        if not holds_bytes(schema.field(asked).type):
            raise DataError(f"{where}: column {asked!r} is {schema.field(asked).type}; expected encoded images, or a struct with bytes")
        return asked
    candidates = [field.name for field in schema if holds_bytes(field.type)]
    if len(candidates) != 1:
        many = f"{len(candidates)} columns" if candidates else "no column"
        raise DataError(f"{where}: {many} may hold images (binary, or a struct with bytes); name one with image_column; columns: {listed}")
    return str(candidates[0])


def _name_column(where: str, schema: "object", asked: str | None) -> str | None:
    import pyarrow as pa

    assert isinstance(schema, pa.Schema)
    if asked is not None and asked not in schema.names:
        raise DataError(
            f"{where}: has no column {asked!r} for name_column{did_you_mean(asked, schema.names)}; columns: {', '.join(schema.names)}"
        )
    return asked or next((name for name in _NAME_COLUMNS if name in schema.names), None)


def to_line(block: Block) -> bytes:
    """One line of JSON."""
    kind = next(name for name, type_ in _KINDS.items() if type_ is type(block))
    files = [[f.name, f.size, f.version] for f in block.files]
    return (json.dumps({"kind": kind, **asdict(block), "files": files}) + "\n").encode()


def from_line(line: bytes) -> Block:
    """The inverse of `to_line`."""
    value = json.loads(line)
    kind = _KINDS[value.pop("kind")]
    value["files"] = tuple(Entry(*f) for f in value["files"])
    if "groups" in value:
        value["groups"] = tuple(value["groups"])
    return kind(**value)


def difference(before: Block | None, now: Block | None) -> str:
    """What became of the input between two divisions, said of the first block that differs."""
    if before is None or now is None:
        there = before or now
        assert there is not None
        return f"{there.files[0].name} is {'new' if before is None else 'gone'}"
    old, new = {f.name: f for f in before.files}, {f.name: f for f in now.files}
    gone, added = [n for n in old if n not in new], [n for n in new if n not in old]
    if gone and (not added or gone[0] < added[0]):  # both are sorted; the one that comes first moved all others
        return f"{gone[0]} is gone"
    if added:
        return f"{added[0]} is new"
    changed = next((n for n in old if old[n] != new[n]), None)
    return f"{changed} was written again" if changed else f"{now.files[0].name} is divided in another way"
