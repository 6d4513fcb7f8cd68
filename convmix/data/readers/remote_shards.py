"""A data set of shards behind a URL, as `shards.py` reads the same shards from a disk.

URL -> the shards that there are -> each fetched once, its index kept in the cache for ever -> `Found`, and how its images are read
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import PurePosixPath

from convmix.config import Data
from convmix.data.formats import Found, by_split, class_names_among
from convmix.data.readers.shards import Index, assemble, index_shard
from convmix.data.remote import shard_cache, stores
from convmix.data.remote.shard_images import RemoteShards
from convmix.data.remote.stores import Shard
from convmix.data.remote.urls import WEB, scheme
from convmix.errors import ConfigError

Progress = Callable[[int, int], None]  # shards done, shards in all
FETCHED_AT_ONCE = 4
_FORM = 1  # of the indexes that are kept; another one where `index_shard` finds other things


def read_remote_shards(url: str, data: Data, *, progress: Progress | None = None) -> tuple[Found, RemoteShards]:
    """The shards that a URL means, with credentials where it needs any.

    Raises DataError for shards that are missing, refused or hold no images, ConfigError for one that is larger than the cache may be.
    """
    shards = stores.find(url)
    largest = max(shards, key=lambda shard: shard.size)
    if largest.size > shard_cache.limit():
        has, needs = (f"{size / 1e9:.3g} GB" for size in (shard_cache.limit(), largest.size))
        raise ConfigError(f"{shard_cache.LIMIT}: {has} is less than one shard has: {largest.name} needs {needs}")
    dropped: list[tuple[str, str]] = []
    at = {shard.path: shard for shard in shards}
    splits = by_split(at, dropped)
    used = [path for paths in splits.values() for path in paths]
    indexes: dict[PurePosixPath, Index] = {}
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        for path, index in zip(used, pool.map(lambda path: _index(at[path], data.label_column), used), strict=True):
            indexes[path] = index
            if progress:
                progress(len(indexes), len(used))
    listed = {split: [(at[path].name, indexes[path]) for path in paths] for split, paths in splits.items()}
    first = at[used[0]]
    found = assemble(listed, dropped, where=first.name.rpartition("/")[0], root="", names=lambda: _class_names(first))
    counts = {at[path].name: len(indexes[path].samples) for path in used}
    return found, RemoteShards({at[path].name: at[path] for path in used}, counts)


def _index(shard: Shard, label_column: str | None) -> Index:
    """From the cache, or made of the shard itself."""
    kept = shard_cache.place(shard, ".json")
    asked = {"form": _FORM, "label_column": label_column}
    try:
        known = json.loads(kept.read_bytes())
        if {key: known[key] for key in asked} == asked:
            return Index(
                [(name, offset, size, label) for name, offset, size, label in known["samples"]], [(n, r) for n, r in known["dropped"]]
            )
    except (OSError, ValueError, KeyError):
        pass  # none yet, or one that was cut off
    with shard_cache.opened(shard) as raw:
        index = index_shard(raw, shard.path.name, label_column=label_column)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({**asked, "shard": shard.name, **asdict(index)}))
    partial.replace(kept)
    return index


def _class_names(beside: Shard) -> dict[str, str] | None:
    """Readable class names from a file beside a shard."""
    head, mark, query = beside.url.partition("?") if scheme(beside.url) in WEB else (beside.url, "", "")
    folder = head.rpartition("/")[0]
    return class_names_among(lambda name: stores.small_file(f"{folder}/{name}{mark}{query}"), beside.name.rpartition("/")[0])
