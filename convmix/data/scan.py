"""One pass over every example before training: what is broken, how large the images are, what their mean colour is, who is a copy of whom.

Source -> scan (worker processes decode every image) -> Scan -> clean(source, scan): the source without broken images and without copies
of training images in the splits made here.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as PilImage
from torch import Tensor

from convmix.config import Data, Size
from convmix.data.decode import BadImage, Image, ValueRange, decode, sixteen_bit_span
from convmix.data.dense import fit_to
from convmix.data.examples import Examples, Source
from convmix.data.facts import DataFacts
from convmix.data.parallel_map import CRASH, Progress, sweep
from convmix.data.splits import was_made
from convmix.data.targets import Annotation, Objects
from convmix.errors import DataError


@dataclass(frozen=True)
class SplitScan:
    """What the scan saw of one split; every array has one entry per example, in its order."""

    ok: np.ndarray  # n bool
    reason: tuple[str, ...]  # "" where ok
    digest: np.ndarray  # n text: 16 hex digits of the blake2b of the encoded bytes, "" where nothing could be read
    height: np.ndarray  # n int64, pixels after EXIF rotation, 0 where not ok
    width: np.ndarray  # n int64
    label: np.ndarray  # n int64
    copy: np.ndarray  # n bool: an image of a split made here that is also a training image, or of test and also in val

    @property
    def kept(self) -> np.ndarray:
        """n bool: what `clean` leaves."""
        kept: np.ndarray = self.ok & ~self.copy
        return kept

    @property
    def sizes(self) -> np.ndarray:
        """k,2 int64: height and width of every image that `clean` leaves, in pixels."""
        return np.stack([self.height, self.width], 1)[self.kept]


@dataclass(frozen=True)
class Scan:
    splits: dict[str, SplitScan]
    mean: tuple[float, ...]  # per channel over the training images, of pixels in 0..1, every image weighing the same
    std: tuple[float, ...]
    fingerprint: str  # 16 hex digits over the content and the labels of every readable image, whatever the order, names and splits
    facts: DataFacts
    bad: tuple[tuple[str, str, str], ...]  # name, split, reason; split "" for what was never an example
    notes: tuple[str, ...]  # one line each, for the user
    value_range: ValueRange | None = None  # of 16-bit images: data.value_range, else what the training images use, where that is little


@dataclass(frozen=True)
class _Seen:
    """One example as a worker reports it."""

    digest: str
    reason: str
    height: int = 0
    width: int = 0
    mean: tuple[float, ...] = ()
    square: tuple[float, ...] = ()  # mean of the squares
    known: str = ""  # digest of its objects or of its class map; "" for a class
    span: ValueRange | None = None  # smallest and largest value of a 16-bit image
    sides: tuple[tuple[int, float], ...] = ()  # class and side of its objects; a side is the root of the share of the image's area


def scan(source: Source, data: Data, *, workers: int | None = None, progress: Progress | None = None) -> Scan:
    """Decodes every example of every split once.

    workers: processes (None: data.workers, else one per core; 0: this process). The result does not depend on it. A broken image
    never raises; an image that kills its worker (a crash inside a codec) is found and listed too.
    Raises DataError where no image is readable or a class loses all its training images.
    """
    splits = list(source.splits)
    train = next((s for s in ("train", "all") if s in source.splits), splits[0])
    workers = workers if workers is not None else data.workers
    seen = _look_at_all([source.splits[s] for s in splits], data, workers, progress)
    parts = dict(zip(splits, seen, strict=True))
    value_range = data.value_range or little_used([x.span for x in parts[train] if x.span])
    if value_range and not data.value_range:  # measured once more, on that scale
        seen = _look_at_all([source.splits[s] for s in splits], replace(data, value_range=value_range), workers, progress)
        parts = dict(zip(splits, seen, strict=True))
    copies = _copies(source, parts)
    scans = {s: _split_scan(source.splits[s], parts[s], copies.get(s)) for s in splits}
    bad = [(name, "", reason) for name, reason in source.dropped]
    bad += [(source.splits[s].name(i), s, scans[s].reason[i]) for s in splits for i in np.flatnonzero(~scans[s].ok).tolist()]
    _check_classes(source.splits[train], scans[train], train)
    good = [x for x in parts[train] if not x.reason]
    mean, std = _moments(good)
    height, width = (int(np.median(getattr(scans[train], side)[scans[train].ok])) for side in ("height", "width"))
    return Scan(
        splits=scans,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(source.classes, scans, parts),
        facts=DataFacts(
            len(good), len(source.classes), height, width, data.in_chans, small_object=_small([side for x in good for side in x.sides])
        ),
        bad=tuple(bad),
        notes=(*_notes(source, scans), *_note_of(value_range, data)),
        value_range=value_range,
    )


def clean(source: Source, scan: Scan) -> Source:
    """`source` without broken images, and its made val and test without copies of images that training (or val) has.

    A split that nothing is left of disappears.
    """
    kept = {s: np.flatnonzero(scan.splits[s].kept) for s in source.splits}
    splits = {s: e if len(kept[s]) == len(e) else e.select(kept[s]) for s, e in source.splits.items() if len(kept[s])}
    return replace(source, splits=splits)


def split_rows(source: Source, scan: Scan) -> list[tuple[str, str, str, str]]:
    """(split, name, digest, class name) of every readable example of the scanned `source`, for splits.csv.

    Copies left out by `clean` have the split "left out"; broken images are in `scan.bad`.
    """
    rows = []
    for split, examples in source.splits.items():
        seen = scan.splits[split]
        for i in np.flatnonzero(seen.ok):
            where = "left out" if seen.copy[i] else split
            rows.append((where, examples.names[i], str(seen.digest[i]), source.classes[seen.label[i]]))
    return rows


# Looking at one image


def _look(examples: Examples, index: int, data: Data) -> _Seen:
    encoded = examples.source(index)
    digest = ""
    try:
        if not isinstance(encoded, bytes):
            path, encoded = encoded, _bytes_of(encoded)
            if not encoded:
                decode(path, in_chans=data.in_chans, max_pixels=data.max_pixels)  # says why: missing, a folder, no permission, empty
        digest = digest_of(encoded)
        image = decode(encoded, in_chans=data.in_chans, max_pixels=data.max_pixels, value_range=data.value_range)
        span = None if data.value_range else sixteen_bit_span(encoded)
        height, width, mean, square = _measure(image)
        known, sides = _annotation(examples.annotation(index), (height, width))
    except BadImage as bad:
        return _Seen(digest, bad.reason)
    return _Seen(digest, "", height, width, mean, square, known, span, sides)


def _annotation(annotation: Annotation, size: Size) -> tuple[str, tuple[tuple[int, float], ...]]:
    """The digest of what is known of an image and the classes and sides of its objects; BadImage where it does not fit the image."""
    if isinstance(annotation, Tensor):  # labels fit any image
        return _digest(annotation.numpy().tobytes()), ()
    fitting = None if isinstance(annotation, int) else fit_to(annotation, size)
    if isinstance(fitting, Objects):
        parts = [fitting.boxes.tobytes(), fitting.labels.tobytes(), fitting.crowd.tobytes(), *(fitting.masks or ())]
        areas = (fitting.boxes[:, 2:] - fitting.boxes[:, :2]).prod(1)
        return _digest(b"".join(parts)), tuple(zip(fitting.labels.tolist(), np.sqrt(areas / (size[0] * size[1])).tolist(), strict=True))
    return ("", ()) if fitting is None else (_digest(fitting.tobytes()), ())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def digest_of(source: bytes | str) -> str:
    """16 hex digits of the blake2b of an encoded image, given as bytes or as its path; "" where nothing can be read."""
    encoded = source if isinstance(source, bytes) else _bytes_of(source)
    return _digest(encoded) if encoded else ""


def _bytes_of(path: str) -> bytes:
    file = Path(path)
    try:
        return file.read_bytes() if file.is_file() else b""
    except (OSError, ValueError):
        return b""


def _measure(image: Image) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    """Height, width, and per channel the mean and the mean square of pixels in 0..1."""
    if isinstance(image, PilImage):
        counts = np.asarray(image.histogram(), np.float64).reshape(-1, 256)  # c,256: exact, and faster than looking at the pixels
        levels = np.arange(256) / 255
        total = counts.sum(1)
        return image.height, image.width, tuple((counts @ levels / total).tolist()), tuple((counts @ levels**2 / total).tolist())
    flat = image.reshape(-1, image.shape[2]).astype(np.float64)  # hw,c
    return image.shape[0], image.shape[1], tuple(flat.mean(0).tolist()), tuple((flat**2).mean(0).tolist())


# Looking at all of them


def _look_at_all(parts: list[Examples], data: Data, workers: int | None, progress: Progress | None) -> list[list[_Seen]]:
    found: list[dict[int, list[_Seen]]] = [{} for _ in parts]
    for (part, start, _), seen in sweep(parts, partial(_look, data=data), lost=_Seen("", CRASH), workers=workers, progress=progress):
        found[part][start] = seen
    return [[x for start in sorted(of_part) for x in of_part[start]] for of_part in found]


# What was seen


def _split_scan(examples: Examples, seen: list[_Seen], copy: np.ndarray | None) -> SplitScan:
    return SplitScan(
        ok=np.array([not x.reason for x in seen], bool),
        reason=tuple(x.reason for x in seen),
        digest=np.array([x.digest for x in seen], "<U16"),
        height=np.array([x.height for x in seen], np.int64),
        width=np.array([x.width for x in seen], np.int64),
        label=examples.labels,
        copy=np.zeros(len(seen), bool) if copy is None else copy,
    )


def _copies(source: Source, parts: dict[str, list[_Seen]]) -> dict[str, np.ndarray]:
    """Per split made here: which readable images are byte for byte also in train, or for test also in val."""
    copies: dict[str, np.ndarray] = {}
    taken: set[str] = set()
    for split in ("train", "val", "test"):
        if split not in parts:
            continue
        if split != "train" and was_made(source, split):
            copies[split] = np.array([not x.reason and x.digest in taken for x in parts[split]], bool)
        taken |= {x.digest for x in parts[split] if not x.reason}
    return copies


def _check_classes(examples: Examples, seen: SplitScan, split: str) -> None:
    broken = [f"{examples.name(i)}: {seen.reason[i]}" for i in np.flatnonzero(~seen.ok)[:3]]
    if not seen.ok.any():
        raise DataError(f"none of the {len(seen.ok)} images of the {split} split can be read: {'; '.join(broken) or 'there are none'}")
    before = np.bincount(seen.label, minlength=len(examples.classes))
    after = np.bincount(seen.label[seen.ok], minlength=len(examples.classes))
    for label in np.flatnonzero((before > 0) & (after == 0)):
        of_it = np.flatnonzero(seen.label == label)
        reasons = "; ".join(f"{examples.name(i)}: {seen.reason[i]}" for i in of_it[:3])
        raise DataError(f"class {examples.classes[label]!r} has no readable training image left, all {before[label]} are broken: {reasons}")


def _moments(good: list[_Seen]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; exact sums, so they do not depend on the order or on who counted."""
    channels = range(len(good[0].mean))
    mean = [math.fsum(x.mean[c] for x in good) / len(good) for c in channels]
    square = [math.fsum(x.square[c] for x in good) / len(good) for c in channels]
    return tuple(map(float, mean)), tuple(max(s - m * m, 0.0) ** 0.5 for s, m in zip(square, mean, strict=True))


