"""The one preprocessing that travels with a model, and the random changes of the training images.

    source -> decode -> image -> geometry (crop | letterbox | stretch) -> normalised C,H,W float32
    training:                 -> random geometry, flips, RandAugment, colour jitter -> normalised -> random erasing
    loaders:   read .................. change ......................................  normalise: 8-bit pictures a batch at a time

With every setting of `Augment` off, a training image equals what `Preprocess` makes of it. All randomness comes from the global
generators of `random`, numpy and torch, which the loader seeds for every example.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from convmix.config import Augment, Size
from convmix.data import geometry
from convmix.data.decode import BadImage, Image, decode
from convmix.errors import ConfigError, did_you_mean

FITS = ("crop", "letterbox", "stretch")


class Loads(Protocol):
    """What the loaders ask of a preprocessing, in the order in which they ask it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C,H,W of the model's input."""
        ...

    def read(self, source: bytes | str | Path) -> Image:
        """The part that is the same every time, whose result may be kept. Raises BadImage as `decode` does."""
        ...

    def kept_sizes(self, sizes: np.ndarray) -> np.ndarray:
        """n,2 heights and widths of images -> those of what `read` makes of them."""
        ...

    def change(self, image: Image, annotation: Any) -> tuple[Image | Tensor, Any]:
        """The part that may be random: an image at the input size, or C,H,W float32 where that is normalised already; and what is
        known of it, moved along. Raises BadImage for an annotation that does not fit the image."""
        ...

    def normalise(self, image: Image) -> Tensor:
        """An image at the input size -> C,H,W float32."""
        ...

    def normalise_batch(self, pixels: Tensor) -> Tensor:
        """N,H,W,C uint8 -> N,C,H,W float32, the same numbers."""
        ...


