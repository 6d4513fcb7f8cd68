"""Pillow's changes of colour for a batch of 8-bit RGB images on any device: the same numbers, all images at once.

x N,3,H,W uint8, what is asked for per image -> N,3,H,W uint8

What depends on the value of a pixel alone is a table of 256 values per image and channel, and all such changes are one look-up; blends with
the grey or the smoothed image are computed in float32 and cut off as Pillow does.
"""

import numpy as np
import torch
from torch import Tensor

LEVELS = 256
_RED, _GREEN, _BLUE, _HALF = 19595, 38470, 7471, 1 << 15  # of 65536: Pillow's grey


def look_up(x: Tensor, table: Tensor) -> Tensor:
    """table: N,3,256 or N,1,256 uint8."""
    table = table.expand(-1, x.shape[1], -1)
    return table.gather(2, x.flatten(2).long()).view_as(x)


def invert_table(n: int) -> np.ndarray:
    """255 - value; n,256."""
    return np.broadcast_to(255 - np.arange(LEVELS), (n, LEVELS)).astype(np.uint8)


def posterize_table(bits: np.ndarray) -> np.ndarray:
    """The upper `bits` (n) of 8 bits stay."""
    mask = ~((1 << (8 - bits.astype(np.int64))) - 1)
    return (np.arange(LEVELS) & mask[:, None]).astype(np.uint8)


def solarize_table(threshold: np.ndarray) -> np.ndarray:
    """Values from `threshold` (n) on are inverted."""
    values = np.arange(LEVELS)
    return np.where(values < threshold[:, None], values, 255 - values).astype(np.uint8)


def solarize_add_table(added: np.ndarray) -> np.ndarray:
    """Values below 128 grow by `added` (n)."""
    values = np.arange(LEVELS)
    return np.where(values < 128, np.minimum(255, values + added[:, None]), values).astype(np.uint8)


def brightness_table(factor: np.ndarray) -> np.ndarray:
    """Black at 0, unchanged at 1; `factor` n."""
    product = factor.astype(np.float32)[:, None] * np.arange(LEVELS, dtype=np.float32)
    return np.clip(product, 0, 255).astype(np.uint8)


def auto_contrast_table(x: Tensor) -> Tensor:
    """N,3,256: each channel stretched from its smallest and largest value to 0 and 255."""
    flat = x.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()  # N,3,1
    values = torch.arange(LEVELS, dtype=torch.float64, device=x.device)
    span = (high - low).clamp(min=1)
    scale = torch.where(high > low, torch.full_like(span, 255) / span, 1.0)  # a number by a tensor would be the reciprocal times it
    offset = torch.where(high > low, -low * scale, 0.0)
    return (values * scale + offset).clamp(0, 255).to(torch.uint8)


def equalize_table(x: Tensor) -> Tensor:
    """N,3,256: each channel's values spread so that all are about equally frequent."""
    flat = x.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], LEVELS, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    values = torch.arange(LEVELS, device=x.device)
    largest = flat.amax(2, keepdim=True)
    step = (flat.shape[2] - counts.gather(2, largest)) // 255  # N,3,1
    before = counts.cumsum(2) - counts
    spread = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, values).to(torch.uint8)


def contrast_table(x: Tensor, factor: Tensor) -> Tensor:
    """N,1,256: away from the image's mean grey; `factor` N, 0 is that grey, 1 the image."""
    mean = (grey(x).flatten(1).sum(1, dtype=torch.int64).double() / (x.shape[2] * x.shape[3]) + 0.5).floor().float()  # N
    values = torch.arange(LEVELS, dtype=torch.float32, device=x.device)
    return _cut(mean[:, None] + factor[:, None] * (values - mean[:, None]))[:, None]


def saturate(x: Tensor, factor: Tensor) -> Tensor:
    """Away from each pixel's grey; `factor` N, 0 is grey, 1 the image."""
    return _blend(grey(x)[:, None], x, factor)


def sharpen(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the smoothed image; `factor` N, 0 is smoothed, 1 the image. The outermost pixels stay."""
    smooth = x.clone()
    if min(x.shape[2:]) >= 3:
        wide = x.to(torch.int32)
        rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]  # 1 1 1, 1 5 1, 1 1 1
        smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)  # of 13 parts, rounded
    return _blend(smooth, x, factor)


def grey(x: Tensor) -> Tensor:
    """N,3,H,W -> N,H,W int32 in 0..255."""
    wide = x.to(torch.int32)
    return (wide[:, 0] * _RED + wide[:, 1] * _GREEN + wide[:, 2] * _BLUE + _HALF) >> 16


def _blend(a: Tensor, b: Tensor, factor: Tensor) -> Tensor:
    """a + factor * (b - a); outside 0..1 the values go beyond b, or beyond a."""
    start = a.float()
    return _cut(start + factor[:, None, None, None] * (b.float() - start))


def _cut(x: Tensor) -> Tensor:
    return x.clamp(0, 255).to(torch.uint8)
