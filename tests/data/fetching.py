"""What a process of its own does that wants a shard; light, so that it starts at once."""

from pathlib import Path

from convmix.data.remote import shard_cache
from convmix.data.remote.stores import Shard


def fetch(shard: Shard, mark: Path) -> None:
    """Make the file `mark`, then fetch."""
    mark.touch()
    shard_cache.opened(shard).close()
