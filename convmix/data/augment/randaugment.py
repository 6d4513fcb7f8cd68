"""RandAugment as recipes name it: timm's (rand-m9-mstd0.5-inc1) or torchvision's (torchvision-n2-m12), for 8-bit RGB pictures.

image H,W -> some operations drawn at random, of a strength drawn at random -> image H,W
Cubuk et al. 2019, arXiv 1909.13719.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torchvision.transforms
from torch import Tensor

from convmix.data.decode import BadImage, Image
from convmix.errors import ConfigError

_PART = re.compile(r"m\d+|n[1-9]\d*|p(0(\.\d+)?|1(\.0+)?|\.\d+)|mstd(\d+(\.\d+)?|inf)|mmax[1-9]\d*|inc[01]|t(weights|3aw|3a)")
_TORCHVISION = re.compile(r"torchvision-n([1-9]\d*)-m(\d+)")
_TORCHVISION_BINS = 31


@dataclass(frozen=True)
class RandAugment:
    """RandAugment, for 8-bit RGB; an array is brought there first, so its values must lie in 0..1."""

    change: Callable[[Any], Any]

    def __call__(self, image: Image) -> Image:
        if isinstance(image, np.ndarray):
            if image.min() < 0 or image.max() > 1:
                raise BadImage("values outside 0..1 cannot take RandAugment")
            image = PIL.Image.fromarray(np.rint(image * 255).astype(np.uint8))
        result: Image = self.change(image)
        return result


def rand_augment(text: str, *, size: tuple[int, int], mean: Sequence[float], interpolation: str | None) -> RandAugment:
    """The RandAugment that `text` names, for pictures of `size` (height, width).

    mean: per channel, of pixels in 0..1; timm fills what a move uncovers with it. interpolation None: drawn at random.
    Raises ConfigError for a string that neither library knows.
    """
    if match := _TORCHVISION.fullmatch(text):
        return RandAugment(_torchvision(text, num_ops=int(match[1]), magnitude=int(match[2])))
    return RandAugment(_timm(text, size=size, mean=mean, interpolation=interpolation))


def _timm(text: str, *, size: tuple[int, int], mean: Sequence[float], interpolation: str | None) -> Callable[[Any], Any]:
    """timm's, with the constants of `timm.data.create_transform`."""
    from timm.data.auto_augment import rand_augment_transform

    head, *parts = text.split("-")
    wrong = [part for part in parts if not _PART.fullmatch(part)]  # timm would pass over some of them in silence
    if head != "rand" or wrong:
        raise ConfigError(
            f"augment.randaugment: {wrong[0] if head == 'rand' else head!r} in {text!r}; "
            "expected a form like rand-m9-mstd0.5-inc1 or torchvision-n2-m12"
        )
    constants: dict[str, Any] = {
        "translate_const": int(min(size) * 0.45),
        "img_mean": tuple(min(255, round(255 * m)) for m in mean),
    }
    if interpolation is not None:
        constants["interpolation"] = PIL.Image.Resampling[interpolation.upper()]
    transform = rand_augment_transform(text.replace("mstdinf", "mstd1000"), constants)
    for op in transform.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize
    return transform


def _posterize(image: PIL.Image.Image, bits: int, **_: object) -> PIL.Image.Image:
    """At extreme magnitudes timm asks for no bits at all: black until Pillow 12, an error since Pillow 13. One bit stays."""
    return PIL.ImageOps.posterize(image, max(bits, 1)) if bits < 8 else image


class _Torchvision(torchvision.transforms.RandAugment):
    """The same draws and the same pictures. Torchvision makes its table of magnitudes anew for every image, which takes longer than
    changing a small one; here it is made once for each image size."""

    def __init__(self, *, num_ops: int, magnitude: int) -> None:
        super().__init__(num_ops=num_ops, magnitude=magnitude, num_magnitude_bins=_TORCHVISION_BINS)
        self._tables: dict[tuple[int, int], dict[str, tuple[Tensor, bool]]] = {}

    def _augmentation_space(self, num_bins: int, image_size: tuple[int, int]) -> dict[str, tuple[Tensor, bool]]:
        if image_size not in self._tables:
            self._tables[image_size] = super()._augmentation_space(num_bins, image_size)
        return self._tables[image_size]


def _torchvision(text: str, *, num_ops: int, magnitude: int) -> Callable[[Any], Any]:
    """torchvision's, which the CIFAR-10 recipe was made with."""
    if magnitude >= _TORCHVISION_BINS:
        raise ConfigError(
            f"augment.randaugment: m{magnitude} in {text!r} is too large, torchvision's magnitudes are 0..{_TORCHVISION_BINS - 1}"
        )
    return _Torchvision(num_ops=num_ops, magnitude=magnitude)
