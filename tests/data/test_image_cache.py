"""Kept images are the decoded ones, bit for bit, shared by all workers and decoded once, within a limit."""

import io
import os
import pickle
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from convmix.config import Augment
from convmix.data import image_cache, loaders
from convmix.data.augment.training_transform import TrainTransform, training_transform
from convmix.data.decode import MODES, BadImage
from convmix.data.image_cache import ImageCache, allot, memory_limit
from convmix.data.loaders import Batch, _Task, eval_batches, train_batches
from convmix.data.preprocessing import Preprocess

BROKEN = (4, 9)
AUGMENT = Augment(scale=(0.5, 1.0), ratio=(0.75, 4 / 3), hflip=0.5, vflip=0.5, color_jitter=0.2)


@dataclass(frozen=True)
class Pictures:
    """Pictures of many sizes in one mode, some of them broken; each look at one leaves a byte in the file `looks`."""

    looks: Path
    mode: str = "RGB"
    labels: np.ndarray = field(default_factory=lambda: np.arange(23) % 3)

    def __len__(self) -> int:
        return len(self.labels)

    def annotation(self, i: int, /) -> int:
        return int(self.labels[i])

    def source(self, i: int) -> bytes:
        with self.looks.open("ab") as file:
            file.write(b".")
        if i in BROKEN:
            return b"broken"
        stream = io.BytesIO()
        self.picture(i).save(stream, "PNG")
        return stream.getvalue()

    def picture(self, i: int) -> PIL.Image.Image:
        bands = PIL.Image.fromarray(np.random.default_rng(i).integers(0, 255, (*self.sizes[i], 4), np.uint8), "RGBA")
        return bands if self.mode == "RGBA" else bands.convert(self.mode)

    @property
    def sizes(self) -> np.ndarray:
        return np.array([(12 + i % 5, 20 - i % 7) for i in range(len(self))])

    def looked_at(self) -> int:
        """Since the last call."""
        looks = len(self.looks.read_bytes())
        self.looks.write_bytes(b"")
        return looks


def transform(channels: int, augment: Augment = AUGMENT) -> TrainTransform:
    fills = (0.5,) * channels
    preprocess = Preprocess(size=(16, 16), fit="crop", interpolation="bicubic", crop_pct=1.0, mean=fills, std=fills, in_chans=channels)
    return training_transform(preprocess, augment)


def epochs(examples: Pictures, change: TrainTransform, kept: ImageCache | None, *, workers: int) -> list[list[Batch]]:
    """Two whole epochs, one from its third step on, and an evaluation."""
    options = {"batch_size": 5, "seed": 1, "workers": workers, "memory": kept}
    training = [list(train_batches(examples, change, epoch=e, start_step=s, **options)) for e, s in ((0, 0), (1, 0), (2, 2))]  # type: ignore[arg-type]
    balanced = list(train_batches(examples, change, epoch=3, balanced=True, **options))  # type: ignore[arg-type]
    return [*training, balanced]


def assert_same(a: list[list[Batch]], b: list[list[Batch]]) -> None:
    assert [len(x) for x in a] == [len(x) for x in b]
    for x, y in zip(chain(*a), chain(*b), strict=True):
        assert all(torch.equal(getattr(x, name), getattr(y, name)) for name in ("images", "targets", "indices"))
        assert x.bad == y.bad


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels", sorted(MODES))
@pytest.mark.parametrize("erasing", [0.0, 0.5])
def test_kept_images_change_no_batch(tmp_path: Path, workers: int, channels: int, erasing: float) -> None:
    examples = Pictures(tmp_path / "looks", MODES[channels])
    change = transform(channels, Augment(**(vars(AUGMENT) | {"erasing": erasing})))
    assert_same(
        epochs(examples, change, None, workers=0),
        epochs(examples, change, ImageCache(examples.sizes, channels=channels), workers=workers),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once_and_a_broken_one_tried_again(tmp_path: Path, workers: int) -> None:
    examples, change = Pictures(tmp_path / "looks"), transform(3)
    kept = ImageCache(examples.sizes, channels=3)
    options = {"batch_size": 23, "seed": 1, "workers": workers}
    for epoch, looks in enumerate((23, len(BROKEN), len(BROKEN))):
        [batch] = train_batches(examples, change, epoch=epoch, memory=kept, **options)  # type: ignore[arg-type]
        assert examples.looked_at() == looks
        assert sorted(batch.bad) == [(i, "not an image of a known format") for i in BROKEN]
    list(train_batches(examples, change, epoch=0, **options))  # type: ignore[arg-type]
    assert examples.looked_at() == 23


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_keeps_images_at_the_input_size(tmp_path: Path, workers: int) -> None:
    examples, preprocess = Pictures(tmp_path / "looks"), transform(3).preprocess
    kept = ImageCache(np.tile((16, 16), (23, 1)), channels=3)
    first, second = (list(eval_batches(examples, preprocess, batch_size=7, workers=workers, memory=kept)) for _ in range(2))
    assert examples.looked_at() == 23 + len(BROKEN)
    assert_same([first], [second])
    assert_same([first], [list(eval_batches(examples, preprocess, batch_size=7, workers=0))])


def test_nothing_is_decoded_ahead_of_need(tmp_path: Path) -> None:
    examples = Pictures(tmp_path / "looks")
    batches = train_batches(examples, transform(3), batch_size=5, seed=1, epoch=0, workers=0, memory=ImageCache(examples.sizes, channels=3))
    next(batches)
    assert examples.looked_at() == 5


def test_what_is_kept_is_found_after_the_next_opening(tmp_path: Path) -> None:
    examples = Pictures(tmp_path / "looks")
    kept = ImageCache(examples.sizes, channels=3)
    kept.open()
    kept.keep(7, examples.picture(7))
    assert kept.find(7) is None  # another process may still be writing it
    kept.open()
    found = kept.find(7)
    assert found is not None and found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.asarray(examples.picture(7)))
    assert kept.find(6) is None and kept.find(8) is None


