"""The same seed gives the same batches, whoever loads them, from whichever step and on however many ranks."""

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.multiprocessing

from convmix.config import Augment
from convmix.data import loaders
from convmix.data.augment.training_transform import training_transform
from convmix.data.loaders import Batch, default_workers, eval_batches, train_batches
from convmix.data.order import epoch_order, steps_per_epoch
from convmix.data.preprocessing import Preprocess
from convmix.errors import DataError
from tests.patience import PATIENCE_S

PREPROCESS = Preprocess(size=(16, 16), fit="crop", interpolation="bicubic", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
AUGMENT = Augment(scale=(0.5, 1.0), hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", color_jitter=0.2, erasing=0.5)


@dataclass(frozen=True)
class Pictures:
    """A split in memory; the images at `broken` cannot be read."""

    labels: np.ndarray
    broken: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def annotation(self, i: int, /) -> int:
        return int(self.labels[i])

    def source(self, i: int) -> bytes:
        if i in self.broken:
            return b"broken"
        stream = io.BytesIO()
        PIL.Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)).save(stream, "PNG")
        return stream.getvalue()


def pictures(n: int, broken: tuple[int, ...] = ()) -> Pictures:
    return Pictures(np.arange(n) % 3, broken)


def epoch(examples: Pictures, **changes: object) -> list[Batch]:
    options = {"batch_size": 5, "seed": 1, "epoch": 0, "workers": 0} | changes
    return list(train_batches(examples, training_transform(PREPROCESS, AUGMENT), **options))  # type: ignore[arg-type]


def assert_same(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.images, y.images)
        assert torch.equal(x.targets, y.targets)
        assert torch.equal(x.indices, y.indices)
        assert x.bad == y.bad


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    examples = pictures(23, broken=(4, 9))
    assert_same(epoch(examples), epoch(examples, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_a_step_gives_the_rest_of_the_epoch(workers: int) -> None:
    examples = pictures(23)
    assert_same(epoch(examples)[2:], epoch(examples, start_step=2, workers=workers))
    assert epoch(examples, start_step=4) == []


def test_skipped_steps_are_not_decoded() -> None:
    class Counting(Pictures):
        def source(self, i: int) -> bytes:
            reads.append(i)
            return super().source(i)

    reads: list[int] = []
    list(train_batches(Counting(np.zeros(20, int)), PREPROCESS, batch_size=5, seed=0, epoch=0, start_step=3, workers=0))
    assert len(reads) == 5


def test_epochs_and_seeds_differ_in_order_and_in_augmentation() -> None:
    examples = pictures(20)
    runs = [epoch(examples), epoch(examples, epoch=1), epoch(examples, seed=2)]
    orders = [torch.cat([b.indices for b in r]).tolist() for r in runs]
    assert len({tuple(o) for o in orders}) == 3
    assert all(sorted(o) == list(range(20)) for o in orders)
    example_0 = [torch.cat([b.images for b in r])[o.index(0)] for r, o in zip(runs, orders, strict=True)]
    assert not torch.equal(example_0[0], example_0[1]) and not torch.equal(example_0[0], example_0[2])


def test_an_examples_augmentation_does_not_depend_on_its_neighbours() -> None:
    by_five, by_three = epoch(pictures(20)), epoch(pictures(20), batch_size=3)
    a, b = ({int(i): x for r in run for i, x in zip(r.indices, r.images, strict=True)} for run in (by_five, by_three))
    assert len(b) == 18 and all(torch.equal(a[i], b[i]) for i in b)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_partition_every_global_batch(world: int) -> None:
    examples = pictures(23)
    whole = epoch(examples)
    ranks = [epoch(examples, rank=r, world=world) for r in range(world)]
    joined = [
        Batch(*(torch.cat([getattr(p, f) for p in parts]) for f in ("images", "targets", "indices")), bad=())
        for parts in zip(*ranks, strict=True)
    ]
    assert_same(whole, joined)


def test_the_incomplete_last_batch_is_left_out_unless_it_is_the_only_one() -> None:
    assert [len(b) for b in epoch(pictures(23))] == [5] * 4
    assert [len(b) for b in epoch(pictures(3))] == [3]
    assert (steps_per_epoch(23, 5), steps_per_epoch(25, 5), steps_per_epoch(3, 5)) == (4, 5, 1)


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    labels = np.repeat([0, 1, 2, 5], [70, 20, 9, 1])
    order = epoch_order(labels, seed=0, epoch=0, balanced=True)
    assert len(order) == 100
    assert Counter(labels[order].tolist()) == {0: 25, 1: 25, 2: 25, 5: 25}
    assert max(Counter(order[labels[order] == 0].tolist()).values()) == 1  # a common class shows each image once
    assert set(Counter(order[labels[order] == 1].tolist()).values()) <= {1, 2}  # a rare one repeats after all were shown
    assert not np.array_equal(order, epoch_order(labels, seed=0, epoch=1, balanced=True))
    assert np.bincount(labels[order[:50]])[[0, 1, 2, 5]].min() > 4  # shuffled
    uneven = epoch_order(np.array([0] * 8 + [1, 2]), seed=0, epoch=0, balanced=True)
    assert sorted(Counter(np.array([0] * 8 + [1, 2])[uneven].tolist()).values()) == [3, 3, 4]


def test_repeats_of_a_balanced_epoch_are_augmented_differently() -> None:
    examples = Pictures(np.array([0] * 11 + [1]))
    repeats = [x for b in epoch(examples, batch_size=12, balanced=True) for i, x in zip(b.indices, b.images, strict=True) if i == 11]
    assert len(repeats) == 6
    assert len({x.sum().item() for x in repeats}) == 6
    assert_same(epoch(examples, batch_size=4, balanced=True), epoch(examples, batch_size=4, balanced=True, workers=1))


def test_broken_images_are_left_out_and_listed() -> None:
    batches = epoch(pictures(20, broken=(0, 7)))
    assert sorted(b for batch in batches for b in batch.bad) == [(i, "not an image of a known format") for i in (0, 7)]
    assert sum(map(len, batches)) == 18
    assert all(torch.equal(b.targets, b.indices % 3) for b in batches)


@pytest.mark.parametrize("erasing", [0.0, 1.0])
def test_arrays_and_pictures_stand_in_one_batch(erasing: float) -> None:
    class Mixed(Pictures):
        def source(self, i: int) -> bytes:
            if i % 2:
                return super().source(i)
            stream = io.BytesIO()
            np.save(stream, np.random.default_rng(i).random((16, 16, 3), np.float32))
            return stream.getvalue()

    examples = Mixed(np.zeros(6, int))
    [batch] = eval_batches(examples, PREPROCESS, batch_size=6, workers=0)
    assert torch.equal(batch.images, torch.stack([PREPROCESS.load(examples.source(i)) for i in range(6)]))
    [batch] = train_batches(examples, training_transform(PREPROCESS, Augment(erasing=erasing)), batch_size=6, seed=0, epoch=0, workers=0)
    same = [torch.equal(x, PREPROCESS.load(examples.source(int(i)))) for x, i in zip(batch.images, batch.indices, strict=True)]
    assert same == [not erasing] * 6


def test_a_batch_of_broken_images_is_empty() -> None:
    (batch,) = epoch(pictures(5, broken=tuple(range(5))))
    assert batch.images.shape == (0, 3, 16, 16)
    assert (len(batch), len(batch.targets), len(batch.bad)) == (0, 0, 5)
    assert batch.targets.dtype == batch.indices.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 1])
