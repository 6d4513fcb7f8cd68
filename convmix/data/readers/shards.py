"""WebDataset shards: plain .tar files in which one sample's files share a key."""

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from convmix.config import Data
from convmix.data.formats import IMAGE_SUFFIXES, LABEL_COLUMNS, Found, Table, by_split, image_rows, printable, read_class_names
from convmix.errors import DataError, first_line


@dataclass(frozen=True)
class Index:
    """What one shard holds."""

    samples: list[tuple[str, int, int, str | None]] = field(default_factory=list)  # name, offset, size, label as written
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name, reason


def read_shards(files: Sequence[Path], data: Data) -> Found:
    """Plain .tar shards: KEY.jpg (or another image suffix) with KEY.cls, KEY.txt or KEY.json {"label": ...} of the same key.

    Read with tarfile and kept as (shard, offset, size), so nothing is copied. datasets' webdataset builder fails where one shard
    mixes suffixes, decodes .npy while it reads, and copies every image into its cache.
    """
    dropped: list[tuple[str, str]] = []
    splits = by_split(files, dropped)
    folder = next(iter(splits.values()))[0].absolute().parent
    listed = {split: [(str(shard.absolute()), _index_file(shard, data)) for shard in shards] for split, shards in splits.items()}
    return assemble(listed, dropped, where=str(folder), root=str(folder), names=lambda: read_class_names(folder))


def assemble(
    listed: Mapping[str, Sequence[tuple[str, Index]]],
    dropped: list[tuple[str, str]],
    *,
    where: str,
    root: str,
    names: Callable[[], dict[str, str] | None],
) -> Found:
    """Shards and their indexes, per split and in order, as a data set. DataError where they hold no images."""
    import datasets

    tables = {}
    for split, shards in listed.items():
        samples = [(shard, *sample) for shard, index in shards for sample in index.samples]
        dropped += [entry for _, index in shards for entry in index.dropped]
        if not samples:
            continue
        shard_paths, image_names, offsets, sizes, labels = (list(column) for column in zip(*samples, strict=True))
        parts = datasets.Dataset.from_dict({"offset": offsets, "size": sizes})
        tables[split] = Table(datasets.concatenate_datasets([image_rows(shard_paths), parts], axis=1), labels, image_names)
    if not tables:
        raise DataError(f"{where}: the shards hold no images{': ' + ': '.join(dropped[0]) if dropped else ''}")
    return Found(tables, root=root, names=names(), dropped=dropped)


def _index_file(shard: Path, data: Data) -> Index:
    with shard.open("rb") as raw:
        return index_shard(raw, shard.name, label_column=data.label_column)


def index_shard(raw: BinaryIO, shard: str, *, label_column: str | None) -> Index:
    """Where every image of an open shard lies. One that breaks off gives the samples before that."""
    members: dict[str, dict[str, tuple[str, int, int]]] = {}  # key -> suffix -> name, offset, size
    dropped = []
    length = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    try:
        with tarfile.open(fileobj=raw, mode="r:") as archive:
            for m in archive:
                folder, _, base = m.name.rpartition("/")
                if m.isfile() and not base.startswith(".") and m.offset_data + m.size <= length:
                    key, _, suffix = base.partition(".")
                    members.setdefault(f"{folder}/{key}", {})[suffix.lower()] = (m.name, m.offset_data, m.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        count = f"the {len(members)} samples before that are used" if members else "nothing read"
        dropped.append((shard, f"cannot be read to its end ({first_line(error)}); {count}"))
    samples = []
    for key, files in members.items():
        image = image_suffix(files)
        if image is None:
            dropped.append((f"{shard}/{printable(key.lstrip('/'))}", "a sample without an image"))
            continue
        texts: dict[str, str] = {s: _read_at(raw, *files[s][1:]) for s in ("cls", "txt", "json") if s in files}
        name, offset, size = files[image]
        samples.append((f"{shard}/{printable(name)}", offset, size, _shard_label(texts, label_column)))
    return Index(samples, dropped)


def image_suffix(suffixes: Iterable[str]) -> str | None:
    """Which of a sample's files is the image, by the suffixes in small letters: jpg rather than seg.png; None where none is."""
    images = (s for s in suffixes if "." + s.rpartition(".")[2] in IMAGE_SUFFIXES)
    return min(images, key=lambda s: (s.count("."), s), default=None)


def _read_at(raw: Any, offset: int, size: int) -> str:
    raw.seek(offset)
    return str(raw.read(size).decode("utf-8", "replace")).strip()


def _shard_label(texts: Mapping[str, str], label_column: str | None) -> str | None:
    plain = texts.get("cls") or texts.get("txt")
    if plain and not label_column:
        return plain
    try:
        record = json.loads(texts.get("json", "null"))
    except ValueError:
        return None
    keys = (label_column,) if label_column else LABEL_COLUMNS
    value = next((record[k] for k in keys if k in record), None) if isinstance(record, dict) else None
    return None if value is None or isinstance(value, (dict, list)) else str(value)
