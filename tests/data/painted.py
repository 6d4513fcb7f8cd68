"""Pictures of painted rectangles, whose boxes and masks are known."""

import numpy as np

from convmix.config import Size
from convmix.data import rle
from convmix.data.targets import Objects


def rectangles(size: Size, *, seed: int = 0) -> np.ndarray:
    """n,4 int xyxy, apart from one another: one in each of 3 x 4 cells."""
    rng = np.random.default_rng(seed)
    cell_h, cell_w = size[0] // 3, size[1] // 4
    found = []
    for row in range(3):
        for column in range(4):
            h, w = rng.integers(cell_h // 3, cell_h), rng.integers(cell_w // 3, cell_w)
            top, left = row * cell_h + rng.integers(0, cell_h - h), column * cell_w + rng.integers(0, cell_w - w)
            found.append((left, top, left + w, top + h))
    return np.asarray(found)


def painted(size: Size, boxes: np.ndarray) -> np.ndarray:
    """H,W uint8: object i has the value 10 + 10 * i, the ground is 0."""
    pixels = np.zeros(size, np.uint8)
    for i, (left, top, right, bottom) in enumerate(boxes.tolist()):
        pixels[top:bottom, left:right] = 10 + 10 * i
    return pixels


def objects_of(size: Size, boxes: np.ndarray, *, masks: bool = True, crowd: tuple[int, ...] = ()) -> Objects:
    flags = np.isin(np.arange(len(boxes)), crowd)
    drawn = np.stack([painted(size, box[None]) > 0 for box in boxes]) if len(boxes) else np.zeros((0, *size), bool)
    return Objects(size, boxes.astype(np.float32).reshape(-1, 4), np.arange(len(boxes)), flags, rle.encode(drawn) if masks else None)


def extent(pixels: np.ndarray) -> list[int]:
    """left, top, right, bottom around what is not zero in H,W."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
