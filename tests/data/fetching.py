"""What a process of its own does that wants a shard; light, so that it starts at once."""

from pathlib import Path

from convmix.data import shard_cache
from convmix.data.stores import Shard


def fetch(shard: Shard, mark: Path) -> None:
    """Make the file `mark`, then fetch."""
    mark.touch()
    shard_cache.opened(shard).close()
