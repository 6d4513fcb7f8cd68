"""Batches from images on the device: the same for any number of processes, from any step on, and made ahead of the model."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convmix.config import Augment
from convmix.data import device_cache
from convmix.data.augment.device_augment import for_transform
from convmix.data.augment.training_transform import training_transform
from convmix.data.loaders import Batch, train_batches
from convmix.data.preprocessing import Preprocess
from convmix.errors import DataError
from tests.patience import until

PREPARE = Preprocess((24, 24), "crop", "bicubic", 1.0, (0.5,) * 3, (0.25,) * 3)
EVERYTHING = Augment(scale=(0.5, 1.0), ratio=(0.8, 1.25), hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", color_jitter=0.2, erasing=0.5)


class Folder:
    """A split, as the loaders ask for one."""

    def __init__(self, root: Path, broken: int | None = None) -> None:
        self.files = sorted(root.rglob("*.png"))
        self.labels = np.array([int(f.parent.name[-1]) for f in self.files])
        self.shards = np.arange(len(self.files)) // 8
        self.broken = broken

    def __len__(self) -> int:
        return len(self.files)

    def source(self, i: int, /) -> Any:
        return b"no image" if i == self.broken else self.files[i]

    def annotation(self, i: int, /) -> Any:
        return int(self.labels[i])


def kept(examples: Folder, augment: Augment = EVERYTHING) -> device_cache.DeviceCache:
    return device_cache.load(examples, for_transform(training_transform(PREPARE, augment), (24, 24)), workers=0, device=torch.device("cpu"))


def batches(examples: Folder, of: device_cache.DeviceCache, **changed: Any) -> list[Batch]:
    return list(device_cache.resident_batches(of, examples, **{"batch_size": 14, "seed": 3, "epoch": 2, **changed}))


def test_without_changes_they_are_the_loaders_batches(photos: Path) -> None:
    examples = Folder(photos)
    ours = batches(examples, kept(examples, Augment()))
    transform = training_transform(PREPARE, Augment())
    theirs = list(train_batches(examples, transform, batch_size=14, seed=3, epoch=2, workers=0))
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and torch.equal(a.indices, b.indices)
        assert a.planned == b.planned == 14


def test_a_batch_is_a_function_of_seed_epoch_and_step(photos: Path) -> None:
    examples = Folder(photos)
    of = kept(examples)
    whole, again, rest = batches(examples, of), batches(examples, of), batches(examples, of, start_step=2)
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole, again, strict=True))
    assert len(rest) == 2 and all(torch.equal(a.images, b.images) for a, b in zip(whole[2:], rest, strict=True))
    for changed in ({"seed": 4}, {"epoch": 3}):
        assert not torch.equal(batches(examples, of, **changed)[0].images, whole[0].images)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_between_them(photos: Path, world: int) -> None:
    examples = Folder(photos)
    of = kept(examples)
    whole = batches(examples, of)
    parts = [batches(examples, of, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[step].targets for part in parts]), batch.targets)


def test_a_broken_image_is_left_out_and_named(photos: Path) -> None:
    examples = Folder(photos, broken=5)
    found = batches(examples, kept(examples))
    bad = [row for batch in found for row in batch.bad]
    assert all(i == 5 for i, _ in bad) and sum(len(batch) for batch in found) + len(bad) == 56
    with pytest.raises(DataError, match="no training image can be read"):
        nothing = Folder(photos, broken=0)
        nothing.files = nothing.files[:1]
        kept(nothing)


def test_batches_are_made_while_the_model_is_busy() -> None:
    made: list[int] = []

    def batches() -> Iterator[Any]:
        for i in range(4):
            made.append(i)
            yield i

    source = device_cache.ahead(batches(), torch.device("cpu"))
    for i in range(4):
        assert next(source) == i
        until(lambda n=i: len(made) >= min(n + 2, 4))  # type: ignore[misc]  # the next one, which nobody has asked for
    assert next(source, None) is None


def test_errors_reach_the_training_and_the_thread_ends() -> None:
    def broken() -> Iterator[Any]:
        yield 1
        raise DataError("the disk is gone")

    source = device_cache.ahead(broken(), torch.device("cpu"))
    assert next(source) == 1
    with pytest.raises(DataError, match="the disk is gone"):
        next(source)
    endless = device_cache.ahead(iter(int, 1), torch.device("cpu"))
    next(endless)
    endless.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "convmix-augment" for thread in threading.enumerate())
