"""The order of an epoch: every image once, by whole shards for each process, and the same for any number of them."""

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest

from convmix.config import Data, Run, override
from convmix.data.loaders import Annotated, train_batches
from convmix.data.order import batch_bounds, sharded_order, steps_per_epoch
from convmix.data.preprocessing import Preprocess
from convmix.data.sources import open_source
from convmix.errors import ConfigError
from tests.data.test_loaders import pictures
from tests.tiny_run import write_image

SIZES = np.random.default_rng(3).integers(5, 60, 80)  # images in each of 80 unequal shards
SHARDS = np.repeat(np.arange(80), SIZES)


def parts(order: np.ndarray, bounds: list[int], rank: int, world: int) -> list[np.ndarray]:
    whole = [order[a:b] for a, b in itertools.pairwise(bounds)]
    return [batch[len(batch) * rank // world : len(batch) * (rank + 1) // world] for batch in whole]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("window", [1, 4, 1000])
def test_sharded_order_shows_every_image_once(drop_last: bool, window: int) -> None:
    bounds = batch_bounds(len(SHARDS), 64, drop_last=drop_last)
    order = sharded_order(SHARDS, bounds, batch_size=64, window=window, seed=0, epoch=0)
    assert sorted(order) == list(range(len(SHARDS)))
    other = sharded_order(SHARDS, bounds, batch_size=64, window=window, seed=0, epoch=1)
    assert not np.array_equal(order, other)


def test_shards_are_read_in_another_order_every_epoch() -> None:
    """A window of one shard and one lane: shard after shard, each whole, and any of them may come first."""
    shards, bounds = np.repeat(np.arange(6), 10), batch_bounds(60, 10)
    orders = []
    for epoch in range(40):
        read = shards[sharded_order(shards, bounds, batch_size=10, window=1, seed=0, epoch=epoch)].reshape(6, 10)
        assert (read == read[:, :1]).all() and sorted(read[:, 0]) == list(range(6))
        orders.append(tuple(read[:, 0].tolist()))
    assert {order[0] for order in orders} == set(range(6)) and len(set(orders)) > 30


@pytest.mark.parametrize("world", [2, 4, 8])
def test_processes_read_shards_of_their_own(world: int) -> None:
    bounds = batch_bounds(len(SHARDS), 64)
    order = sharded_order(SHARDS, bounds, batch_size=64, window=2, seed=0, epoch=0)
    read = [set(SHARDS[np.concatenate(parts(order, bounds, rank, world))]) for rank in range(world)]
    assert sum(map(len, read)) <= 80 + 8  # a shard is read twice only where one of 8 lanes ends in it
    assert max(map(len, read)) < 80 / world + 8


def test_a_shard_is_read_within_a_short_time() -> None:
    bounds = batch_bounds(len(SHARDS), 64)
    steps = np.repeat(np.arange(len(bounds) - 1), 64)

    def median_stay(order: np.ndarray) -> float:
        shard_of = SHARDS[order[: len(steps)]]
        return float(np.median([np.ptp(steps[shard_of == s]) for s in range(80)]))

    whole = len(bounds) - 1
    assert median_stay(sharded_order(SHARDS, bounds, batch_size=64, window=2, seed=0, epoch=0)) < whole / 3
    assert median_stay(np.random.default_rng(0).permutation(len(SHARDS))) > whole / 2


def test_neighbours_are_mixed() -> None:
    """Shards are often sorted by class, so a batch has to come from many of them."""
    bounds = batch_bounds(len(SHARDS), 64)
    order = sharded_order(SHARDS, bounds, batch_size=64, window=2, seed=0, epoch=0)
    assert min(len(set(SHARDS[order[a:b]])) for a, b in itertools.pairwise(bounds)) >= 8


def test_without_drop_last_batches_are_nearly_equal() -> None:
    bounds = batch_bounds(1000, 96, drop_last=False)
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, 1000)
    assert sizes.max() <= 96
    assert np.ptp(sizes) <= 1
    assert len(sizes) == steps_per_epoch(1000, 96, drop_last=False) == 11
    assert batch_bounds(1000, 96)[-1] == 960
    assert batch_bounds(5, 96) == batch_bounds(5, 96, drop_last=False) == [0, 5]


class InShards:
    """Pictures of `test_loaders` that lie in shards of five."""

    def __init__(self, inner: Annotated) -> None:
        self.inner, self.labels, self.shards = inner, inner.labels, np.arange(len(inner)) // 5
        self.source, self.annotation = inner.source, inner.annotation

    def __len__(self) -> int:
        return len(self.inner)


@pytest.mark.parametrize("shuffle_shards", [0, 2])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_parts_of_all_processes_are_the_batches_of_one(shuffle_shards: int, drop_last: bool) -> None:
    examples = InShards(pictures(103))
    loads = Preprocess(size=(4, 4), fit="stretch", interpolation="nearest", crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)

    def epoch(rank: int, world: int, start_step: int = 0) -> list[tuple[list[int], int]]:
        batches = train_batches(
            examples, loads, batch_size=16, seed=5, epoch=2, rank=rank, world=world, workers=0, drop_last=drop_last,
            shuffle_shards=shuffle_shards, start_step=start_step,
        )  # fmt: skip
        return [(b.indices.tolist(), b.planned) for b in batches]

    alone = epoch(0, 1)
    seen = [i for indices, _ in alone for i in indices]
    assert len(seen) == len(set(seen)) == (96 if drop_last else 103)
    for world in (2, 3):
        together = [
            ([i for indices, _ in step for i in indices], step[0][1]) for step in zip(*(epoch(r, world) for r in range(world)), strict=True)
        ]
        assert together == alone
        assert all(len(indices) == planned for indices, planned in together)
    assert epoch(1, 2, start_step=3) == epoch(1, 2)[3:]


def test_images_of_a_tar_file_are_one_shard(tmp_path: Path) -> None:
    for s, n in enumerate((3, 5)):
        with tarfile.open(tmp_path / f"train-{s}.tar", "w") as archive:
            for i in range(n):
                for name, content in ((f"{i}.png", write_image(tmp_path / "one.png", i).read_bytes()), (f"{i}.cls", b"%d" % (i % 2))):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    examples = open_source(str(tmp_path), Data()).splits["train"]
    assert examples.shards.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert examples.select([7, 0, 4]).shards[0] == examples.select([7, 0, 4]).shards[2] != examples.select([7, 0, 4]).shards[1]


def test_classes_cannot_be_balanced_shard_by_shard() -> None:
    with pytest.raises(ConfigError, match=r"data\.shuffle_shards and data\.balanced exclude each other"):
        override(Run(), {"shuffle_shards": 4, "balanced": True})
