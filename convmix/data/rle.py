"""Masks at rest: COCO's compressed run lengths, a few hundred bytes for what takes an image's area of pixels.

The counts run down the columns, as COCO stores them; the size stands beside them, once per image. `faster_coco_eval.mask` does the work.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask as coco

from convmix.config import Size

FAR = 10_000  # pixels outside the image: outlining a polygon takes memory by its length, so one that runs further is a mistake


def encode(masks: np.ndarray) -> tuple[bytes, ...]:
    """n,H,W bool or uint8 (0 or not) -> n counts."""
    if masks.ndim != 3:
        raise ValueError(f"masks are {masks.shape}, expected n,H,W")
    if not len(masks):
        return ()
    masks_hwn = np.asfortranarray((masks != 0).transpose(1, 2, 0), dtype=np.uint8)
    return tuple(bytes(m["counts"]) for m in coco.encode(masks_hwn))


def decode(counts: Sequence[bytes], size: Size) -> np.ndarray:
    """n counts over an image of height, width `size` -> n,H,W uint8, 0 or 1."""
    if not counts:
        return np.zeros((0, *size), np.uint8)
    return np.ascontiguousarray(coco.decode(_as_coco(counts, size)).transpose(2, 0, 1))


def part(count: bytes, size: Size, box: tuple[int, int, int, int]) -> np.ndarray:
    """One mask inside a box (top, left, height, width) of the image -> height,width uint8; cheaper than `decode` by what is outside."""
    top, left, height, width = box
    first, stop = left * size[0], (left + width) * size[0]
    lengths = np.diff(np.cumsum(_runs(count)).clip(first, stop), prepend=first)
    columns_wh = np.repeat((np.arange(len(lengths)) & 1).astype(np.uint8), lengths).reshape(width, size[0])
    return columns_wh[:, top : top + height].T


def areas(counts: Sequence[bytes], size: Size) -> np.ndarray:
    """n int64, pixels."""
    return np.asarray(coco.area(_as_coco(counts, size)), np.int64) if counts else np.zeros(0, np.int64)


def boxes(counts: Sequence[bytes], size: Size) -> np.ndarray:
    """n,4 float32: left, top, right, bottom around each mask; zeros around an empty one."""
    if not counts:
        return np.zeros((0, 4), np.float32)
    xywh = np.asarray(coco.toBbox(_as_coco(counts, size)), np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def from_polygons(polygons: Sequence[Sequence[Any]], size: Size) -> bytes:
    """The counts of one object outlined by polygons x1, y1, x2, y2, ..., in pixels.

    Raises ValueError, for people: fewer than 3 points, numbers that are none, a polygon that runs far out of the image.
    """
    if not isinstance(polygons, list | tuple) or not polygons:
        raise ValueError(f"an outline of {repr(polygons)[:40]}, expected a list of polygons")
    reach = FAR + max(size)
    for polygon in polygons:
        if not isinstance(polygon, list | tuple) or len(polygon) < 6 or len(polygon) % 2:
            count = f"{len(polygon)} numbers" if isinstance(polygon, list | tuple) else repr(polygon)[:40]
            raise ValueError(f"a polygon of {count}, expected x, y of at least 3 points")
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"a polygon with {value!r}, expected pixels")
            if abs(value) > reach:
                raise ValueError(f"a polygon that runs to {value:g}, far outside the image of {size[1]}x{size[0]}")
    return bytes(coco.merge(coco.frPyObjects([list(map(float, p)) for p in polygons], *size))["counts"])


def from_runs(counts: Any, at: Any, size: Size) -> bytes:
    """The counts of an RLE as COCO files hold it, a text or a list of run lengths over an image of height, width `at`.

    Raises ValueError, for people: another size than the image's, runs that are none or do not fill it.
    """
    if not isinstance(at, list | tuple) or [*at] != [*size]:
        raise ValueError(f"an RLE of height, width {at}, the image is {size[0]}, {size[1]}")
    if isinstance(counts, list):
        if not all(isinstance(c, int) and not isinstance(c, bool) and 0 <= c < 2**32 for c in counts):
            raise ValueError("an RLE with run lengths that are not counts of pixels")
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f"an RLE of {sum(counts)} pixels, the image has {size[0] * size[1]}")
        return bytes(coco.frPyObjects({"counts": counts, "size": [*size]}, *size)["counts"])
    if not isinstance(counts, str):
        raise ValueError(f"RLE counts {repr(counts)[:40]}, expected a text or a list of run lengths")
    try:
        packed = counts.encode("ascii")
        coco.decode(_as_coco([packed], size))
    except (ValueError, RuntimeError):  # of another image, cut off, or not ASCII
        raise ValueError("RLE counts that do not fill the image") from None
    return packed


def _runs(count: bytes) -> np.ndarray:
    """The lengths of the runs, of zeros first: k int64. As `rleFrString` of COCO's API reads them."""
    digits = np.frombuffer(count, np.uint8).astype(np.int64) - 48  # 5 bits of a number, the lowest first; 32: more digits follow
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends + 1 - starts
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << 5 * place, starts)
    runs -= (digits[ends] >> 4) << 5 * lengths  # the highest bit of the last digit is the sign
    for parity in (1, 2):  # from the fourth on, what they are longer than the one before the last
        runs[parity::2] = np.cumsum(runs[parity::2])
    return runs


def _as_coco(counts: Sequence[bytes], size: Size) -> list[dict[str, object]]:
    return [{"size": [int(size[0]), int(size[1])], "counts": c} for c in counts]
