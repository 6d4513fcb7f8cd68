"""One image's way to the model's input, the same for its pixels, its boxes, its masks and its class map.

    image, boxes, masks  --  laid: * scale + offset  --  turned over or not  -->  input

Pixels are resampled where they show, boxes are arithmetic, masks and class maps take the image pixel in which the centre of an input pixel
falls. torchvision's tv_tensors move whole masks step by step, and shrink them by a rule that is half a pixel off the images' own.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from convmix.config import Size
from convmix.data import geometry, rle
from convmix.data.decode import BadImage, Image
from convmix.data.placement import Placement
from convmix.data.targets import InstanceTargets, Objects

VISIBLE_SHARE = 0.1  # an object of which less of its area is left on the input is not learned: a rim tells little of what it is


@dataclass(frozen=True)
class GeometricTransform:
    """Where the image lies on the input, which is then mirrored left to right, upside down, or both."""

    placement: Placement
    hflip: bool = False
    vflip: bool = False

    def lay(self, image: Image, *, interpolation: str, fill: tuple[float, ...]) -> Image:
        """The image on an input of `fill` (per channel, of pixels in 0..1), not turned over yet."""
        where = self.placement
        top, left, height, width = where.shown
        part = (top - where.offset[0], left - where.offset[1], height, width)
        seen = geometry.resize_part(image, where.laid_size, part, interpolation)
        return geometry.paste(seen, where.input_size, top=top, left=left, fill=fill)

    def flip(self, image: Image) -> Image:
        """An image laid on the input, turned over."""
        if self.hflip:
            image = geometry.flip(image, vertical=False)
        return geometry.flip(image, vertical=True) if self.vflip else image

    def boxes(self, boxes: Tensor) -> Tensor:
        """n,4 xyxy on the image -> n,4 xyxy on the input, cut to it."""
        height, width = self.placement.input_size
        left, top, right, bottom = self.placement.boxes_to_input(boxes).unbind(1)
        if self.hflip:
            left, right = width - right, width - left
        if self.vflip:
            top, bottom = height - bottom, height - top
        return torch.stack([left, top, right, bottom], 1)

    def class_map(self, classes: np.ndarray, *, outside: int) -> np.ndarray:
        """H,W over the image -> h,w over the input, `outside` where the image is not."""
        moved = np.full(self.placement.input_size, outside, classes.dtype)
        self.draw(classes, moved)
        return moved

    def draw(self, part: np.ndarray, moved: np.ndarray, *, top: int = 0, left: int = 0) -> tuple[slice, slice]:
        """Copy what shows of a part of the image, H,W from `top`, `left` on, into `moved`, h,w over the input; rows and columns of
        the input that were written."""
        rows = _falling_into(top, top + part.shape[0], self._rows)
        columns = _falling_into(left, left + part.shape[1], self._columns)
        moved[rows, columns] = part[self._rows[rows] - top].take(self._columns[columns] - left, axis=1)
        return rows, columns

    @cached_property
    def _rows(self) -> np.ndarray:
        """The row of the image in which the centre of each row of the input falls, -1 where that is beside it."""
        return self._source(0, self.vflip)

    @cached_property
    def _columns(self) -> np.ndarray:
        return self._source(1, self.hflip)

    def _source(self, axis: int, flipped: bool) -> np.ndarray:
        where = self.placement
        centres = np.arange(where.input_size[axis]) + 0.5
        at = np.floor((centres - where.offset[axis]) / where.scale[axis]).astype(np.int64)
        at[(at < 0) | (at >= where.size[axis])] = -1
        return at[::-1] if flipped else at


def _falling_into(first: int, stop: int, at: np.ndarray) -> slice:
    """The input's rows or columns that fall into those of the image: side by side, as neighbours fall on neighbours."""
    inside = np.flatnonzero((at >= first) & (at < stop))
    return slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0)


def move_objects(objects: Objects, motion: GeometricTransform, *, masks: bool) -> InstanceTargets:
    """Those objects that can be learned: no crowd, at least a pixel high and wide on the input, VISIBLE_SHARE of them left there.

    With `masks`, an object that is cut off gets the box of what is left of its mask; BadImage where the objects have no masks.
    """
    boxes, labels, crowd = (torch.tensor(known) for known in (objects.boxes, objects.labels, objects.crowd))
    moved = motion.boxes(boxes)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(1) * math.prod(motion.placement.scale)  # areas on the input, were it large enough
    sides = moved[:, 2:] - moved[:, :2]
    shares = sides.prod(1) / whole
    learned = ~crowd & (sides >= 1).all(1) & (shares >= VISIBLE_SHARE)
    chosen = learned.nonzero()[:, 0]
    if not masks:
        return InstanceTargets(moved[chosen], labels[chosen])
    if objects.masks is None:
        raise BadImage("its objects have boxes but no masks")
    counts = [objects.masks[i] for i in chosen.tolist()]
    cut = shares[chosen] < 0.999  # rounding aside
    moved, outlines, shown = _move_masks(counts, objects.size, motion, boxes=moved[chosen], cut=cut.tolist())
    return InstanceTargets(moved, labels[chosen[shown]], outlines)


def _move_masks(
    counts: list[bytes], size: Size, motion: GeometricTransform, *, boxes: Tensor, cut: list[bool]
) -> tuple[Tensor, Tensor, list[int]]:
    """n masks at rest and their boxes on the input, n,4 -> boxes k,4 and masks k,h,w uint8 of those that show, and which they are."""
    masks = np.zeros((len(counts), *motion.placement.input_size), np.uint8)
    areas = rle.areas(counts, size) * math.prod(motion.placement.scale)
    shown: list[int] = []
    for i, (left, top, right, bottom) in enumerate(rle.boxes(counts, size).astype(int).tolist()):
        part = rle.part(counts[i], size, (top, left, bottom - top, right - left))
        mask = masks[len(shown)]
        rows, columns = motion.draw(part, mask, top=top, left=left)
        drawn = mask[rows, columns]
        if not drawn.any() or drawn.sum() < VISIBLE_SHARE * areas[i]:
            drawn[:] = 0  # the next one's place
            continue
        if cut[i]:
            in_rows, in_columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
            inside = (in_columns[0], in_rows[0], in_columns[-1] + 1, in_rows[-1] + 1)
            boxes[i] = torch.tensor(inside) + torch.tensor([columns.start, rows.start] * 2)
        shown.append(i)
    return boxes[shown], torch.from_numpy(masks[: len(shown)]), shown
