"""The random changes of the training images of a classifier.

    image -> random geometry, flips, RandAugment, colour jitter -> normalised C,H,W float32 -> random erasing

With every setting of `Augment` off, a training image equals what `Preprocess` makes of it. All randomness comes from the global
generators of `random`, numpy and torch, which the loader seeds for every example.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from convmix.config import Augment, Size
from convmix.data import geometry
from convmix.data.decode import Image, decode
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError


@dataclass(frozen=True)
class TrainTransform:
    """What `training_transform` returns: image -> C,H,W float32, at random; picklable for worker processes."""

    preprocess: Preprocess
    augment: Augment
    picture_changes: tuple[Callable[[Any], Any], ...] = field(repr=False)  # image -> image, at the input size
    tensor_changes: tuple[Callable[[Any], Any], ...] = field(repr=False)  # normalised C,H,W -> the same

    @property
    def shape(self) -> tuple[int, int, int]:
        """C,H,W of the result."""
        return self.preprocess.shape

    def read(self, source: bytes | str | Path) -> Image:
        """Encoded bytes or a file -> the whole image; raises BadImage as `decode` does."""
        p = self.preprocess
        return decode(source, in_chans=p.in_chans, max_pixels=p.max_pixels, value_range=p.value_range)

    def __call__(self, image: Image) -> Tensor:
        """PIL image or H,W,C float32 -> C,H,W float32, normalised."""
        changed, _ = self.change(image, None)
        return changed if isinstance(changed, Tensor) else self.normalise(changed)

    def normalise(self, image: Image) -> Tensor:
        """As the preprocessing does."""
        return self.preprocess.normalise(image)

    def normalise_batch(self, pixels: Tensor) -> Tensor:
        """As the preprocessing does."""
        return self.preprocess.normalise_batch(pixels)

    def kept_sizes(self, sizes: np.ndarray) -> np.ndarray:
        """Whole images."""
        return sizes

    def change(self, image: Image, annotation: Any) -> tuple[Image | Tensor, Any]:
        """The image at the input size, or C,H,W float32 where something is done to normalised pixels; its class stays."""
        return self._change(image), annotation

    def _change(self, image: Image) -> Image | Tensor:
        image = self._place(image)
        if self.augment.hflip and random.random() < self.augment.hflip:
            image = geometry.flip(image, vertical=False)
        if self.augment.vflip and random.random() < self.augment.vflip:
            image = geometry.flip(image, vertical=True)
        for change in self.picture_changes:
            image = change(image)
        if not self.tensor_changes:
            return image
        x = self.preprocess.normalise(image)
        for change in self.tensor_changes:
            x = change(x)
        return x

    def _place(self, image: Image) -> Image:
        """crop: a random part covers the input. letterbox: the whole image at a random scale and place. stretch: a random part
        of the image's own aspect, resized to the input."""
        p, a = self.preprocess, self.augment
        resampling = random.choice(("bilinear", "bicubic")) if a.random_interpolation else p.interpolation
        resized_crop = a.scale != (1.0, 1.0)
        if p.fit == "letterbox":
            return self._place_inside(image, resampling)
        if resized_crop:
            height, width = geometry.size_of(image)
            aspect = p.size[1] / p.size[0] if p.fit == "crop" else width / height
            box = geometry.random_box((height, width), aspect=aspect, scale=a.scale, ratio=a.ratio)
            image = geometry.resize(geometry.crop(image, box), p.size, resampling)
        else:
            laid = p.covering(image) if p.fit == "crop" else p.size
            if not a.pad:
                return geometry.resize_and_crop(image, laid, geometry.centre_box(laid, p.size), resampling)
            top, left = (random.randint(-a.pad, whole + a.pad - length) for whole, length in zip(laid, p.size, strict=True))
            return self._pad(image, laid, (top, left), resampling)
        if not a.pad:
            return image
        return self._pad(image, p.size, (random.randint(-a.pad, a.pad), random.randint(-a.pad, a.pad)), resampling)

    def _pad(self, image: Image, laid: Size, at: tuple[int, int], resampling: str) -> Image:
        """What the input shows of the image, resized to `laid` and set into its mean, from `at` on: top and left, which may be negative."""
        size, fill = self.preprocess.size, self.preprocess.mean
        first = [max(start, 0) for start in at]
        height, width = (min(start + n, whole) - max(start, 0) for start, n, whole in zip(at, size, laid, strict=True))
        if min(height, width) < 1:  # a pad wider than the input
            return geometry.paste(geometry.crop(image, (0, 0, 1, 1)), size, top=size[0], left=size[1], fill=fill)
        seen = geometry.resize_and_crop(image, laid, (first[0], first[1], height, width), resampling)
        return geometry.paste(seen, size, top=first[0] - at[0], left=first[1] - at[1], fill=fill)

    def _place_inside(self, image: Image, resampling: str) -> Image:
        p, a = self.preprocess, self.augment
        height, width = geometry.size_of(image)
        if a.scale != (1.0, 1.0):
            stretch = math.sqrt(math.exp(random.uniform(math.log(a.ratio[0]), math.log(a.ratio[1]))))
            scale = min(p.size[0] * stretch / height, p.size[1] / stretch / width) * math.sqrt(random.uniform(*a.scale))
            height = min(max(round(height * scale / stretch), 1), p.size[0])
            width = min(max(round(width * scale * stretch), 1), p.size[1])
        else:
            height, width = geometry.fitting_size((height, width), p.size)
        free_h, free_w = p.size[0] - height, p.size[1] - width
        if a.scale != (1.0, 1.0):
            top, left = random.randint(0, free_h), random.randint(0, free_w)
        else:
            top = min(max(free_h // 2 + random.randint(-a.pad, a.pad), 0), free_h)
            left = min(max(free_w // 2 + random.randint(-a.pad, a.pad), 0), free_w)
        return geometry.paste(geometry.resize(image, (height, width), resampling), p.size, top=top, left=left, fill=p.mean)


def training_transform(preprocess: Preprocess, augment: Augment) -> TrainTransform:
    """The random changes that `augment` names, in timm's order, ending in `preprocess`'s normalisation.

    `augment.ratio` is relative to the input's own aspect. Colour jitter changes brightness, contrast and (pictures only) saturation;
    arrays with other channel counts get the first two. RandAugment is defined for RGB.
    Raises ConfigError for RandAugment with another channel count or with a string that timm does not know.
    """
    low, high = augment.ratio
    if not 0 < low <= high:
        raise ConfigError(f"augment.ratio: {low},{high} is not a range of positive numbers, smaller first")
    picture: list[Callable[[Any], Any]] = []
    if augment.randaugment:
        from convmix.data.augment.randaugment import rand_augment

        if preprocess.in_chans != 3:
            raise ConfigError(
                f"augment.randaugment: {augment.randaugment!r} needs RGB images, these have {preprocess.in_chans} channels; "
                'set randaugment to ""'
            )
        interpolation = None if augment.random_interpolation else preprocess.interpolation
        picture.append(rand_augment(augment.randaugment, size=preprocess.size, mean=preprocess.mean, interpolation=interpolation))
    if augment.color_jitter:
        picture.append(ColorJitter(augment.color_jitter))
    tensor: list[Callable[[Any], Any]] = []
    if augment.erasing:
        from timm.data.random_erasing import RandomErasing

        tensor.append(RandomErasing(augment.erasing, mode=augment.erasing_mode, device="cpu"))
    return TrainTransform(preprocess, augment, tuple(picture), tuple(tensor))


class ColorJitter:
    """Brightness, contrast and (pictures only) saturation times a random factor in 1 - strength .. 1 + strength."""

    def __init__(self, strength: float) -> None:
        from torchvision.transforms import ColorJitter as PictureJitter

        self.low, self.high = max(0.0, 1 - strength), 1 + strength
        self.picture = PictureJitter(strength, strength, strength)

    def __call__(self, image: Image) -> Image:
        if not isinstance(image, np.ndarray):
            changed: PIL.Image.Image = self.picture(image)
            return changed
        brightness, contrast = (np.float32(random.uniform(self.low, self.high)) for _ in range(2))
        mean = image.mean(axis=(0, 1), dtype=np.float32)  # C
        return (mean + (image - mean) * contrast) * brightness
