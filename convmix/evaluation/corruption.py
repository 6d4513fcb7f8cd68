"""The same images, damaged: how fast a run gets worse when pictures are blurred, noisy, over-compressed, dark, bright or on their side.

decoded image -> damage at one of three strengths -> the run's own preprocessing

The strengths lie in the range of ImageNet-C and CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), which also damage images at
the size at which a model looks at them: a larger image is reduced to it first, or a photo of 12 megapixels would hardly notice.
All chance comes from numpy's global generator, which the loader seeds for every image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from convmix.data import geometry
from convmix.data.decode import MODES, Image
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, did_you_mean

STRENGTHS = (1, 2, 3)
_TURNS = (PIL.Image.Transpose.ROTATE_90, PIL.Image.Transpose.ROTATE_180, PIL.Image.Transpose.ROTATE_270)


@dataclass(frozen=True)
class Corruption:
    """One kind of damage."""

    name: str
    amounts: tuple[float, float, float]  # by strength
    says: str  # what an amount means, with {} for it
    damage: Callable[[Image, float], Image]
    pictures_only: bool = False  # not defined for arrays of other channels
    moves: bool = False  # what is on the image lies elsewhere afterwards

    def means(self, strength: int) -> str:
        """What a strength is, in words."""
        return self.says.format(self.amounts[strength - 1]).replace("%", " %")


def blur(image: Image, amount: float) -> Image:
    """Gaussian, its standard deviation in roots of the shorter side: 32 and 224 pixels both come to what the benchmarks do."""
    height, width = geometry.size_of(image)
    sigma = amount * math.sqrt(min(height, width))
    radius = min(max(round(3 * sigma), 1), min(height, width) - 1)  # the border is mirrored, so a kernel must fit inside
    if radius < 1:
        return image
    from torchvision.transforms.v2 import functional as F

    return _on_pixels(image, lambda x: F.gaussian_blur(x, [2 * radius + 1, 2 * radius + 1], [sigma, sigma]))


def noise(image: Image, amount: float) -> Image:
    """Gaussian, independent for every pixel and channel, its standard deviation in shares of white."""
    return _on_pixels(image, lambda x: x + torch.from_numpy(np.random.normal(0, amount, tuple(x.shape)).astype(np.float32)))


def compress(image: Image, amount: float) -> Image:
    """JPEG at a quality; opacity is kept as it is."""
    if isinstance(image, np.ndarray):
        raise TypeError("JPEG holds pictures, not arrays")
    from torchvision.transforms.v2 import functional as F

    if image.mode == "RGBA":
        compressed: PIL.Image.Image = F.jpeg(image.convert("RGB"), int(amount)).convert("RGBA")
        compressed.putalpha(image.getchannel("A"))
        return compressed
    result: Image = F.jpeg(image.convert("RGB"), int(amount)).convert(image.mode)
    return result


def relight(image: Image, amount: float) -> Image:
    """Pixels times or divided by a factor, darker or brighter by chance."""
    factor = amount if np.random.random() < 0.5 else 1 / amount
    return _on_pixels(image, lambda x: x * factor)


def turn(image: Image, amount: float) -> Image:
    """A share of the images by 90, 180 or 270 degrees, as when the camera's orientation is lost."""
    # both are drawn whatever comes, so that a higher share turns the same images and more
    drawn, turns = np.random.random(), int(np.random.randint(len(_TURNS)))
    if drawn >= amount:
        return image
    return np.ascontiguousarray(np.rot90(image, turns + 1)) if isinstance(image, np.ndarray) else image.transpose(_TURNS[turns])


CORRUPTIONS = (
    Corruption("blur", (0.1, 0.2, 0.3), "standard deviation {} times the root of the shorter side in pixels", blur),
    Corruption("noise", (0.04, 0.08, 0.16), "standard deviation {:.0%} of white", noise),
    Corruption("JPEG", (50, 25, 10), "quality {}", compress, pictures_only=True),
    Corruption("brightness", (0.7, 0.5, 0.3), "times {} or divided by it", relight),
    Corruption("rotation", (0.25, 0.5, 1.0), "{:.0%} of the images by 90, 180 or 270 degrees", turn, moves=True),
)


@dataclass(frozen=True)
class Damaged(Preprocess):
    """A preprocessing with damage before it. Raises ConfigError for an unknown kind or strength."""

    name: str = ""
    strength: int = 1

    @classmethod
    def of(cls, preprocess: Preprocess, name: str, strength: int) -> "Damaged":
        """`preprocess` with damage before it."""
        return cls(**{f.name: getattr(preprocess, f.name) for f in fields(Preprocess)}, name=name, strength=strength)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [c.name for c in CORRUPTIONS]
        if self.name not in names:
            raise ConfigError(f"corruption: {self.name} is not one of {', '.join(names)}{did_you_mean(self.name, names)}")
        if self.strength not in STRENGTHS:
            raise ConfigError(f"strength: {self.strength} is not one of {', '.join(map(str, STRENGTHS))}")

    def place(self, image: Image) -> Image:
        """The damaged image at the model's input size."""
        corruption = next(c for c in CORRUPTIONS if c.name == self.name)
        return super().place(corruption.damage(self._as_looked_at(image), corruption.amounts[self.strength - 1]))

    def _as_looked_at(self, image: Image) -> Image:
        """Reduced to the size at which the model looks at it, aspect kept; a smaller one stays as it is."""
        size = geometry.size_of(image)
        if self.fit == "letterbox":
            looked_at = geometry.fitting_size(size, self.size)
        else:
            looked_at = geometry.covering_size(size, self.size, self.crop_pct if self.fit == "crop" else 1.0)
        return geometry.resize(image, looked_at, self.interpolation) if looked_at[0] < size[0] else image


def possible(preprocess: Preprocess, *, places: bool = False) -> list[Corruption]:
    """The kinds of damage that images of the run's channels can suffer; where answers are `places`, those that leave everything there."""
    return [c for c in CORRUPTIONS if (not c.pictures_only or preprocess.in_chans in MODES) and not (places and c.moves)]


def _on_pixels(image: Image, change: Callable[[Tensor], Tensor]) -> Image:
    """change(C,H,W float32, white being 1) on the colours of a picture, or on all channels of an array; the kind of image is kept."""
    with torch.autocast("cpu", enabled=False):  # without workers, images are loaded inside the model's own
        return _on_full_precision(image, change)


def _on_full_precision(image: Image, change: Callable[[Tensor], Tensor]) -> Image:
    if isinstance(image, np.ndarray):
        changed = change(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))  # H,W,C -> C,H,W
        return np.ascontiguousarray(changed.numpy().transpose(1, 2, 0))
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    pixels = np.array(image.convert("RGB") if alpha else image)
    x_chw = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).float() / 255  # H,W or H,W,C -> C,H,W
    levels = (change(x_chw).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    result = PIL.Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else np.ascontiguousarray(levels))
    if alpha:
        result.putalpha(alpha)
    return result
