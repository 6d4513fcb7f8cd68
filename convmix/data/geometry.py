"""Sizes and moves shared by evaluation and augmentation, for PIL images and for H,W,C arrays alike.

Sizes are (height, width) in pixels everywhere; a box is (top, left, height, width).
"""

import math
import random
from collections.abc import Sequence

import numpy as np
import PIL.Image

from convmix.config import Size
from convmix.data.decode import Image

Box = tuple[int, int, int, int]

_RESAMPLING = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}
INTERPOLATIONS = tuple(_RESAMPLING)
_LARGEST_WHOLE = 2**24  # pixels that are enlarged before most of them are cut off


def size_of(image: Image) -> Size:
    """Height and width."""
    return (image.shape[0], image.shape[1]) if isinstance(image, np.ndarray) else (image.height, image.width)


def resize(image: Image, size: Size, interpolation: str) -> Image:
    """The image at exactly `size`, antialiased when it shrinks."""
    if size_of(image) == size:
        return image
    if not isinstance(image, np.ndarray):
        return image.resize((size[1], size[0]), _RESAMPLING[interpolation])
    import torch
    from torch.nn.functional import interpolate

    x_bchw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    if interpolation == "nearest":
        x_bchw = interpolate(x_bchw, size, mode="nearest-exact")
    else:
        x_bchw = interpolate(x_bchw, size, mode=interpolation, antialias=True, align_corners=False)
    return x_bchw[0].numpy().transpose(1, 2, 0)


def resize_and_crop(image: Image, size: Size, part: Box, interpolation: str) -> Image:
    """What `crop` leaves of the image at `size`, exactly; of a very long or thin one, whose whole would fill the memory, as `resize_part`.

    A picture of 20000x1 pixels whose short side is to become 224 has a billion of them, of which a crop keeps 224x224.
    """
    if math.prod(size) > max(_LARGEST_WHOLE, math.prod(size_of(image))):
        return resize_part(image, size, part, interpolation)
    return crop(resize(image, size, interpolation), part)


def resize_part(image: Image, size: Size, part: Box, interpolation: str) -> Image:
    """What `crop` leaves of the image at `size`; the rest of a picture is not computed.

    Pillow may then resample rows and columns in the other order, so 8-bit values can differ by 1, more where bicubic overshoots 0..255.
    """
    top, left, height, width = part
    whole_h, whole_w = size_of(image)
    is_array = isinstance(image, np.ndarray)
    if (height, width) == size or (is_array and math.prod(size) <= max(_LARGEST_WHOLE, whole_h * whole_w)):
        return crop(resize(image, size, interpolation), part)
    y, x = whole_h / size[0], whole_w / size[1]  # image pixels per pixel of the result
    box = (left * x, top * y, min((left + width) * x, whole_w), min((top + height) * y, whole_h))
    if not isinstance(image, np.ndarray):
        return image.resize((width, height), _RESAMPLING[interpolation], box=box)
    planes = [PIL.Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]  # torch resizes no part
    return np.stack([np.asarray(plane.resize((width, height), _RESAMPLING[interpolation], box=box)) for plane in planes], 2)


def crop(image: Image, box: Box) -> Image:
    """The part of the image inside `box`, which must lie within it."""
    top, left, height, width = box
    if (height, width) == size_of(image):
        return image
    if isinstance(image, np.ndarray):
        return image[top : top + height, left : left + width]
    return image.crop((left, top, left + width, top + height))


def paste(image: Image, size: Size, *, top: int, left: int, fill: Sequence[float]) -> Image:
    """The image on a canvas of `size` filled with `fill` (per channel, of pixels in 0..1)."""
    if size == size_of(image):
        return image
    if isinstance(image, np.ndarray):
        canvas_hwc = np.empty((*size, image.shape[2]), np.float32)
        canvas_hwc[:] = np.asarray(fill, np.float32)
        room = canvas_hwc[top : top + image.shape[0], left : left + image.shape[1]]
        room[:] = image[: room.shape[0], : room.shape[1]]
        return canvas_hwc
    levels = tuple(min(max(round(255 * v), 0), 255) for v in fill)
    canvas = PIL.Image.new(image.mode, (size[1], size[0]), levels if len(levels) > 1 else levels[0])
    canvas.paste(image, (left, top))
    return canvas


def flip(image: Image, *, vertical: bool) -> Image:
    """Upside down, or left to right."""
    if isinstance(image, np.ndarray):
        return image[::-1] if vertical else image[:, ::-1]
    return image.transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM if vertical else PIL.Image.Transpose.FLIP_LEFT_RIGHT)


def covering_size(image: Size, size: Size, crop_pct: float) -> Size:
    """The size, aspect kept, at which the image just covers `size` / `crop_pct`; rounded as timm's evaluation does."""
    target_h, target_w = math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)
    height, width = image
    if target_h == target_w:
        short = target_h
        return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    shrink = min(height / target_h, width / target_w)
    return max(round(height / shrink), target_h), max(round(width / shrink), target_w)


def fitting_size(image: Size, size: Size) -> Size:
    """The size, aspect kept, at which the image just fits inside `size`."""
    scale = min(size[0] / image[0], size[1] / image[1])
    return min(max(round(image[0] * scale), 1), size[0]), min(max(round(image[1] * scale), 1), size[1])


def centre_box(image: Size, size: Size) -> Box:
    """The middle `size` of an image at least as large."""
    return round((image[0] - size[0]) / 2), round((image[1] - size[1]) / 2), *size


def random_box(image: Size, *, aspect: float, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """A random part of the image: `scale` of its area, `aspect` (width / height) times a random `ratio`.

    Ten tries as in timm and torchvision, then the largest central box of the nearest aspect. Draws from Python's `random`.
    """
    height, width = image
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = random.uniform(*scale) * height * width
        drawn = aspect * math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    nearest = min(max(width / height, aspect * ratio[0]), aspect * ratio[1])
    h, w = min(height, max(round(width / nearest), 1)), min(width, max(round(height * nearest), 1))
    return centre_box(image, (h, w))
