"""Images inside shards that lie elsewhere: read from this machine's copy of the shard, or asked for one by one.

    what fits the cache, or is read shard by shard    whole shards    one request for each
    a few images of each, or any beside any other     images          one request for each, every time

A copy that is there is used in either case, so which of the two it is changes no image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from convmix.data.remote.shard_cache import LIMIT, held, limit, opened
from convmix.data.remote.stores import Shard, read
from convmix.errors import DataError

SPARSE = 0.5  # share of the images below which fetching them one by one moves clearly fewer bytes than whole shards do


@dataclass(frozen=True)
class RemoteShards:
    """The shards of a data set. Travels to worker processes and other machines, each of which has a cache of its own."""

    shards: Mapping[str, Shard]  # by name: the URL without credentials
    images: Mapping[str, int]  # in each
    by_image: bool = False  # what is not in the cache is asked for alone

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A part of a shard. DataError where its store does not give it."""
        shard = self.shards[name]
        file = held(shard)
        if file is None and self.by_image:
            return b"".join(read(shard, offset, offset + size))
        with file or opened(shard) as copy:
            copy.seek(offset)
            return copy.read(size)

    def in_order(self, names: Sequence[str], wanted: int) -> "RemoteShards":
        """How to read `wanted` images of these shards from the first to the last: a few out of more than the cache holds by themselves."""
        sparse = wanted < SPARSE * sum(self.images[name] for name in names)
        too_large = sum(self.shards[name].size for name in names) > limit()
        return replace(self, by_image=sparse and too_large and all(self.shards[name].ranges for name in names))

    def mixing(self, names: Iterable[str], at_once: int) -> tuple["RemoteShards", list[str]]:
        """How to read where images of `at_once` of these shards stand beside each other, and a line for people where that is slow.

        Raises DataError where the cache does not hold so many and a server gives whole files alone.
        """
        largest = sorted((self.shards[name] for name in names), key=lambda shard: shard.size, reverse=True)
        needed = sum(shard.size for shard in largest[:at_once])
        if needed <= limit():
            return self, []
        said = f"{at_once} shards are read at once: {needed / 1e9:.3g} GB, where {LIMIT} allows {limit() / 1e9:.3g} GB"
        advice = "allow more, or mix fewer (--shuffle-shards 1, shards of some 100 MB)"
        for shard in largest:
            if not shard.ranges:
                raise DataError(f"{shard.name}: {said}, and its server gives no parts of files; {advice}")
        return replace(self, by_image=True), [f"{said}, so every image is a request of its own; {advice}"]