def test_the_callers_randomness_is_untouched(workers: int) -> None:
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    epoch(pictures(10), workers=workers)
    list(eval_batches(pictures(10), PREPROCESS, batch_size=4, workers=workers))
    assert random.getstate() == expected[0]
    assert np.random.get_state()[1].tolist() == expected[1]
    assert torch.equal(torch.get_rng_state(), expected[2])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_example_once_in_order(world: int) -> None:
    seen = []
    for rank in range(world):
        batches = list(eval_batches(pictures(11, broken=(6,)), PREPROCESS, batch_size=2, rank=rank, world=world, workers=0))
        indices = torch.cat([b.indices for b in batches]).tolist()
        assert indices == [i for i in range(rank, 11, world) if i != 6]
        seen += indices + [i for b in batches for i, _ in b.bad]
    assert sorted(seen) == list(range(11))
    first = next(iter(eval_batches(pictures(11), PREPROCESS, batch_size=2, workers=0)))
    assert torch.equal(first.images[1], PREPROCESS.load(pictures(11).source(1)))


def test_nothing_to_train_on_is_an_error_and_nothing_to_evaluate_is_not() -> None:
    with pytest.raises(DataError, match="no training images"):
        epoch(pictures(0))
    assert list(eval_batches(pictures(0), PREPROCESS, batch_size=2, workers=2)) == []


def test_default_workers_leave_a_core_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, world, expected in ((1, 1, 0), (2, 1, 1), (2, 2, 0), (4, 1, 3), (64, 1, 8), (16, 4, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert default_workers(world) == expected


@pytest.mark.slow
def test_workers_can_be_started_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems, where they are sent what they need."""
    monkeypatch.setattr(loaders, "_START", "spawn")
    assert_same(epoch(pictures(11)), epoch(pictures(11), workers=1))


@pytest.mark.slow
def test_a_signal_to_the_whole_group_reaches_the_training_process_alone(tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(
        textwrap.dedent(f"""
            import signal, sys
            sys.path.insert(0, {str(Path(__file__).parents[2])!r})
            from tests.data.test_loaders import PREPROCESS, pictures, train_batches
            came = []
            def note(number, frame):
                came.append(number)
                print(signal.Signals(number).name, flush=True)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, note)
            batches = train_batches(pictures(400000), PREPROCESS, batch_size=4, seed=0, epoch=0, workers=2)
            next(batches)
            print("ready", flush=True)
            steps_after = 0
            for batch in batches:
                steps_after += len(came) == 2
                if steps_after == 30:
                    break
            print("saved", flush=True)
        """)
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, number)
        assert process.stdout.readline() == f"{number.name}\n"
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "saved\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_are_forked_in_a_process_that_was_not(method: str) -> None:
    """Spawned ones import torch anew every epoch and do not share the memory of decoded images."""

    class Here(Pictures):
        """Cannot be sent to a spawned process."""

    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)  # what such a process finds
    try:
        batches = list(eval_batches(Here(np.arange(6) % 3), PREPROCESS, batch_size=3, workers=1))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert [len(b) for b in batches] == [3, 3]
