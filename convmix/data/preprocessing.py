"""The one preprocessing that travels with a model.

source -> decode -> image -> geometry (crop | letterbox | stretch) -> normalised C,H,W float32
loaders:   read .................. change .........................  normalise: 8-bit pictures a batch at a time
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from convmix.config import Size
from convmix.data import geometry
from convmix.data.decode import BadImage, Image, decode, fits_in_memory
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
    value_range: tuple[float, float] | None = None  # of 16-bit images, what is scaled to the range of a picture; None: 0 to 65535

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
        if self.value_range is not None and not 0 <= self.value_range[0] < self.value_range[1] <= 65535:
            raise ConfigError(f"data.value_range: {self.value_range} is not a range inside 0..65535, darkest first")

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
        with fits_in_memory():
            return self.place(decode(source, in_chans=self.in_chans, max_pixels=self.max_pixels, value_range=self.value_range))

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
            laid = self.covering(image)
            return geometry.resize_and_crop(image, laid, geometry.centre_box(laid, self.size), self.interpolation)
        height, width = geometry.fitting_size(geometry.size_of(image), self.size)
        image = geometry.resize(image, (height, width), self.interpolation)
        return geometry.paste(image, self.size, top=(self.size[0] - height) // 2, left=(self.size[1] - width) // 2, fill=self.mean)

    def covering(self, image: Image) -> Size:
        """Height and width to which the image is resized for the centre crop."""
        return geometry.covering_size(geometry.size_of(image), self.size, self.crop_pct)

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
        values = {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}
        return values if self.value_range else {name: v for name, v in values.items() if name != "value_range"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`; a missing or unknown key is a ConfigError."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown preprocessing setting {key}{did_you_mean(key, known)}")
        if missing := [name for name in known if name not in values and name != "value_range"]:
            raise ConfigError(f"preprocessing without {', '.join(missing)}")
        try:
            numbers = {name: tuple(float(v) for v in values[name]) for name in ("mean", "std")}
            size = tuple(int(v) for v in values["size"])
            whole = {name: int(values[name]) for name in ("in_chans", "max_pixels")}
            low_high = values.get("value_range")
            span = {"value_range": (float(low_high[0]), float(low_high[1])) if low_high else None}
            return cls(**{**values, **numbers, **whole, **span, "size": size, "crop_pct": float(values["crop_pct"])})
        except (TypeError, ValueError, OverflowError, LookupError) as e:
            raise ConfigError(f"preprocessing: {e}") from None
