"""Decoded images kept in memory, so that a data set that fits is decoded once instead of once an epoch.

    first epoch: source -> read -> image, kept as H,W,C uint8        later ones: H,W,C uint8 -> image

The memory is shared with the worker processes forked from this one: whoever decodes an image first puts it where all of them find it, so
nothing is decoded before it is needed and nothing is kept twice.
"""

import mmap
from collections.abc import Mapping

import numpy as np
import PIL.Image

from convmix.data.decode import MODES, Image
from convmix.hardware import free_memory

SHARE = 0.25  # of the free memory: the training itself has yet to take its part
FILLED = 0.9
# Changing a kept image takes about 50 us and 20 ns a pixel, starting a process and hearing of its batches 50 to 100 ms of both: in pixels
_IMAGE_PX, _PROCESS_PX = 2_500, 5_000_000


class ImageCache:
    """The images of one split, 8 bits a channel, each in a place of its own.

    `sizes` are n,2 (height, width); an image that turns out to have another size, or to be no 8-bit picture, is not kept.
    """

    def __init__(self, sizes: np.ndarray, *, channels: int) -> None:
        stops = np.cumsum(sizes.prod(1, dtype=np.int64) * channels)
        self._mode = MODES[channels]
        self._sizes = sizes.tolist()
        self._bounds = [0, *stops.tolist()]
        self._pixels = np.frombuffer(mmap.mmap(-1, self._bounds[-1]), np.uint8)  # pages are taken when they are first written
        self._kept = np.frombuffer(mmap.mmap(-1, len(sizes)), np.bool_)
        self._readable = np.zeros(len(sizes), np.bool_)
        self.is_small = self._bounds[-1] // channels + _IMAGE_PX * len(sizes) <= _PROCESS_PX  # worked through before a process has started

    @property
    def is_filled(self) -> bool:
        """Whether nearly every image is kept: an epoch may have left out an incomplete batch, and a broken one is never kept."""
        return bool(self._kept.mean() >= FILLED)

    def open(self) -> None:
        """To be called before worker processes are forked: from now on what was kept so far is found.

        What workers keep while they run is not looked at until they have ended, so no processor can see an image half written.
        """
        self._readable = self._kept.copy()

    def find(self, index: int) -> PIL.Image.Image | None:
        """The image, or None where it was not kept before the last `open`."""
        if not self._readable[index]:
            return None
        height, width = self._sizes[index]
        pixels = self._pixels[self._bounds[index] : self._bounds[index + 1]]
        return PIL.Image.frombuffer(self._mode, (width, height), pixels, "raw", self._mode, 0, 1)

    def keep(self, index: int, image: Image) -> None:
        """Put the image where every process finds it after the next `open`."""
        if isinstance(image, PIL.Image.Image) and image.mode == self._mode and [image.height, image.width] == self._sizes[index]:
            self._pixels[self._bounds[index] : self._bounds[index + 1]] = np.asarray(image).reshape(-1)
            self._kept[index] = True


def memory_limit(cache_gib: float, *, processes: int) -> int:
    """Bytes that each of `processes` may keep: together `cache_gib`, and no more than a quarter of what is free."""
    return int(min(cache_gib * 2**30, SHARE * free_memory()) / processes)


def allot(sizes: Mapping[str, np.ndarray], *, channels: int, limit: int) -> dict[str, ImageCache]:
    """A memory for every split that fits as a whole into what those before it leave of `limit` bytes.

    sizes: split -> n,2 (height, width). Other channel counts than 1, 3 and 4 are arrays of floats and get none.
    """
    memories: dict[str, ImageCache] = {}
    for split, of_split in sizes.items():
        needed = int(of_split.prod(1, dtype=np.int64).sum()) * channels
        if channels in MODES and 0 < needed <= limit:
            memories[split] = ImageCache(of_split, channels=channels)
            limit -= needed
    return memories