@dataclass(frozen=True)
class Preprocess:
    """Image -> model input, without chance: what a model was evaluated with and is used with.

    crop: short side to size / crop_pct, then the centre (timm's evaluation; a rectangular size is covered).
    letterbox: the whole image fitted inside, the rest filled with `mean`. stretch: resized to `size`, aspect ignored.
    Raises ConfigError for values that do not fit together.
    """

    size: Size  # height, width
    fit: Literal["crop", "letterbox", "stretch"]
    interpolation: Literal["bicubic", "bilinear", "nearest"]
    crop_pct: float  # used by crop alone
    mean: tuple[float, ...]  # per channel, of pixels in 0..1
    std: tuple[float, ...]
    in_chans: int = 3
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        for name, choices in (("fit", FITS), ("interpolation", geometry.INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"data.{name}: {value!r} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ConfigError(f"data.size: {self.size} is not a positive height and width")
        if not 0 < self.crop_pct <= 1:
            raise ConfigError(f"data.crop_pct: {self.crop_pct} is outside 0..1")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.in_chans:
                raise ConfigError(f"data.{name}: {len(values)} values for {self.in_chans} channels; give one per channel")
            if not all(math.isfinite(v) for v in values):
                raise ConfigError(f"data.{name}: {values} holds a value that is not finite")
        if min(self.std) <= 0:
            raise ConfigError(f"data.std: {self.std} must be positive")

    @property
    def shape(self) -> tuple[int, int, int]:
        """C,H,W of the model's input."""
        return self.in_chans, *self.size

    def __call__(self, image: Image) -> Tensor:
        """PIL image or H,W,C float32 -> C,H,W float32, normalised."""
        return self.normalise(self.place(image))

    def load(self, source: bytes | str | Path) -> Tensor:
        """Encoded bytes or a file -> C,H,W float32, normalised; raises BadImage as `decode` does."""
        return self.normalise(self.read(source))

    def read(self, source: bytes | str | Path) -> Image:
        """Encoded bytes or a file -> the image at the model's input size; raises BadImage as `decode` does."""
        return self.place(decode(source, in_chans=self.in_chans, max_pixels=self.max_pixels))

    def kept_sizes(self, sizes: np.ndarray) -> np.ndarray:
        """All at the input size."""
        return np.tile(self.size, (len(sizes), 1))

    def change(self, image: Image, annotation: Any) -> tuple[Image, Any]:
        """Evaluation changes nothing."""
        return image, annotation

    def place(self, image: Image) -> Image:
        """The image at the model's input size."""
        if self.fit == "stretch":
            return geometry.resize(image, self.size, self.interpolation)
        if self.fit == "crop":
            image = self.cover(image, self.interpolation)
            return geometry.crop(image, geometry.centre_box(geometry.size_of(image), self.size))
        height, width = geometry.fitting_size(geometry.size_of(image), self.size)
        image = geometry.resize(image, (height, width), self.interpolation)
        return geometry.paste(image, self.size, top=(self.size[0] - height) // 2, left=(self.size[1] - width) // 2, fill=self.mean)

    def cover(self, image: Image, interpolation: str) -> Image:
        """The image resized for the centre crop."""
        return geometry.resize(image, geometry.covering_size(geometry.size_of(image), self.size, self.crop_pct), interpolation)

    def normalise(self, image: Image) -> Tensor:
        """PIL image or H,W,C float32 -> C,H,W float32, `mean` and `std` applied."""
        pixels = np.array(image)
        x_hwc = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if x_hwc.shape[2] != self.in_chans:
            raise BadImage(f"{x_hwc.shape[2]} channels, expected {self.in_chans}")
        return self.normalise_batch(torch.from_numpy(x_hwc)[None])[0]

    def normalise_batch(self, pixels: Tensor) -> Tensor:
        """N,H,W,C uint8, or float32 in 0..1 -> N,C,H,W float32, `mean` and `std` applied, on the device of `pixels`."""
        levels = 255 if pixels.dtype == torch.uint8 else 1
        scale, shift = (torch.from_numpy(a).to(pixels.device) for a in self.affine(levels=levels))
        x_nchw = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return x_nchw.mul_(scale).add_(shift)

    def denormalise(self, x: Tensor) -> Tensor:
        """C,H,W or N,C,H,W model input -> uint8 of the same shape, for pictures."""
        scale, shift = (torch.from_numpy(a).to(x.device) for a in self.affine(levels=1))
        return ((x.detach().float() - shift) / scale * 255).round_().clamp_(0, 255).to(torch.uint8)

    def affine(self, *, levels: int) -> tuple[np.ndarray, np.ndarray]:
        """Normalisation as pixels * scale + shift, C,1,1 float32 each, of pixels in 0..levels."""
        scale, shift = self._affine
        return (scale if levels == 1 else scale / np.float32(levels)), shift

    @cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (self.mean, self.std))  # C,1,1
        return (1 / std).astype(np.float32), (-mean / std).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`; a missing or unknown key is a ConfigError."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown preprocessing setting {key}{did_you_mean(key, known)}")
        if missing := [name for name in known if name not in values]:
            raise ConfigError(f"preprocessing without {', '.join(missing)}")
        try:
            numbers = {name: tuple(float(v) for v in values[name]) for name in ("mean", "std")}
            size = tuple(int(v) for v in values["size"])
            whole = {name: int(values[name]) for name in ("in_chans", "max_pixels")}
            return cls(**{**values, **numbers, **whole, "size": size, "crop_pct": float(values["crop_pct"])})
        except (TypeError, ValueError) as e:
            raise ConfigError(f"preprocessing: {e}") from None


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
        return decode(source, in_chans=self.preprocess.in_chans, max_pixels=self.preprocess.max_pixels)

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
            image = p.cover(image, resampling) if p.fit == "crop" else geometry.resize(image, p.size, resampling)
        height, width = geometry.size_of(image)
        if not a.pad:
            return geometry.crop(image, geometry.centre_box((height, width), p.size))
        padded = (height + 2 * a.pad, width + 2 * a.pad)
        image = geometry.paste(image, padded, top=a.pad, left=a.pad, fill=p.mean)
        return geometry.crop(image, (random.randint(0, padded[0] - p.size[0]), random.randint(0, padded[1] - p.size[1]), *p.size))

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
        raise ConfigError(f"augment.ratio: {low},{high} is no range of positive numbers, smaller first")
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
