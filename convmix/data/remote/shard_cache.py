"""Shards from elsewhere as files on this machine's disk: each fetched once for all its processes, the least recently used ones given up.

    CACHE/shards/NAME.tar    a whole shard      NAME.part  one that is on its way, already as long as it will be, so that its room is taken
                 NAME.lock   held by whoever fetches it, or gives it up

CONVMIX_SHARD_CACHE_GB bounds what all shards take together, those on their way included; CONVMIX_CACHE names another disk.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock, FileLock, Timeout

from convmix.cache import cache_dir
from convmix.data.remote.stores import Shard, read
from convmix.errors import ConfigError, DataError

LIMIT = "CONVMIX_SHARD_CACHE_GB"
LIMIT_GB = 20.0
_FRESH_S = 1.0  # a shard used within this time is not marked as used again: that would be a write for every image
_POLL_S = 0.05


def limit() -> int:
    """Bytes that all shards of this machine may take together. ConfigError for a value that is no size."""
    told = os.environ.get(LIMIT, "")
    try:
        size = float(told) if told else LIMIT_GB
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ConfigError(f"{LIMIT}: {told} is not a size, expected gigabytes such as {LIMIT_GB:g}")
    return int(size * 1e9)


def place(shard: Shard, suffix: str) -> Path:
    """Where something about this version of a shard is kept. The password that it is fetched with makes no difference."""
    key = f"{shard.name}\n{shard.size}\n{shard.version}"
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return cache_dir("shards") / f"{digest}{suffix}"


def held(shard: Shard) -> BinaryIO | None:
    """The shard for reading, None where it is not here. Open, it can be read to its end even if it is given up meanwhile."""
    path = place(shard, ".tar")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if time.time() - os.fstat(file.fileno()).st_mtime > _FRESH_S:
        with contextlib.suppress(FileNotFoundError):  # given up in this moment
            os.utime(path)
    return file


def opened(shard: Shard) -> BinaryIO:
    """The shard for reading, fetched where it is not here; a process that asks for one that another fetches waits for it.

    Raises DataError where it cannot be had or stored.
    """
    try:
        file = held(shard)
        if file is None:
            with FileLock(place(shard, ".lock")):
                file = held(shard) or _fetched(shard)
        return file
    except OSError as error:
        folder = os.environ.get("CONVMIX_CACHE") or "the user's cache folder"
        raise DataError(
            f"{shard.name}: cannot be stored in {folder} ({error.strerror or error}); CONVMIX_CACHE names another place, {LIMIT} the room"
        ) from None


def _fetched(shard: Shard) -> BinaryIO:
    path, part = place(shard, ".tar"), place(shard, ".part")
    part.unlink(missing_ok=True)  # of a process that was killed: whoever holds the lock is alone
    while not _took_room(part, shard.size):
        time.sleep(_POLL_S)  # all of it is on its way to other processes
    try:
        with part.open("r+b") as file:
            for piece in read(shard, 0, shard.size):
                file.write(piece)
        with _room(part.parent):
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path.open("rb")  # the lock is still held, so nobody has given it up


def _took_room(part: Path, size: int) -> bool:
    """Give up the least recently used shards until there is room for another one, and take it."""
    bound = limit()
    if size > bound:
        raise ConfigError(f"{LIMIT}: a shard of {size / 1e9:.2f} GB does not fit into {bound / 1e9:g} GB")
    with _room(part.parent):
        kept = sorted(_used(part.parent))
        total = sum(of_one for _, of_one, _ in kept)
        for _, of_one, path in kept:
            if total + size <= bound:
                break
            total -= of_one if _gave_up(path) else 0
        if total + size > bound:
            return False
        with part.open("wb") as file:
            file.truncate(size)
        return True


def _room(folder: Path) -> BaseFileLock:
    """Held while files appear or change their names, so that what is counted is all there is."""
    return FileLock(folder / "room.lock")


def _used(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each shard was used last, its bytes, and where it is."""
    for path in [*folder.glob("*.tar"), *folder.glob("*.part")]:
        with contextlib.suppress(FileNotFoundError):  # a download that failed takes its own away
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def _gave_up(path: Path) -> bool:
    """Whether a shard, or what a killed process left of one, could be removed; not while it is being fetched."""
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            path.unlink(missing_ok=True)
    except (Timeout, PermissionError):  # Windows refuses what another process reads
        return False
    return True
