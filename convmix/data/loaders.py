"""Examples -> batches, the same ones whatever the number of worker processes, from any step of any epoch.

    order of the epoch = f(seed, epoch), see order.py -> global batches -> this rank's slice
    worker:  read or found in memory -> changed, seeded per example -> pixels of a batch, 8 bits wherever possible
    trainer: -> on the device -> normalised -> Batch

An example's augmentation is a pure function of (seed, epoch, index, how often the epoch has shown it before).
"""

import hashlib
import itertools
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from convmix.data.decode import BadImage, Image, fits_in_memory
from convmix.data.delivery import Parcel, Pulse, delivered
from convmix.data.image_cache import ImageCache
from convmix.data.order import batch_bounds, epoch_order, sharded_order
from convmix.data.preprocessing import Loads
from convmix.data.targets import Annotation, Targets, as_batch
from convmix.errors import DataError
from convmix.hardware import give_back_freed_memory
from convmix.system.processors import processors

FEW = 64  # images to evaluate that are read sooner than the pages are copied that a forked process shares: all memory of a training
Key = tuple[int, int]  # example index, how often it came before in this epoch
# Linux's default before Python 3.14; said here because a process that was itself spawned would spawn: seconds of imports per epoch, and
# no shared memory of decoded images. Elsewhere the system's default.
_START = "fork" if sys.platform == "linux" else None


class Annotated(Protocol):
    """What the loaders ask of a split (`sources.Examples`)."""

    @property
    def labels(self) -> np.ndarray: ...  # n int64: the classes; of dense tasks what `balanced` balances

    def __len__(self) -> int: ...

    def source(self, i: int, /) -> bytes | str | Path: ...

    def annotation(self, i: int, /) -> Annotation | None: ...


