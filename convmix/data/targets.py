"""What is known about an image beside its pixels, in the forms that it takes on its way.

as annotated: int (a class) | k labels | Objects | Regions    what a data set holds, in pixels of the upright image
to learn from: int | k labels | InstanceTargets | H,W classes       moved with the image to the model's input
to be scored against: int | k labels | Truth                  as annotated, with the way from the input back to the image
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convmix.config import Size
from convmix.data.placement import Placement

IGNORE = 255  # the class of pixels that are neither learned from nor scored
UNKNOWN = -1  # in place of a class: a value that a class map must not hold; in place of 0 or 1: nobody said if an image has the label


@dataclass(frozen=True)
class Objects:
    """The n objects of one image, in pixels of the upright image."""

    size: Size  # height, width of the image
    boxes: np.ndarray  # n,4 float32: left, top, right, bottom, inside the image and of positive area
    labels: np.ndarray  # n int64, indices of the classes
    crowd: np.ndarray  # n bool: a crowd or a difficult object, neither learned from nor scored
    masks: tuple[bytes, ...] | None = None  # n COCO RLE counts (compressed) over `size`; None: only boxes are known

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Regions:
    """A class for every pixel: the image file that holds it, and what its values mean."""

    path: str  # absolute
    classes: tuple[int, ...]  # 256: value in the file -> class, IGNORE for what is not scored, UNKNOWN for what has no meaning
    palette: tuple[tuple[int, int, int], ...] | None = None  # files of RGB colours: the colour of value 0, 1, ...


Annotation = int | Tensor | Objects | Regions  # a tensor: k int8, per label 1, 0 or UNKNOWN


@dataclass(frozen=True)
class InstanceTargets:
    """The n objects of one training image, in pixels of the model's input."""

    boxes: Tensor  # n,4 float32 xyxy
    labels: Tensor  # n int64
    masks: Tensor | None = None  # n,H,W uint8, 0 or 1; None where only boxes are learned

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "InstanceTargets":
        masks = None if self.masks is None else self.masks.to(device, non_blocking=non_blocking)
        return InstanceTargets(self.boxes.to(device, non_blocking=non_blocking), self.labels.to(device, non_blocking=non_blocking), masks)


@dataclass(frozen=True)
class Truth:
    """One image to be scored: what it holds, and where it lies on the model's input."""

    annotation: Objects | np.ndarray | None  # H,W uint8 classes for regions; None: not known, as for images to predict
    placement: Placement

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Truth":
        """Itself: it is scored on the CPU."""
        return self


class PerImage(tuple[Any, ...]):
    """Targets of a batch that differ in size from image to image, with what the training loop asks of a tensor of targets."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PerImage":
        return PerImage(target.to(device, non_blocking=non_blocking) for target in self)

    def chunk(self, parts: int) -> tuple["PerImage", ...]:
        """As many and as large parts as torch.chunk makes of as many rows."""
        size = -(-len(self) // parts)
        return tuple(PerImage(self[i : i + size]) for i in range(0, len(self), size))


Targets = Tensor | PerImage  # n: classes (n int64), labels (n,k int8), class maps (n,H,W uint8), or one object per image


def as_batch(targets: Sequence[Any]) -> Targets:
    """Classes as n int64, labels as n,k, class maps of one size as n,H,W, anything else image by image."""
    if not targets or isinstance(targets[0], (int, np.integer)):
        return torch.tensor([int(t) for t in targets], dtype=torch.int64)
    if all(isinstance(t, Tensor) and t.shape == targets[0].shape for t in targets):
        return torch.stack(list(targets))
    return PerImage(targets)
