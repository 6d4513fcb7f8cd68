"""Moves and resampling on the device are Pillow's: nearest and resampling exactly, moves between pixels but for a last bit."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from convmix.data.augment import device_geometry as geometry

FILTERS = {geometry.NEAREST: PIL.Image.Resampling.NEAREST, geometry.BILINEAR: PIL.Image.Resampling.BILINEAR}
FILTERS[geometry.BICUBIC] = PIL.Image.Resampling.BICUBIC
FILL = (11, 128, 250)


def pixels_of(n: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


def batch(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def matrices(n: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(1)
    height, width = size
    found = []
    for i in range(n):
        angle, shear = math.radians(rng.uniform(-40, 40)), rng.uniform(-0.4, 0.4)
        c, s = math.cos(angle), math.sin(angle)
        turn = (c, s, width / 2 * (1 - c) - s * height / 2, -s, c, height / 2 * (1 - c) + s * width / 2)
        found.append(
            [
                turn,
                (1, shear, 0, 0, 1, 0),
                (1, 0, 0, shear, 1, 0),
                (1, 0, rng.uniform(-9, 9), 0, 1, 0),
                (1, 0, 0, 0, 1, rng.integers(-9, 9)),
            ][i % 5]
        )
    return np.asarray(found, np.float64)


def close(ours: Tensor, expected: np.ndarray, *, exact: float) -> None:
    difference = np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - expected.astype(int))
    assert difference.max() <= 1 and (difference == 0).mean() >= exact


@pytest.mark.parametrize("resample", list(FILTERS))
@pytest.mark.parametrize("size", [(32, 32), (21, 40)])
def test_affine_moves_are_pillows(resample: int, size: tuple[int, int]) -> None:
    pixels, moves = pixels_of(40, size), matrices(40, size)
    ours = geometry.affine(batch(pixels), torch.from_numpy(moves), resample, torch.tensor(FILL, dtype=torch.uint8))
    expected = np.stack(
        [
            np.asarray(
                PIL.Image.fromarray(p).transform(
                    (size[1], size[0]), PIL.Image.Transform.AFFINE, tuple(m), resample=FILTERS[resample], fillcolor=FILL
                )
            )
            for p, m in zip(pixels, moves, strict=True)
        ]
    )
    close(ours, expected, exact=1.0 if resample == geometry.NEAREST else 0.9999)


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize(("size", "to"), [((32, 32), (32, 32)), ((32, 32), (48, 40)), ((61, 90), (24, 24))])
def test_boxes_are_resized_as_pillow_does(bicubic: bool, size: tuple[int, int], to: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    pixels = pixels_of(30, size, seed=3)
    boxes = []
    for _ in pixels:
        h, w = int(rng.integers(size[0] // 3, size[0] + 1)), int(rng.integers(size[1] // 3, size[1] + 1))
        boxes.append((int(rng.integers(0, size[0] - h + 1)), int(rng.integers(0, size[1] - w + 1)), h, w))
    boxes[0] = (0, 0, *size)
    ours = geometry.resized_part(batch(pixels), torch.tensor(boxes), to, torch.full((30,), bicubic))
    kernel = PIL.Image.Resampling.BICUBIC if bicubic else PIL.Image.Resampling.BILINEAR
    expected = np.stack(
        [
            np.asarray(PIL.Image.fromarray(p).crop((l, t, l + w, t + h)).resize((to[1], to[0]), kernel))
            for p, (t, l, h, w) in zip(pixels, boxes, strict=True)  # noqa: E741
        ]
    )
    if to == (24, 24):  # where an image shrinks Pillow resamples rows first at some aspects, and rounds in between
        difference = np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - expected.astype(int))
        assert difference.max() <= 3 and (difference == 0).mean() > 0.95
    else:
        close(ours, expected, exact=1.0)
    if size == to:
        assert torch.equal(ours[0], batch(pixels)[0])


def test_shifts_and_flips() -> None:
    pixels = pixels_of(6, (9, 12))
    x, fill = batch(pixels), torch.tensor(FILL, dtype=torch.uint8)
    top, left = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 0, 1, 2, 3, 2])
    ours = geometry.shifted(x, top, left, 2, fill)
    for i, p in enumerate(pixels):
        canvas = PIL.Image.new("RGB", (16, 13), FILL)
        canvas.paste(PIL.Image.fromarray(p), (2, 2))
        expected = np.asarray(canvas.crop((int(left[i]), int(top[i]), int(left[i]) + 12, int(top[i]) + 9)))
        assert np.array_equal(ours[i].permute(1, 2, 0).numpy(), expected)
    which = torch.tensor([True, False] * 3)
    for vertical, axis in ((False, 3), (True, 2)):
        turned = geometry.flipped(x, which, vertical=vertical)
        assert torch.equal(turned[::2], x[::2].flip(axis)) and torch.equal(turned[1::2], x[1::2])
