"""Training images decoded once and kept on the device, changed there a batch at a time, one batch ahead of the model.

first epoch: read by the workers -> store n,H,W,C uint8 on the device;   every step: store[indices] -> DeviceAugment -> Batch
"""

import itertools
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convmix.data.augment.device_augment import DeviceAugment
from convmix.data.loaders import Annotated, Batch, Sharded, eval_batches
from convmix.data.order import batch_bounds, epoch_order, sharded_order
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import as_batch
from convmix.errors import DataError

SHARE = 0.25  # of the device's free memory: model, gradients and activations need the rest
AHEAD = 2  # batches
_NOISE = 0x5EED


@dataclass(frozen=True)
class DeviceCache:
    """The images of one split."""

    pixels: Tensor  # n,H,W,C uint8, on the device
    targets: Tensor  # n int64 classes or n,k int8 labels, there too
    bad: tuple[tuple[int, str], ...]  # (index, reason) of the images that could not be read
    augment: DeviceAugment


def fits(count: int, size: tuple[int, int], channels: int, *, device: torch.device, limit: int) -> bool:
    """Whether so many images may be kept there: within `limit` bytes, and on a GPU within a quarter of what is free."""
    needed = count * size[0] * size[1] * channels
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else limit
    return needed <= min(limit, SHARE * free if device.type == "cuda" else limit)


def load(examples: Annotated, augment: DeviceAugment, *, workers: int | None, device: torch.device) -> DeviceCache:
    """Decode every image once, with the loader's workers. Raises DataError where none can be read."""
    p, (height, width) = augment.transform.preprocess, augment.image
    raw = Preprocess(
        (height, width), "stretch", "nearest", 1.0, (0.0,) * p.in_chans, (1 / 255,) * p.in_chans, p.in_chans, p.max_pixels, p.value_range
    )
    pixels = torch.zeros(len(examples), height, width, p.in_chans, dtype=torch.uint8, device=device)
    bad: list[tuple[int, str]] = []
    for batch in eval_batches(examples, raw, batch_size=1024, workers=workers):  # values 0..255, as floats
        if len(batch):
            pixels[batch.indices.to(device)] = batch.images.round().to(torch.uint8).permute(0, 2, 3, 1).to(device)
        bad += batch.bad
    if len(bad) == len(examples):
        raise DataError(f"no training image can be read: {bad[0][1]}" if bad else "no training images")
    targets = as_batch([examples.annotation(i) for i in range(len(examples))]).to(device)
    assert isinstance(targets, Tensor)  # of whole images
    return DeviceCache(pixels, targets, tuple(bad), augment)


def resident_batches(
    resident: DeviceCache,
    examples: Sharded,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    balanced: bool = False,
    drop_last: bool = True,
    shuffle_shards: int = 0,
) -> Iterator[Batch]:
    """One epoch of shuffled batches, as `loaders.train_batches`: in the same order, cut in the same way, changed on the device."""
    bounds = batch_bounds(len(examples), batch_size, drop_last=drop_last)
    if shuffle_shards:
        order = sharded_order(examples.shards, bounds, batch_size=batch_size, window=shuffle_shards, seed=seed, epoch=epoch)
    else:
        order = epoch_order(examples.labels, seed=seed, epoch=epoch, balanced=balanced)
    reasons = dict(resident.bad)
    steps = list(enumerate(itertools.pairwise(bounds)))[start_step:]

    def make(step: int, start: int, stop: int) -> Batch:
        n = stop - start
        a, b = n * rank // world, n * (rank + 1) // world
        indices = order[start:stop][a:b]
        drawn = resident.augment.draw(n, seed=seed, epoch=epoch, step=step).part(a, b)
        good = np.array([i not in reasons for i in indices.tolist()], bool) if reasons else np.ones(b - a, bool)
        device = resident.pixels.device
        at = torch.from_numpy(indices).to(device)

        def noise(shape: tuple[int, ...]) -> Tensor:
            """The part of the whole batch's, so that the number of processes changes nothing."""
            digest = np.random.SeedSequence([seed, epoch, step, _NOISE]).generate_state(1, np.uint64)[0]
            generator = torch.Generator(device).manual_seed(int(digest >> np.uint64(1)))
            return torch.randn((n, *shape[1:]), generator=generator, device=device)[a:b]

        images, targets = resident.augment(resident.pixels[at], drawn, noise=noise), resident.targets[at]
        if not good.all():
            kept = torch.from_numpy(np.flatnonzero(good)).to(device)
            images, targets = images[kept], targets[kept]
        bad = tuple((int(i), reasons[int(i)]) for i in indices[~good])
        return Batch(images, targets, torch.from_numpy(indices[good]), bad, planned=n)

    return ahead((make(step, a, b) for step, (a, b) in steps), resident.pixels.device)


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same, made by a thread of its own and, on a GPU, beside what the model does there; errors are raised here."""
    ready: queue.Queue[tuple[str, Any, Any]] = queue.Queue(AHEAD)
    stop = threading.Event()
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def put(kind: str, value: Any, event: Any = None) -> None:
        while not stop.is_set():
            try:
                ready.put((kind, value, event), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            with torch.cuda.stream(stream):
                for batch in batches:
                    put("batch", batch, stream.record_event() if stream else None)
                    if stop.is_set():
                        return
            put("end", None)
        except BaseException as error:  # of any kind: the thread that asked for the batch raises it
            put("error", error)

    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # the store is filled there
    thread = threading.Thread(target=work, name="convmix-augment", daemon=True)
    thread.start()
    try:
        while True:
            kind, value, event = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            if event is not None:
                current = torch.cuda.current_stream(device)
                current.wait_event(event)
                for tensor in (value.images, value.targets):
                    tensor.record_stream(current)  # its memory may not be taken again before the model is done with it
            yield value
    finally:
        stop.set()
        thread.join()
