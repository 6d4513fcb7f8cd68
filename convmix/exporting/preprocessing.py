"""The preprocessing inside the exported graph: plain tensor arithmetic that gives what Pillow gives.

    images N,H,W,C  -- Placed -->  N,C,h,w normalised, TracedPlacement        crop, letterbox or stretch, then mean and std
    images N,h,w,C  -- Normalised -->  N,C,h,w normalised

Pillow resamples rows and columns one after the other, each with a filter of its own, and rounds to 8 bits after both. So do the two matrix
products here; their matrices, a row of weights per input pixel, are computed in the graph from the size of the image that comes. Sizes and
places are whole numbers and computed in such, so that no rounding moves the image by a pixel.

Levels then differ by one in a pixel of thousands. Two exceptions: Pillow 13 begins with the rows where many more of them go than columns,
the graph always with the columns; and `nearest` may take the neighbour where a centre falls exactly between two pixels.
"""

import math

import torch
from torch import Tensor, nn

from convmix.data.decode import MODES
from convmix.data.preprocessing import Preprocess
from convmix.data.traced_placement import TracedPlacement

_OPAQUE = MODES[4]  # the mode whose colours Pillow resamples multiplied by their opacity


class Normalised(nn.Module):
    """Images at the input size N,h,w,C, uint8 or float32 in 0..1 -> N,C,h,w float32, `mean` and `std` applied."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.is_picture = preprocess.in_chans in MODES
        scale, shift = preprocess.affine(levels=255 if self.is_picture else 1)
        self.register_buffer("scale", torch.from_numpy(scale))  # C,1,1
        self.register_buffer("shift", torch.from_numpy(shift))

    def forward(self, images: Tensor) -> tuple[Tensor, TracedPlacement | None]:
        return self.normalised(planes(images)), None

    def normalised(self, pixels_nchw: Tensor) -> Tensor:
        """Levels 0..255 of pictures, or values 0..1 -> the network's input."""
        return pixels_nchw * self.scale + self.shift


