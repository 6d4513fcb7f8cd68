"""Colours change on the device exactly as Pillow changes them."""

from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ImageEnhance, ImageOps
from timm.data import auto_augment
from torch import Tensor

from convmix.data.augment import device_color as color

FACTORS = np.array([0.0, 0.1, 0.37, 0.9, 1.0, 1.23, 1.9, 2.5])


def images(n: int, seed: int = 0, size: tuple[int, int] = (19, 23)) -> np.ndarray:
    """n,H,W,3: noise, smooth slopes, few values, one value."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (n, *size, 3), np.uint8)
    slope = np.linspace(40, 200, size[1]).astype(np.uint8)
    found[1::4] = slope[None, None, :, None] + rng.integers(0, 8, (len(found[1::4]), *size, 3), np.uint8)
    found[2::4] //= 97
    found[3::4] = rng.integers(0, 256, (len(found[3::4]), 1, 1, 3), np.uint8)
    return found


def same(ours: Tensor, theirs: Callable[[PIL.Image.Image, int], PIL.Image.Image], pixels: np.ndarray) -> None:
    expected = np.stack([np.asarray(theirs(PIL.Image.fromarray(p), i)) for i, p in enumerate(pixels)])
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), expected)


def batch(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def by_table(pixels: np.ndarray, table: np.ndarray) -> Tensor:
    return color.look_up(batch(pixels), torch.from_numpy(table)[:, None])


def test_tables_that_need_no_image() -> None:
    pixels = images(len(FACTORS))
    bits = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    same(by_table(pixels, color.posterize_table(bits)), lambda im, i: ImageOps.posterize(im, int(bits[i])), pixels)
    thresholds = np.array([0, 1, 100, 127.5, 128, 200.3, 255, 256])
    same(by_table(pixels, color.solarize_table(thresholds)), lambda im, i: ImageOps.solarize(im, thresholds[i]), pixels)
    added = np.array([0, 1, 50, 99, 110, 120, 127, 128])
    same(by_table(pixels, color.solarize_add_table(added)), lambda im, i: auto_augment.solarize_add(im, int(added[i])), pixels)
    same(by_table(pixels, color.invert_table(len(pixels))), lambda im, i: ImageOps.invert(im), pixels)
    same(by_table(pixels, color.brightness_table(FACTORS)), lambda im, i: ImageEnhance.Brightness(im).enhance(FACTORS[i]), pixels)


@pytest.mark.parametrize("size", [(19, 23), (64, 64), (3, 3), (200, 300)])
def test_tables_made_from_the_image(size: tuple[int, int]) -> None:
    pixels = images(8, seed=size[0], size=size)
    x = batch(pixels)
    same(color.look_up(x, color.auto_contrast_table(x)), lambda im, i: ImageOps.autocontrast(im), pixels)
    same(color.look_up(x, color.equalize_table(x)), lambda im, i: ImageOps.equalize(im), pixels)
    factor = torch.from_numpy(FACTORS).float()
    same(color.look_up(x, color.contrast_table(x, factor)), lambda im, i: ImageEnhance.Contrast(im).enhance(FACTORS[i]), pixels)


@pytest.mark.parametrize("size", [(19, 23), (3, 3), (2, 9)])
def test_blends(size: tuple[int, int]) -> None:
    pixels = images(8, seed=5, size=size)
    x, factor = batch(pixels), torch.from_numpy(FACTORS).float()
    same(color.saturate(x, factor), lambda im, i: ImageEnhance.Color(im).enhance(FACTORS[i]), pixels)
    same(color.sharpen(x, factor), lambda im, i: ImageEnhance.Sharpness(im).enhance(FACTORS[i]), pixels)