def test_an_image_unlike_what_was_announced_is_not_kept(tmp_path: Path) -> None:
    examples = Pictures(tmp_path / "looks")
    kept = ImageCache(examples.sizes, channels=3)
    turned = examples.picture(0).transpose(PIL.Image.Transpose.ROTATE_90)  # as many pixels in other lines
    for other in (examples.picture(1), turned, examples.picture(0).convert("L"), np.zeros((*examples.sizes[0], 3), np.float32)):
        kept.keep(0, other)
    kept.open()
    assert kept.find(0) is None


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_that_are_views_of_the_memory_cannot_be_written_to(tmp_path: Path, channels: int) -> None:
    examples = Pictures(tmp_path / "looks", MODES[channels])
    kept = ImageCache(examples.sizes, channels=channels)
    kept.keep(0, examples.picture(0))
    kept.open()
    for _ in range(2):
        found = kept.find(0)
        assert found is not None and np.array_equal(np.asarray(found), np.asarray(examples.picture(0)))
        found.paste(0, (0, 0, 5, 5))


def test_a_worker_that_is_not_forked_decodes_for_itself(tmp_path: Path) -> None:
    examples = Pictures(tmp_path / "looks")
    kept = ImageCache(examples.sizes, channels=3)
    task = _Task(examples, transform(3), 0, 0, kept)
    sent = pickle.loads(pickle.dumps(task))
    assert task.memory is kept and sent.memory is None
    with pytest.raises(BadImage):
        sent._read(BROKEN[0], examples.source(BROKEN[0]))
    assert torch.equal(sent.__getitems__([(0, 0)]).pixels, task.__getitems__([(0, 0)]).pixels)


def test_a_split_is_kept_whole_or_not_at_all() -> None:
    sizes = {"train": np.array([(10, 10), (20, 5)]), "val": np.array([(10, 10)])}  # 600 and 300 bytes
    assert {limit: list(allot(sizes, channels=3, limit=limit)) for limit in (0, 299, 300, 599, 600, 899, 900)} == {
        0: [], 299: [], 300: ["val"], 599: ["val"], 600: ["train"], 899: ["train"], 900: ["train", "val"],
    }  # fmt: skip
    assert list(allot(sizes, channels=1, limit=300)) == ["train", "val"]
    assert not allot(sizes, channels=12, limit=10**6)  # arrays of floats


def test_the_limit_is_the_setting_or_a_quarter_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "free_memory", lambda: 8 * 2**30)
    assert memory_limit(4.0, processes=1) == memory_limit(2.0, processes=1) == 2 * 2**30
    assert memory_limit(1.0, processes=1) == 2**30
    assert memory_limit(1.0, processes=4) == 2**28
    assert memory_limit(0.0, processes=1) == 0


@dataclass(frozen=True)
class Watched(Pictures):
    """Whole pictures that tell by which processes they were changed."""

    def annotation(self, i: int, /) -> int:
        with self.looks.with_suffix(".pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().annotation(i)

    def source(self, i: int) -> bytes:
        stream = io.BytesIO()
        self.picture(i).save(stream, "PNG")
        return stream.getvalue()

    def changed_here(self) -> set[bool]:
        """Whether by this process, since the last call."""
        file = self.looks.with_suffix(".pids")
        pids = set(map(int, file.read_text().split()))
        file.unlink()
        return {pid == os.getpid() for pid in pids}


def test_few_small_images_that_are_kept_need_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "processors", lambda: 2)
    examples, change = Watched(tmp_path / "looks"), transform(3)
    kept = ImageCache(examples.sizes, channels=3)
    batches = []
    for epoch, here in enumerate((False, True)):
        batches.append(list(train_batches(examples, change, batch_size=7, seed=1, epoch=epoch, memory=kept)))  # two are left out
        assert examples.changed_here() == {here}
        assert kept.is_filled
    assert_same([batches[1]], [list(train_batches(examples, change, batch_size=7, seed=1, epoch=1, workers=2))])
    assert examples.changed_here() == {False}


def test_processes_are_started_where_they_have_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many, large = (ImageCache(np.tile(side, (n, 1)), channels=1) for n, side in ((1500, (8, 8)), (2500, (8, 8)), (20, (700, 700))))
    assert (few.is_small, many.is_small, large.is_small) == (True, False, False)
    few._kept[:], many._kept[:] = True, True
    monkeypatch.setattr(loaders, "processors", lambda: 2)
    usual = loaders.default_workers()
    assert usual == 1
    assert loaders._enough_workers(None, 1, few, "cpu") == 0
    for memory, device in ((many, "cpu"), (few, "cuda"), (None, "cpu")):
        assert loaders._enough_workers(None, 1, memory, device) == usual
    assert loaders._enough_workers(3, 1, few, "cpu") == 3
    few._kept[:200] = False
    assert loaders._enough_workers(None, 1, few, "cpu") == usual
