"""A partition: one block's rows as parquet, and in its footer what is to know about it without reading them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from convmix.batch_inference.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

_FOOTER = b"convmix"
_FLUSH_ROWS, _FLUSH_BYTES = 10_000, 64 * 2**20  # a row group is written when it has as many


@dataclass
class Tally:
    """What a partition holds and who made it."""

    job: str  # `Manifest.key`
    rows: int = 0
    bad: int = 0  # rows with an error
    labels: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    worker: str = ""

    def to_json(self) -> str:
        return json.dumps({**vars(self), "labels": dict(self.labels)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        value = json.loads(text)
        return cls(**{**value, "labels": Counter(value["labels"])})


def part_name(block: int) -> str:
    return f"part-{block:05d}.parquet"


def write_part(folder: Folder, name: str, schema: "pa.Schema", batches: Iterable[list[dict[str, Any]]], tally: Tally) -> None:
    """Write rows as they come; `tally` is complete when the last of `batches` has been taken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with folder.replacing(name) as file, pq.ParquetWriter(file, schema) as writer:
        waiting: list[pa.RecordBatch] = []
        for rows in batches:
            waiting.append(pa.RecordBatch.from_pylist(rows, schema=schema))
            if sum(b.num_rows for b in waiting) >= _FLUSH_ROWS or sum(b.nbytes for b in waiting) >= _FLUSH_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting = []
        if waiting or not tally.rows:
            writer.write_table(pa.Table.from_batches(waiting, schema))
        writer.add_key_value_metadata({_FOOTER.decode(): tally.to_json()})


def read_tally(folder: Folder, name: str) -> Tally | None:
    """What the footer says; None where the file is no partition that can be read to its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with folder.open(name) as file, pq.ParquetFile(file) as table:
            return Tally.from_json((table.metadata.metadata or {})[_FOOTER])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
