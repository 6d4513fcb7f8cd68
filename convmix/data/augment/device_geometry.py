"""Pillow's moves and resampling for a batch of 8-bit images on any device, every image in its own way.

x N,C,H,W uint8 -> affine: what stands at M (column, row) | resized_part: a box at another size | shifted -> N,C,H',W' uint8

The numbers are Pillow's, but for a last bit of float64 in places of pixels: its order of operations, its fixed point.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NEAREST, BILINEAR, BICUBIC = 0, 1, 2
_FIXED = 65536.0  # of Pillow's places of pixels,
_ONE = float(1 << 22)  # and of its weights in resampling: sums of such products are exact in float64


def affine(x: Tensor, matrix: Tensor, resample: int, fill: Tensor) -> Tensor:
    """Pixel (column, row) of the result is that at (a * column + b * row + c, d * column + e * row + f) of x, centres of pixels meant.

    matrix: N,6 float64, a to f. fill: C uint8, what stands outside x. As `PIL.Image.transform` with AFFINE.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=torch.float64)[:, None]
    columns = torch.arange(width, device=x.device, dtype=torch.float64)
    a, b, c, d, e, f = (matrix[:, i, None, None] for i in range(6))
    if resample == NEAREST:  # in fixed point, as Pillow
        fixed_a, fixed_b, fixed_d, fixed_e = ((v * _FIXED + 0.5).floor() for v in (a, b, d, e))
        fixed_c, fixed_f = (((v + 0.5 * p + 0.5 * q) * _FIXED + 0.5).floor() for v, p, q in ((c, a, b), (f, d, e)))
        at_x = ((fixed_a * columns + fixed_b * rows + fixed_c) / _FIXED).floor()  # N,H,W
        at_y = ((fixed_d * columns + fixed_e * rows + fixed_f) / _FIXED).floor()
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        found = _taken(x, at_y.clamp(0, height - 1).long(), at_x.clamp(0, width - 1).long())
    else:
        at_x, at_y = a * (columns + 0.5) + b * (rows + 0.5) + c, d * (columns + 0.5) + e * (rows + 0.5) + f
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        found = _interpolated(x, at_x - 0.5, at_y - 0.5, bicubic=resample == BICUBIC)
    return torch.where(inside[:, None], found, fill[:, None, None])


def _taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x at N,H,W rows and columns of each image."""
    at = (rows * x.shape[3] + columns).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, at).view(*x.shape[:2], *rows.shape[1:])


def _interpolated(x: Tensor, at_x: Tensor, at_y: Tensor, *, bicubic: bool) -> Tensor:
    """Between the nearest 2 x 2 or 4 x 4 pixels; beyond the edge its last pixel goes on. Fractions are cut off."""
    height, width = x.shape[2:]
    low_x, low_y = at_x.floor(), at_y.floor()
    t_x, t_y = (at_x - low_x)[:, None], (at_y - low_y)[:, None]
    offsets, between = (range(-1, 3), _cubic) if bicubic else (range(2), _linear)
    lines = []
    for j in offsets:
        rows = (low_y + j).clamp(0, height - 1).long()
        pixels = [_taken(x, rows, (low_x + i).clamp(0, width - 1).long()).double() for i in offsets]
        lines.append(between(pixels, t_x))
    return between(lines, t_y).clamp(0, 255).to(torch.uint8)


def _linear(v: list[Tensor], t: Tensor) -> Tensor:
    return v[0] + (v[1] - v[0]) * t


def _cubic(v: list[Tensor], t: Tensor) -> Tensor:
    """Pillow's cubic for moves, a = -1, in its order of operations."""
    p2, p3, p4 = v[2] - v[0], 2 * (v[0] - v[1]) + v[2] - v[3], v[1] - v[0] - v[2] + v[3]
    return v[1] + t * (p2 + t * (p3 + t * p4))


def resized_part(x: Tensor, boxes: Tensor, size: tuple[int, int], bicubic: Tensor) -> Tensor:
    """Each image's box (N,4: top, left, height, width, whole pixels) at `size`, antialiased where it shrinks, as `PIL.Image.resize`.

    bicubic: N, whether to take that filter; bilinear else. What lies outside the box has no part in it.
    Columns first; where an image shrinks Pillow takes rows first at some aspects, which changes a few values by a level or two.
    """
    top, left, height, width = (boxes[:, i].double() for i in range(4))
    across = _resampling(left, width, size[1], x.shape[3], bicubic)  # N,W',W
    down = _resampling(top, height, size[0], x.shape[2], bicubic)  # N,H',H
    lines = _rounded(torch.matmul(x.double(), across.transpose(1, 2)[:, None]))  # N,C,H,W'
    return _rounded(torch.matmul(down[:, None], lines)).to(torch.uint8)


def _rounded(x: Tensor) -> Tensor:
    return ((x + _ONE / 2) / _ONE).floor().clamp(0, 255)


def _resampling(start: Tensor, length: Tensor, out: int, available: int, bicubic: Tensor) -> Tensor:
    """N,out,available: the share of every pixel of an axis in every pixel of the result, in whole parts of `_ONE`."""
    scale = (length / out)[:, None]  # N,1
    stretch = scale.clamp(min=1)
    centre = (torch.arange(out, device=start.device) + 0.5) * scale  # N,out, from the start of the box
    support = torch.where(bicubic, 2.0, 1.0)[:, None] * stretch
    first = (centre - support + 0.5).floor().clamp(min=0)
    behind = torch.minimum((centre + support + 0.5).floor(), length[:, None])
    pixel = torch.arange(available, device=start.device) - start[:, None]  # N,available, from the start of the box
    pixel, first, behind = pixel[:, None], first[:, :, None], behind[:, :, None]
    distance = ((pixel + 0.5 - centre[:, :, None]) / stretch[:, :, None]).abs()
    linear = (1 - distance).clamp(min=0)
    inner = (1.5 * distance - 2.5) * distance**2 + 1  # a = -0.5
    outer = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    cubic = torch.where(distance < 1, inner, torch.where(distance < 2, outer, 0.0))
    weight = torch.where(bicubic[:, None, None], cubic, linear) * ((pixel >= first) & (pixel < behind))
    return (weight / weight.sum(2, keepdim=True) * _ONE).round()


def shifted(x: Tensor, top: Tensor, left: Tensor, pad: int, fill: Tensor) -> Tensor:
    """x with `pad` pixels of fill (C uint8) around it, cut at row top and column left (N each, 0..2 pad) to its own size."""
    n, _, height, width = x.shape
    canvas = F.pad(x, (pad, pad, pad, pad))
    canvas[:] = fill[:, None, None]
    canvas[:, :, pad : pad + height, pad : pad + width] = x
    rows = (top[:, None] + torch.arange(height, device=x.device))[:, :, None].expand(n, height, width)
    columns = (left[:, None] + torch.arange(width, device=x.device))[:, None].expand(n, height, width)
    return _taken(canvas, rows, columns)


def flipped(x: Tensor, which: Tensor, *, vertical: bool) -> Tensor:
    """The images named by `which` (N bool) upside down, or left to right."""
    return torch.where(which[:, None, None, None], x.flip(2 if vertical else 3), x)
