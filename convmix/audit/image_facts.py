"""One pass over a data set that keeps of every image what the examination needs, so that nothing is decoded twice.

Source -> worker processes decode every image -> ImageFacts: sizes, formats, digests and a thumbnail of 256 bytes, about 400 bytes an image
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import PIL.Image

from convmix.config import Data
from convmix.data.decode import BadImage, Image, ValueRange, decode, read_file, read_header, sixteen_bit_span
from convmix.data.examples import Examples, Source
from convmix.data.parallel_map import CRASH, Progress, sweep
from convmix.data.scan import little_used

SIDE = 16  # of a thumbnail, pixels
ORDER = ("train", "val", "test", "all")


@dataclass(frozen=True)
class ImageFacts:
    """Every array has one entry per image: the splits one after the other, in the order train, val, test."""

    parts: tuple[Examples, ...]
    classes: tuple[str, ...]
    part: np.ndarray  # n int8, position in `parts`
    label: np.ndarray  # n int64, position in `names`
    reason: dict[int, str]  # the images that cannot be used
    digest: np.ndarray  # n uint64, of the encoded bytes; 0 where nothing could be read
    pixels: np.ndarray  # n uint64, of the upright picture; 0 for the images in `reason`, and so for all that follows
    height: np.ndarray  # n int32, pixels after EXIF rotation
    width: np.ndarray  # n int32
    format: np.ndarray  # n text, of decode.Header
    mode: np.ndarray  # n text
    orientation: np.ndarray  # n uint8
    contrast: np.ndarray  # n float32, standard deviation of the channel that varies most, on the scale 0..255
    thumbnail: np.ndarray  # n,16,16 uint8: the whole picture, grey, stretched to a square and from black to white
    combinations: tuple[str, ...] = ()  # of labels, where images may have several
    matrix: np.ndarray | None = None  # n,k int8 then: which image has which label, as `Examples.label_matrix`
    value_range: ValueRange | None = None  # of 16-bit images, on which everything here was measured; None: 0 to 65535

    def __len__(self) -> int:
        return len(self.part)

    @property
    def ok(self) -> np.ndarray:
        """n bool: the images that can be used."""
        usable = np.ones(len(self), bool)
        usable[list(self.reason)] = False
        return usable

    def split(self, i: int) -> str:
        return self.parts[self.part[i]].split

    def name(self, i: int) -> str:
        return self.parts[self.part[i]].names[i - self._start(i)]

    def label_name(self, i: int) -> str:
        return self.names[self.label[i]]

    @property
    def names(self) -> tuple[str, ...]:
        """What `label` counts: classes, or combinations of labels."""
        return self.classes if self.matrix is None else self.combinations

    def source(self, i: int) -> bytes | str:
        """The encoded image, or the path of its file."""
        return self.parts[self.part[i]].source(i - self._start(i))

    def _start(self, i: int) -> int:
        return sum(len(examples) for examples in self.parts[: self.part[i]])


@dataclass(frozen=True)
class _Seen:
    """One image as a worker reports it."""

    reason: str
    digest: int = 0
    pixels: int = 0
    height: int = 0
    width: int = 0
    format: str = ""
    mode: str = ""
    orientation: int = 1
    contrast: float = 0.0
    thumbnail: bytes = bytes(SIDE * SIDE)
    span: ValueRange | None = None  # of a 16-bit image


def collect(source: Source, data: Data, *, workers: int | None = None, progress: Progress | None = None) -> ImageFacts:
    """Decode every image of every split once, and again where 16-bit images turn out to use little of their range, which is then theirs.

    workers: processes (None: one per core; 0: this process).
    """
    parts = tuple(sorted(source.splits.values(), key=lambda examples: ORDER.index(examples.split)))
    starts = np.cumsum([0, *map(len, parts)])
    facts = replace(_empty(parts, source.classes, int(starts[-1])), value_range=data.value_range)
    spans: list[ValueRange] = []
    for (part, start, _), seen in sweep(list(parts), partial(_look, data=data), lost=_Seen(CRASH), workers=workers, progress=progress):
        _fill(facts, int(starts[part]) + start, seen)
        spans += [x.span for x in seen if x.span and not part]  # those of the training images
    if data.value_range is None and (value_range := little_used(spans)) is not None:
        return collect(source, replace(data, value_range=value_range), workers=workers, progress=progress)
    return facts


def encoded_digest(encoded: bytes) -> int:
    """64 bits of the blake2b of an encoded image: the number that `scan.digest_of` writes as 16 hex digits."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest())