class Placed(Normalised):
    """Images of any one size N,H,W,C -> N,C,h,w float32 as `Preprocess.place` and `normalise` make them, and where the image lies."""

    fill: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__(preprocess)
        self.preprocess = preprocess
        fill = [min(max(round(255 * v), 0), 255) for v in preprocess.mean] if self.is_picture else preprocess.mean
        self.register_buffer("fill", torch.tensor(fill, dtype=torch.float32)[:, None, None])  # C,1,1

    def forward(self, images: Tensor) -> tuple[Tensor, TracedPlacement]:
        height, width = images.shape[1:3]
        x = planes(images)
        size = torch.scalar_tensor(height, dtype=torch.int64), torch.scalar_tensor(width, dtype=torch.int64)
        laid, offset = self._place(size)
        room = self.preprocess.size
        axes = [Axis(*one, self.preprocess.interpolation) for one in zip(size, laid, offset, room, (height, width), strict=True)]
        if self.is_picture and MODES[self.preprocess.in_chans] == _OPAQUE and self.preprocess.interpolation != "nearest":
            same = (laid[0] == size[0]) & (laid[1] == size[1])  # Pillow leaves an image alone that has its size already
            x = torch.where(same, self._resized(x, axes), separated(self._resized(multiplied(x), axes)))
        else:
            x = self._resized(x, axes)
        shown = axes[0].shown[:, None] & axes[1].shown  # h,w
        x = self.normalised(torch.where(shown, x, self.fill))
        scale = [(onto.float() / of.float()) for onto, of in zip(laid, size, strict=True)]
        return x, TracedPlacement((height, width), room, (scale[0], scale[1]), (offset[0].float(), offset[1].float()))

    def _resized(self, x: Tensor, axes: list["Axis"]) -> Tensor:
        """N,C,H,W -> N,C,h,w, what lies beside the image undefined."""
        vertical, horizontal = axes
        x = self._rounded(x @ horizontal.weights.T)  # N,C,H,W @ W,w -> N,C,H,w
        return self._rounded(vertical.weights @ x)  # h,H @ N,C,H,w -> N,C,h,w

    def _rounded(self, x: Tensor) -> Tensor:
        return (x + 0.5).floor().clamp(0, 255) if self.is_picture else x

    def _place(self, size: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """How large the whole image becomes, and where its top and left come to lie: int64 without dimensions.

        As `geometry.covering_size`, `fitting_size` and `centre_box` have it, whose divisions are in double precision.
        """
        p, (height, width), (h, w) = self.preprocess, size, self.preprocess.size
        nothing = torch.zeros_like(height)
        if p.fit == "stretch":
            return (nothing + h, nothing + w), (nothing, nothing)
        high, wide = height.double(), width.double()
        if p.fit == "letterbox":
            scale = torch.minimum(h / high, w / wide)
            laid_h = (high * scale).round().long().clamp(1, h)
            laid_w = (wide * scale).round().long().clamp(1, w)
            return (laid_h, laid_w), (_half(h - laid_h), _half(w - laid_w))
        target_h, target_w = math.floor(h / p.crop_pct), math.floor(w / p.crop_pct)
        if target_h == target_w:
            short = torch.minimum(height, width)
            laid_h, laid_w = (torch.div(target_h * length, short, rounding_mode="floor") for length in size)
        else:
            shrink = torch.minimum(high / target_h, wide / target_w)
            laid_h = (high / shrink).round().long().clamp(min=target_h)
            laid_w = (wide / shrink).round().long().clamp(min=target_w)
        return (laid_h, laid_w), (-_half_even(laid_h - h), -_half_even(laid_w - w))


class Axis:
    """Rows or columns of the image on those of the input, as weights h,H.

    size, laid, offset: int64 without dimensions, of the image, of the image as it is laid, and where that begins; room: of the input;
    length: the size again, as the graph knows shapes.
    """

    def __init__(self, size: Tensor, laid: Tensor, offset: Tensor, room: int, length: int, interpolation: str) -> None:
        at = torch.arange(room) - offset  # of the laid image: h
        self.shown = (at >= 0) & (at < laid)
        # the centre of every output pixel in image pixels, (at + 0.5) * size / laid, as a whole number and a rest
        twice = (2 * at + 1) * size
        whole = torch.div(twice, 2 * laid, rounding_mode="floor")
        rest = (twice - whole * 2 * laid).float() / (2 * laid).float()  # 0..1
        steps = (torch.arange(length) - whole[:, None]).float()  # h,H
        if interpolation == "nearest":
            self.weights = (steps == 0).float()
            return
        shrink = (size.float() / laid.float()).clamp(min=1)
        distance = ((steps + 0.5 - rest[:, None]) / shrink).abs()
        weights = _bicubic(distance) if interpolation == "bicubic" else (1 - distance).clamp(min=0)
        self.weights = weights / torch.where(self.shown, weights.sum(1), 1)[:, None]  # beside the image there may be none to divide by


def planes(images: Tensor) -> Tensor:
    """N,H,W,C -> N,C,H,W float32, laid out as such: convolutions ask for the layout, and would bind the graph to the sizes that tell it."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def _bicubic(distance: Tensor) -> Tensor:
    """Keys's kernel with a = -0.5, as Pillow has it."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def multiplied(x: Tensor) -> Tensor:
    """Colours times opacity, N,4,H,W levels, rounded as Pillow does."""
    opacity = x[:, 3:]
    return torch.cat([(x[:, :3] * opacity / 255 + 0.5).floor(), opacity], 1)


def separated(x: Tensor) -> Tensor:
    """The inverse of `multiplied`, cut to whole levels as Pillow does."""
    opacity = x[:, 3:]
    colours = (255 * x[:, :3] / opacity.clamp(min=1)).floor().clamp(0, 255)
    return torch.cat([torch.where((opacity == 0) | (opacity == 255), x[:, :3], colours), opacity], 1)


def _half(room: Tensor) -> Tensor:
    return torch.div(room, 2, rounding_mode="floor")


def _half_even(excess: Tensor) -> Tensor:
    """Python's round(excess / 2) in whole numbers: 1 -> 0, 3 -> 2, 5 -> 2."""
    half = _half(excess)
    return half + (excess % 2) * (half % 2)