class Sharded(Annotated, Protocol):
    """What they ask of one to train on."""

    @property
    def shards(self) -> np.ndarray: ...  # n integers: what is read together


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; without images where all of them were broken."""

    images: Tensor  # n,C,H,W float32, normalised, on the device that was asked for
    targets: Targets  # n int64 classes, n,k int8 labels, n,H,W uint8 class maps, or one object per image
    indices: Tensor  # n int64, positions in the split
    bad: tuple[tuple[int, str], ...]  # (index, reason) of the examples left out
    planned: int = 0  # images of the global batch, all ranks together, broken ones included; of training batches
    unlabelled: Tensor | None = None  # m,C,H,W: images without labels that are shown beside them, where there are some

    def __len__(self) -> int:
        return len(self.images)


def default_workers(world: int = 1) -> int:
    """Processes that decode: the rank's cores less the one that trains, at most 8."""
    return max(min(processors() // world - 1, 8), 0)


def _enough_workers(asked: int | None, world: int, memory: ImageCache | None, device: torch.device | str) -> int:
    """As many as asked for; on a CPU, whose cores they take, none for few small images that are kept or could not be in other processes."""
    if asked is not None:
        return asked
    few = memory is not None and memory.is_small and (memory.is_filled or _START != "fork")
    return 0 if few and torch.device(device).type == "cpu" else default_workers(world)


def train_batches(
    examples: Sharded,
    transform: Loads,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    balanced: bool = False,
    drop_last: bool = True,
    shuffle_shards: int = 0,
    memory: ImageCache | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """One epoch of shuffled batches, from `start_step` on; earlier steps cost nothing.

    `batch_size` counts the images of all ranks. The last incomplete batch is left out unless it is the only one; without `drop_last` every
    image is shown, in batches of nearly equal size.
    `balanced` draws every class equally often, repeating the images of rare classes; the number of steps stays.
    `shuffle_shards`: as `order.sharded_order` mixes so many shards at a time; 0 is all of them.
    `memory`, of these examples and this transform alone, spares the next epochs the decoding; it changes no batch. With `workers` None
    and on a CPU a small set that it holds is read without processes, which would take longer to start than to do their work.
    The images come normalised, on `device`.
    Raises DataError for an empty split.
    """
    if not len(examples):
        raise DataError("no training images")
    bounds = batch_bounds(len(examples), batch_size, drop_last=drop_last)
    if shuffle_shards:
        order = sharded_order(examples.shards, bounds, batch_size=batch_size, window=shuffle_shards, seed=seed, epoch=epoch)
    else:
        order = epoch_order(examples.labels, seed=seed, epoch=epoch, balanced=balanced)
    keys = list(zip(order.tolist(), _times_seen_before(order).tolist(), strict=True))
    whole = [keys[a:b] for a, b in itertools.pairwise(bounds)][start_step:]
    task = _Task(examples, transform, seed, epoch, memory)
    parts = _iterate(task, [_slice(batch, rank, world) for batch in whole], _enough_workers(workers, world, memory, device), device)
    return (replace(part, planned=len(batch)) for part, batch in zip(parts, whole, strict=True))


def eval_batches(
    examples: Annotated,
    preprocess: Loads,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    memory: ImageCache | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Every example once, in order: rank r takes examples r, r + world, ... in batches of `batch_size` of its own.

    `memory` and `device` as in `train_batches`. workers: None starts processes for more than `FEW` images.
    """
    keys = [(i, 0) for i in range(rank, len(examples), world)]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    task = _Task(examples, preprocess, 0, 0, memory)
    usual = 0 if len(keys) <= FEW else _enough_workers(None, world, memory, device)
    return _iterate(task, batches, usual if workers is None else workers, device)


def keyed_batches(
    examples: Annotated,
    transform: Loads,
    batches: Sequence[list[Key]],
    *,
    seed: int,
    workers: int | None = None,
    device: torch.device | str = "cpu",
) -> Generator[Batch, None, None]:
    """Batches of these examples, each with how often it came before, which with the seed decides how it is changed."""
    task = _Task(examples, transform, seed, -1, None)  # -1: no epoch of those in `train_batches`
    return _iterate(task, list(batches), default_workers() if workers is None else workers, device)


def _times_seen_before(order: np.ndarray) -> np.ndarray:
    by_index = np.argsort(order, kind="stable")
    position = np.arange(len(order))
    is_first = np.r_[True, np.diff(order[by_index]) != 0]
    seen = np.empty(len(order), np.int64)
    seen[by_index] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return seen


def _slice(batch: list[Key], rank: int, world: int) -> list[Key]:
    return batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]


@dataclass(frozen=True)
class _Loaded:
    """What a worker makes of the keys of one batch: as small as it can be, since it goes from process to process."""

    pixels: Tensor  # n,H,W,C uint8, to be normalised; or n,C,H,W float32, which is
    targets: Targets
    good: list[int]
    bad: list[tuple[int, str]]

    def pin_memory(self) -> "_Loaded":
        """For torch's loader on machines with a GPU."""
        return replace(self, pixels=self.pixels.pin_memory())


class _Task(Dataset[Parcel | _Loaded | DataError]):
    """Keys of one batch -> its pixels; travels to the worker processes."""

    def __init__(self, examples: Annotated, transform: Loads, seed: int, epoch: int, memory: ImageCache | None) -> None:
        self.examples, self.transform, self.seed, self.epoch, self.memory = examples, transform, seed, epoch, memory
        self.pulse = Pulse(0)

    def __getstate__(self) -> dict[str, Any]:
        """Only a forked worker shares the memory; one that is sent the task decodes every image."""
        return {**self.__dict__, "memory": None}

    def __getitems__(self, keys: list[Key]) -> Parcel | _Loaded | DataError:
        """An error of the user's is returned: torch would put the worker's traceback into its message."""
        try:
            loaded = self._loaded(keys)
        except DataError as error:
            return error
        return loaded if get_worker_info() is None else Parcel(loaded)

    def _loaded(self, keys: list[Key]) -> _Loaded:
        images: list[Image | Tensor] = []
        targets: list[Any] = []
        good, bad = [], []
        with _own_randomness():
            for index, repeat in keys:
                try:
                    kept = None if self.memory is None else self.memory.find(index)
                    source = b"" if kept is not None else self.examples.source(index)  # what fetches it may draw from chance itself
                    _seed_everything(self.seed, self.epoch, index, repeat)
                    with fits_in_memory():
                        original = self._read(index, source) if kept is None else kept
                        image, target = self.transform.change(original, self.examples.annotation(index))
                    images.append(image)
                    targets.append(target)
                    good.append(index)
                except BadImage as e:
                    bad.append((index, e.reason))
                self.pulse.beat()
        return _Loaded(stack(images, self.transform), as_batch(targets), good, bad)

    def _read(self, index: int, source: bytes | str | Path) -> Image:
        image = self.transform.read(source)
        if self.memory is not None:
            self.memory.keep(index, image)
        return image


def stack(images: Sequence[Image | Tensor], loads: Loads) -> Tensor:
    """What `change` gave for n images as one: n,H,W,C uint8, to be normalised, where all are pictures; else n,C,H,W float32, normalised."""
    channels, height, width = loads.shape
    if not images:
        return torch.empty(0, channels, height, width)
    pictures = [x for x in images if isinstance(x, PIL.Image.Image)]
    if len(pictures) == len(images):
        x_nhwc = np.empty((len(images), height, width, channels), np.uint8)
        for pixels_hwc, picture in zip(x_nhwc, pictures, strict=True):
            pixels_hwc[:] = np.asarray(picture).reshape(height, width, channels)
        return torch.from_numpy(x_nhwc)
    return torch.stack([x if isinstance(x, Tensor) else loads.normalise(x) for x in images])


def to_inputs(pixels: Tensor, loads: Loads, device: torch.device | str) -> Tensor:
    """What `stack` gives as the model's input n,C,H,W float32, on the device."""
    pixels = pixels.to(device, non_blocking=True)
    return loads.normalise_batch(pixels) if pixels.dtype == torch.uint8 else pixels


def _seed_everything(seed: int, epoch: int, index: int, repeat: int) -> None:
    digest = hashlib.blake2b(f"{seed},{epoch},{index},{repeat}".encode(), digest_size=20).digest()
    random.seed(int.from_bytes(digest[:8]))
    np.random.seed(int.from_bytes(digest[8:12]))
    torch.default_generator.manual_seed(int.from_bytes(digest[12:20]) >> 1)  # torch.manual_seed would touch GPUs too


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Gives the caller's generators back as they were: without workers this runs in the training process."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _iterate(task: _Task, batches: list[list[Key]], workers: int, device: torch.device | str) -> Generator[Batch, None, None]:
    for loaded in _load(task, batches, workers):
        if isinstance(loaded, DataError):
            raise loaded
        images = to_inputs(loaded.pixels, task.transform, device)
        yield Batch(images, loaded.targets, torch.tensor(loaded.good, dtype=torch.int64), tuple(loaded.bad))


def _load(task: _Task, batches: list[list[Key]], workers: int) -> Iterator[_Loaded | DataError]:
    if task.memory is not None:
        task.memory.open()
    workers = min(workers, len(batches))
    if workers and _START == "fork":
        give_back_freed_memory()
    task.pulse = Pulse(workers if _START == "fork" else 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)  # more workers than cores, as asked
        loader = DataLoader(
            task,
            batch_sampler=batches,
            num_workers=workers,
            multiprocessing_context=_START if workers else None,
            collate_fn=_as_it_is,
            worker_init_fn=_be_a_quiet_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else torch draws the workers' base seed from the caller's generator
        )
    return delivered(loader, task.pulse)


def _as_it_is(batch: Any) -> Any:
    return batch


def _be_a_quiet_worker(worker: int) -> None:
    """Ctrl-C and a termination of the process group are the training process's business: it saves, then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if hasattr(signal, "sigwaitinfo"):  # a handler would not learn who sent the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _end_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
