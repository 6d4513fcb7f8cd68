"""Images with boxes, masks or class maps, brought to the model's input: exactly for evaluation, at random for training.

    image, annotation  --  DensePreprocess  -->  image at the input size, Truth(annotation, placement)
    image, Objects     --  DenseTransform   -->  image at the input size, InstanceTargets
    image, Regions     --  DenseTransform   -->  image at the input size, h,w uint8 classes, IGNORE beside the image

Both keep whole images in memory, since an annotation says something of the whole. With every setting of `Augment` off a training image
equals what `DensePreprocess` makes of it. All randomness comes from the global generators of `random` and torch.
"""

import math
import random
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convmix.config import Augment, Size
from convmix.data import geometry
from convmix.data.augment.training_transform import ColorJitter
from convmix.data.decode import BadImage, Image, decode
from convmix.data.geometric_transform import GeometricTransform, move_objects
from convmix.data.placement import Placement
from convmix.data.preprocessing import Preprocess
from convmix.data.readers.pixelmaps import read_regions
from convmix.data.targets import IGNORE, InstanceTargets, Objects, Regions, Truth
from convmix.errors import ConfigError

DRAWS = 10  # of a crop, before one class may cover more than `max_class_share` of it; mmsegmentation's number


def placement(preprocess: Preprocess, size: Size) -> Placement:
    """Where `preprocess.place` puts an image of this size."""
    laid = _laid_size(preprocess, size)
    top, left = ((room - length) // 2 for room, length in zip(preprocess.size, laid, strict=True))
    if preprocess.fit == "crop":
        top, left = (-at for at in geometry.centre_box(laid, preprocess.size)[:2])
    return _placed(preprocess, size, laid, (top, left))


def check_augment(augment: Augment) -> None:
    """ConfigError for a setting that has no meaning for images with boxes or class maps."""
    instead = {
        "scale": "augment.zoom scales and moves these images", "ratio": "augment.zoom scales these images, their aspect is kept",
        "pad": "augment.zoom moves these images", "randaugment": "augment.zoom and augment.color_jitter change these images",
        "erasing": "augment.zoom cuts these images", "mixup": "these images cannot be mixed; augment.zoom varies them",
        "cutmix": "these images cannot be mixed; augment.zoom varies them",
    }  # fmt: skip
    off = Augment()
    for name, advice in instead.items():
        value = getattr(augment, name)
        if value != getattr(off, name):
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
            raise ConfigError(f"augment.{name}: {text} is for classification; {advice}")


@dataclass(frozen=True)
class _WholeImages:
    """What evaluation and training share: images decoded whole, normalised as the model's preprocessing does."""

    preprocess: Preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        """C,H,W of the model's input."""
        return self.preprocess.shape

    def read(self, source: bytes | str | Path) -> Image:
        """Encoded bytes or a file -> the whole upright image; raises BadImage as `decode` does."""
        return decode(
            source, in_chans=self.preprocess.in_chans, max_pixels=self.preprocess.max_pixels, value_range=self.preprocess.value_range
        )

    def kept_sizes(self, sizes: np.ndarray) -> np.ndarray:
        """n,2 heights and widths of images: `read` leaves them as they are."""
        return sizes

    def normalise(self, image: Image) -> Tensor:
        """As the preprocessing does."""
        return self.preprocess.normalise(image)

    def normalise_batch(self, pixels: Tensor) -> Tensor:
        """As the preprocessing does."""
        return self.preprocess.normalise_batch(pixels)


@dataclass(frozen=True)
class DensePreprocess(_WholeImages):
    """Evaluation and prediction: no chance, and the way back to the image's own pixels."""

    def change(self, image: Image, annotation: Objects | Regions | None) -> tuple[Image, Truth]:
        """The image at the input size, and what is to be scored; BadImage for an annotation of an image of another size."""
        known = fit_to(annotation, geometry.size_of(image))
        return self.preprocess.place(image), Truth(known, placement(self.preprocess, geometry.size_of(image)))


@dataclass(frozen=True)
class DenseTransform(_WholeImages):
    """Training: the image at a random scale and place, perhaps turned over and recoloured, and its annotation moved along.

    zoom 1 is the image as it is evaluated; where a zoomed one is larger than the input a random window is taken, where it is smaller it
    lies at a random place, the rest filled with `mean`. ConfigError for settings that are for classification alone.
    """

    augment: Augment
    masks: bool  # whether objects are learned with their masks

    def __post_init__(self) -> None:
        check_augment(self.augment)

    def change(self, image: Image, annotation: Objects | Regions) -> tuple[Image, InstanceTargets | Tensor]:
        """The image at the input size, and InstanceTargets or h,w uint8 classes; BadImage for an annotation that does not fit the image."""
        known = fit_to(annotation, geometry.size_of(image))
        classes = known if isinstance(known, np.ndarray) else None
        motion = self._motion(geometry.size_of(image), classes)
        image = motion.flip(self._recoloured(self._laid(image, motion), motion.placement))
        if isinstance(known, Objects):
            return image, move_objects(known, motion, masks=self.masks)
        assert classes is not None
        return image, torch.from_numpy(motion.class_map(classes, outside=IGNORE))

    def _motion(self, size: Size, classes: np.ndarray | None) -> GeometricTransform:
        """Zoom, place and flips, drawn; the place again where one class covers too much of it."""
        a, p = self.augment, self.preprocess
        hflip, vflip = random.random() < a.hflip, random.random() < a.vflip
        if not self._zooms:
            return GeometricTransform(placement(p, size), hflip, vflip)
        zoom = math.exp(random.uniform(math.log(a.zoom[0]), math.log(a.zoom[1])))
        laid_h, laid_w = (max(round(length * zoom), 1) for length in _laid_size(p, size))
        for _ in range(DRAWS):
            top, left = _random_offset(p.size[0] - laid_h), _random_offset(p.size[1] - laid_w)
            motion = GeometricTransform(_placed(p, size, (laid_h, laid_w), (top, left)), hflip, vflip)
            if classes is None or a.max_class_share == 1 or self._is_varied(motion.class_map(classes, outside=IGNORE)):
                break
        return motion

    def _is_varied(self, classes: np.ndarray) -> bool:
        """Whether some pixels have a class, h,w uint8, and no class has more than `max_class_share` of them."""
        counts = np.bincount(classes[classes != IGNORE])
        return bool(counts.any() and counts.max() <= self.augment.max_class_share * counts.sum())

    def _laid(self, image: Image, motion: GeometricTransform) -> Image:
        p = self.preprocess
        if self.augment.random_interpolation:
            p = replace(p, interpolation=random.choice(("bilinear", "bicubic")))
        return motion.lay(image, interpolation=p.interpolation, fill=p.mean) if self._zooms else p.place(image)

    def _recoloured(self, image: Image, where: Placement) -> Image:
        """Colours changed where the input shows the image; around it stays the mean, as in evaluation."""
        if not self.augment.color_jitter:
            return image
        top, left, height, width = where.shown
        seen = self._jitter(geometry.crop(image, (top, left, height, width)))
        return geometry.paste(seen, where.input_size, top=top, left=left, fill=self.preprocess.mean)

    @property
    def _zooms(self) -> bool:
        return self.augment.zoom != (1.0, 1.0)

    @cached_property
    def _jitter(self) -> ColorJitter:
        return ColorJitter(self.augment.color_jitter)


def _laid_size(preprocess: Preprocess, size: Size) -> Size:
    """How large `preprocess.place` makes the whole image, of which `crop` then takes the middle."""
    if preprocess.fit == "crop":
        return geometry.covering_size(size, preprocess.size, preprocess.crop_pct)
    return geometry.fitting_size(size, preprocess.size) if preprocess.fit == "letterbox" else preprocess.size


def _random_offset(room: int) -> int:
    """Where the image begins: inside the room that it leaves, or before the input where there is too little."""
    return random.randint(min(room, 0), max(room, 0))


def _placed(preprocess: Preprocess, size: Size, laid: Size, offset: tuple[int, int]) -> Placement:
    return Placement(size, preprocess.size, (laid[0] / size[0], laid[1] / size[1]), offset)


def fit_to(annotation: Objects | Regions | None, size: Size) -> Objects | np.ndarray | None:
    """What is annotated, class maps read, H,W uint8; BadImage where it is not of an image of this size."""
    if isinstance(annotation, Objects) and annotation.size != size:
        raise BadImage(f"annotated for {_text(annotation.size)}, the image is {_text(size)}")
    if not isinstance(annotation, Regions):
        return annotation
    classes = read_regions(annotation)
    if classes.shape != size:
        raise BadImage(f"the mask is {_text(classes.shape)}, the image {_text(size)}")
    return classes


def _text(size: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in size)