def little_used(spans: list[ValueRange]) -> ValueRange | None:
    """The range of 16-bit training images that use a quarter of the 16 bits or less; None where they use more, or are none."""
    if not spans:
        return None
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    return (low, high) if low < high and (high - low) * 4 <= 65535 else None


def _note_of(value_range: ValueRange | None, data: Data) -> list[str]:
    if value_range is None or data.value_range:
        return []
    low, high = value_range
    return [
        f"the 16-bit images use {low:g} to {high:g} of 0 to 65535 and are scaled from that range; --value-range 0,65535 leaves them dark"
    ]


def _fingerprint(classes: tuple[str, ...], scans: dict[str, SplitScan], seen: dict[str, list[_Seen]]) -> str:
    rows = [(str(s.digest[i]), classes[s.label[i]], seen[name][i].known) for name, s in scans.items() for i in np.flatnonzero(s.ok)]
    pairs: list[Any] = sorted((digest, label, known) if known else (digest, label) for digest, label, known in rows)
    return _digest(json.dumps(pairs).encode())


def _small(sides: list[tuple[int, float]]) -> float | None:
    """The median side of the class with the smallest objects."""
    by_class: dict[int, list[float]] = {}
    for label, side in sides:
        by_class.setdefault(label, []).append(side)
    return min((float(np.median(of_class)) for of_class in by_class.values()), default=None)


def _notes(source: Source, scans: dict[str, SplitScan]) -> Iterator[str]:
    for split, seen in scans.items():
        broken = int((~seen.ok).sum())
        if broken:
            yield f"{broken} of {len(seen.ok)} {'' if split == 'all' else split + ' '}images are broken and left out"
        if seen.copy.any():
            yield f"{int(seen.copy.sum())} {split} images are copies of images in train or val and left out of the {split} split"
        if split in ("val", "test") and not (seen.ok & ~seen.copy).any():
            yield f"nothing is left of the {split} split"
    for split in ("val", "test"):
        if split in scans and "train" in scans and not was_made(source, split):
            train = set(scans["train"].digest[scans["train"].ok])
            shared = sum(d in train for d in scans[split].digest[scans[split].ok])
            if shared:
                yield f"{shared} images of the given {split} split are also training images; its accuracy will look better than it is"
    if source.dropped:
        yield f"{len(source.dropped)} files, rows or annotations cannot be used and are left out"
