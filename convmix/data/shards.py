"""WebDataset shards: plain .tar files in which one sample's files share a key."""

import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmix.config import Data
from convmix.data.formats import IMAGE_SUFFIXES, LABEL_COLUMNS, Found, Table, by_split, first_line, image_rows, printable, read_class_names
from convmix.errors import DataError


def read_shards(files: Sequence[Path], data: Data) -> Found:
    """Plain .tar shards: KEY.jpg (or another image suffix) with KEY.cls, KEY.txt or KEY.json {"label": ...} of the same key.

    Read with tarfile and kept as (shard, offset, size), so nothing is copied. datasets' webdataset builder fails where one shard
    mixes suffixes, decodes .npy while it reads, and copies every image into its cache.
    """
    import datasets

    dropped: list[tuple[str, str]] = []
    splits = by_split(files, dropped)
    tables = {}
    for split, shards in splits.items():
        samples = [sample for shard in shards for sample in _shard_samples(shard, data, dropped)]
        if not samples:
            continue
        shard_paths, names, offsets, sizes, labels = (list(column) for column in zip(*samples, strict=True))
        where = datasets.Dataset.from_dict({"offset": offsets, "size": sizes})
        images = datasets.concatenate_datasets([image_rows(shard_paths), where], axis=1)
        tables[split] = Table(images, labels, names)
    folder = next(iter(splits.values()))[0].absolute().parent
    if not tables:
        raise DataError(f"{folder}: the shards hold no images{': ' + ': '.join(dropped[0]) if dropped else ''}")
    return Found(tables, root=str(folder), names=read_class_names(folder), dropped=dropped)


def _shard_samples(shard: Path, data: Data, dropped: list[tuple[str, str]]) -> list[tuple[str, str, int, int, str | None]]:
    """(shard path, name, offset, size, label) of every image of one shard."""
    members: dict[str, dict[str, tuple[str, int, int]]] = {}  # key -> suffix -> name, offset, size
    length = shard.stat().st_size
    try:
        with shard.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            for m in archive:
                folder, _, base = m.name.rpartition("/")
                if m.isfile() and not base.startswith(".") and m.offset_data + m.size <= length:
                    key, _, suffix = base.partition(".")
                    members.setdefault(f"{folder}/{key}", {})[suffix.lower()] = (m.name, m.offset_data, m.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        count = f"the {len(members)} samples before that are used" if members else "nothing read"
        dropped.append((shard.name, f"cannot be read to its end ({first_line(error)}); {count}"))
    samples = []
    with shard.open("rb") as raw:
        for key, files in members.items():
            image = image_suffix(files)
            if image is None:
                dropped.append((f"{shard.name}/{printable(key.lstrip('/'))}", "a sample without an image"))
                continue
            texts: dict[str, str] = {s: _read_at(raw, *files[s][1:]) for s in ("cls", "txt", "json") if s in files}
            name, offset, size = files[image]
            samples.append((str(shard.absolute()), f"{shard.name}/{printable(name)}", offset, size, _shard_label(texts, data)))
    return samples


def image_suffix(suffixes: Iterable[str]) -> str | None:
    """Which of a sample's files is the image, by the suffixes in small letters: jpg rather than seg.png; None where none is."""
    images = (s for s in suffixes if "." + s.rpartition(".")[2] in IMAGE_SUFFIXES)
    return min(images, key=lambda s: (s.count("."), s), default=None)


def _read_at(raw: Any, offset: int, size: int) -> str:
    raw.seek(offset)
    return str(raw.read(size).decode("utf-8", "replace")).strip()


def _shard_label(texts: Mapping[str, str], data: Data) -> str | None:
    plain = texts.get("cls") or texts.get("txt")
    if plain and not data.label_column:
        return plain
    try:
        record = json.loads(texts.get("json", "null"))
    except ValueError:
        return None
    keys = (data.label_column,) if data.label_column else LABEL_COLUMNS
    value = next((record[k] for k in keys if k in record), None) if isinstance(record, dict) else None
    return None if value is None or isinstance(value, (dict, list)) else str(value)