def _empty(parts: Sequence[Examples], classes: tuple[str, ...], n: int) -> ImageFacts:
    part = np.repeat(np.arange(len(parts), dtype=np.int8), [len(examples) for examples in parts])
    label, combinations, matrix = _labels(parts, classes)
    return ImageFacts(
        tuple(parts), classes, part, label, reason={}, digest=np.zeros(n, np.uint64), pixels=np.zeros(n, np.uint64),
        height=np.zeros(n, np.int32), width=np.zeros(n, np.int32), format=np.zeros(n, "<U9"), mode=np.zeros(n, "<U9"),
        orientation=np.ones(n, np.uint8), contrast=np.zeros(n, np.float32), thumbnail=np.zeros((n, SIDE, SIDE), np.uint8),
        combinations=combinations, matrix=matrix,
    )  # fmt: skip


def _labels(parts: Sequence[Examples], classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Of every image the number of its class; of images with several labels that of their combination, with the combinations' names."""
    matrices = [m for examples in parts if (m := examples.label_matrix) is not None]
    if len(matrices) < len(parts):
        return np.concatenate([examples.labels for examples in parts]), (), None
    matrix = np.concatenate(matrices)
    rows, label = np.unique(matrix, axis=0, return_inverse=True)
    names = tuple("|".join(classes[c] for c in np.flatnonzero(row == 1)) or "no label" for row in rows)
    return label.reshape(-1), names, matrix


def _fill(facts: ImageFacts, start: int, seen: Sequence[_Seen]) -> None:
    for i, x in enumerate(seen, start):
        facts.digest[i] = x.digest
        if x.reason:
            facts.reason[i] = x.reason
            continue
        facts.pixels[i], facts.height[i], facts.width[i], facts.contrast[i] = x.pixels, x.height, x.width, x.contrast
        facts.format[i], facts.mode[i], facts.orientation[i] = x.format, x.mode, x.orientation
        facts.thumbnail[i] = np.frombuffer(x.thumbnail, np.uint8).reshape(SIDE, SIDE)


def _look(examples: Examples, index: int, *, data: Data) -> _Seen:
    digest = 0
    try:
        source = examples.source(index)
        encoded = source if isinstance(source, bytes) else read_file(source)
        digest = encoded_digest(encoded) if encoded else 0
        image = decode(encoded, in_chans=data.in_chans, max_pixels=data.max_pixels, value_range=data.value_range)
        span = None if data.value_range else sixteen_bit_span(encoded)
        head = read_header(encoded)
        pixels = np.asarray(image)
        height, width = pixels.shape[:2]
        content = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
        content.update(np.ascontiguousarray(pixels).data)
        same = int.from_bytes(content.digest())
        return _Seen("", digest, same, height, width, head.format, head.mode, head.orientation, _contrast(image), thumbnail(image), span)
    except BadImage as bad:
        return _Seen(bad.reason, digest)


def _contrast(image: Image) -> float:
    """Standard deviation of the channel that varies most, 0..255."""
    if isinstance(image, np.ndarray):
        return float(255 * image.reshape(-1, image.shape[2]).std(0).max())
    counts = np.asarray(image.histogram(), np.float64).reshape(-1, 256)  # c,256
    levels = np.arange(256.0)
    share = counts / counts.sum(1, keepdims=True)
    return float(np.sqrt(np.maximum(share @ levels**2 - (share @ levels) ** 2, 0)).max())


def thumbnail(image: Image) -> bytes:
    """16,16 uint8. Bicubic, that is low-passed before sampling: the thumbnail of a resized copy differs least so."""
    grey = PIL.Image.fromarray(image.mean(2, dtype=np.float32)) if isinstance(image, np.ndarray) else image.convert("L")
    small = np.asarray(grey.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC), np.float32)
    low, high = float(small.min()), float(small.max())
    return np.rint((small - low) * (255 / max(high - low, 1e-6))).astype(np.uint8).tobytes()
