"""Images and their objects on the way from annotation files into rows, gathered one after another and kept column-wise.

coco, voc, yolo, instance maps --image(), object()--> ObjectRows --rows()--> columns image, name, height, width,
                                                                   boxes, object_labels, crowd and, where outlines are known, masks
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmix.config import Data, Size
from convmix.data import rle
from convmix.data.coco_ids import CocoIds
from convmix.data.decode import BadImage, turned_by_exif, upright_size
from convmix.data.formats import image_rows, printable, storable

if TYPE_CHECKING:
    import datasets

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Fault(Exception):  # noqa: N818 - caught and listed by the readers; a user never sees it raised
    """An object or an image that cannot be used; the message is the reason, for people."""


class ObjectRows:
    """One split. Every image is opened with `image`, then its objects follow."""

    def __init__(self, *, with_masks: bool) -> None:
        self.with_masks = with_masks
        self.paths: list[str] = []
        self.names: list[str] = []
        self.sizes: list[Size] = []
        self._boxes = array("f")  # four each
        self._labels = array("q")
        self._crowd = array("b")
        self._masks: list[bytes] = []
        self._starts: list[int] = []  # per image: its first object
        self._seen: set[tuple[Any, ...]] = set()  # objects of the image now open

    def image(self, path: Path, name: str, size: Size) -> None:
        self.paths.append(storable(str(path.absolute())))
        self.names.append(printable(name))
        self.sizes.append(size)
        self._starts.append(len(self._labels))
        self._seen.clear()

    def object(self, box: Box, label: int, *, crowd: bool = False, mask: bytes | None = None) -> None:
        """Of the image opened last. Raises Fault for one that it has already."""
        key = (label, box, mask)
        if key in self._seen:
            raise Fault("the same object twice in one image")
        self._seen.add(key)
        self._boxes.extend(box)
        self._labels.append(label)
        self._crowd.append(crowd)
        if self.with_masks:
            if mask is None:
                raise TypeError("an object without a mask among rows with masks")
            self._masks.append(mask)

    def box_alone(self, box: Box, label: int, size: Size) -> None:
        """An object among masks of which only the box is known: neither learned from nor scored, and no background either."""
        left, top, right, bottom = box
        mask = rle.from_polygons([[left, top, right, top, right, bottom, left, bottom]], size)
        if rle.areas([mask], size)[0] and (label, box, mask) not in self._seen:
            self.object(box, label, crowd=True, mask=mask)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> np.ndarray:
        """Of all objects, n int64."""
        return np.frombuffer(self._labels, np.int64) if self._labels else np.zeros(0, np.int64)

    @property
    def crowd(self) -> np.ndarray:
        """Of all objects, n bool."""
        return np.frombuffer(self._crowd, np.int8).astype(bool) if self._crowd else np.zeros(0, bool)

    @property
    def image_of(self) -> np.ndarray:
        """The image of every object, n int64."""
        return np.repeat(np.arange(len(self)), np.diff([*self._starts, len(self._labels)]))

    def select(self, indices: Sequence[int]) -> "ObjectRows":
        """Some of the images, with their objects."""
        chosen = ObjectRows(with_masks=self.with_masks)
        ends = [*self._starts[1:], len(self._labels)]
        for i in indices:
            chosen.paths.append(self.paths[i])
            chosen.names.append(self.names[i])
            chosen.sizes.append(self.sizes[i])
            chosen._starts.append(len(chosen._labels))
            start, end = self._starts[i], ends[i]
            chosen._boxes.extend(self._boxes[4 * start : 4 * end])
            chosen._labels.extend(self._labels[start:end])
            chosen._crowd.extend(self._crowd[start:end])
            chosen._masks.extend(self._masks[start:end])
        return chosen

    def rows(self, labels: np.ndarray) -> "datasets.Dataset":
        """labels: one class per image, n int64. The arrow types do not depend on the content, so any image may be without objects."""
        import datasets
        import pyarrow as pa

        offsets = pa.array([*self._starts, len(self._labels)], pa.int32())
        corners = pa.array(np.frombuffer(self._boxes, np.float32) if self._boxes else [], pa.float32())
        boxes = pa.ListArray.from_arrays(pa.array(np.arange(0, len(corners) + 1, 4), pa.int32()), corners)
        columns = {
            "label": pa.array(labels, pa.int64()),
            "name": pa.array(self.names, pa.string()),
            "height": pa.array([h for h, _ in self.sizes], pa.int64()),
            "width": pa.array([w for _, w in self.sizes], pa.int64()),
            "boxes": pa.ListArray.from_arrays(offsets, boxes),
            "object_labels": pa.ListArray.from_arrays(offsets, pa.array(self.labels, pa.int64())),
            "crowd": pa.ListArray.from_arrays(offsets, pa.array(self.crowd, pa.bool_())),
        }
        if self.with_masks:
            columns["masks"] = pa.ListArray.from_arrays(offsets, pa.array(self._masks, pa.binary()))
        return datasets.concatenate_datasets([image_rows(self.paths), datasets.Dataset.from_dict(columns)], axis=1)


@dataclass
class ObjectSet:
    """A data set of objects as a reader hands it over."""

    splits: dict[str, ObjectRows]
    classes: tuple[str, ...]
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    notes: list[str] = field(default_factory=list)  # one line each, for people
    origin: str = ""  # where the splits come from, for people
    ids: CocoIds | None = None  # of images and categories, where the data set has some


def image_labels(splits: Mapping[str, ObjectRows], num_classes: int) -> dict[str, np.ndarray]:
    """One class per image, n int64, for stratified splits and balanced drawing: the rarest over all splits that the image holds.

    An image without objects counts as one of the commonest class, as nothing but background is common too.
    """
    counts = np.sum([np.bincount(r.labels[~r.crowd], minlength=num_classes) for r in splits.values()], 0)
    commonest_first = np.argsort(-counts, kind="stable")
    rank = np.argsort(commonest_first)  # class -> 0 for the commonest
    labels = {}
    for split, rows in splits.items():
        rarest = np.zeros(len(rows), np.int64)  # rank
        np.maximum.at(rarest, rows.image_of[~rows.crowd], rank[rows.labels[~rows.crowd]])
        labels[split] = commonest_first[rarest].astype(np.int64)
    return labels


def numbers(values: Sequence[Any]) -> tuple[float, ...]:
    """What an annotation file holds for a box, as finite numbers. Raises Fault."""
    written = ", ".join("nothing" if v is None else str(v)[:20] for v in values)
    try:
        read = tuple(map(float, values))
    except (TypeError, ValueError, OverflowError):
        raise Fault(f"a box of {written}, expected numbers") from None
    if not all(map(math.isfinite, read)):
        raise Fault(f"a box of {written}, expected finite numbers")
    return read


def fit_box(left: float, top: float, right: float, bottom: float, size: Size) -> Box:
    """A box in pixels, cut to the image of height, width `size`, exact in float32. Raises Fault where nothing is left of it."""
    if right < left or bottom < top:
        raise Fault(f"a box of negative size, {right - left:g}x{bottom - top:g}")
    if right == left or bottom == top:
        raise Fault(f"a box without area, {right - left:g}x{bottom - top:g}")
    height, width = size
    cut = array("f", (min(max(v, 0.0), limit) for v, limit in ((left, width), (top, height), (right, width), (bottom, height))))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise Fault(f"a box outside the image of {width}x{height}: {left:g}, {top:g}, {right:g}, {bottom:g}")
    return cut[0], cut[1], cut[2], cut[3]


def image_size(path: Path, data: Data) -> Size:
    """Height and width of the upright image. Raises Fault for one that cannot be read."""
    try:
        return upright_size(path, in_chans=data.in_chans, max_pixels=data.max_pixels)
    except BadImage as bad:
        raise Fault(bad.reason) from None


def annotated_size(path: Path, data: Data, annotated: Size | None) -> tuple[Size, int]:
    """Height and width of the upright image, and the EXIF orientation of one whose annotation names the size before that turned it, else 1.

    Raises Fault for an image that cannot be read or that was annotated at another size.
    """
    size = image_size(path, data)
    if annotated is None or annotated == size:
        return size, 1
    orientation = turned_by_exif(path) if annotated == size[::-1] else 1
    if orientation < 5:
        raise Fault(f"annotated at {annotated[1]}x{annotated[0]}, the upright image is {size[1]}x{size[0]}")
    return size, orientation


@dataclass
class Turned:
    """The images that were annotated at their size before EXIF turned them: do their boxes belong to the upright image, or the stored one?

    One box that leaves the upright image tells that they are the stored one's; they are then turned too.
    """

    images: int = 0
    stored: bool = False

    def see(self, boxes: Sequence[Sequence[float]], size: Size) -> None:
        """boxes: left, top, right, bottom of one such image; size: of the upright image."""
        self.images += 1
        self.stored |= any(right > size[1] + 1 or bottom > size[0] + 1 for _, _, right, bottom in boxes)

    def note(self) -> list[str]:
        if not self.images:
            return []
        what = "turned with them" if self.stored else "taken as those of the upright image, which none of them leaves"
        return [f"{self.images} images were annotated at their size before EXIF rotation: the boxes are {what}"]

    def point(self, x: float, y: float, size: Size, orientation: int) -> tuple[float, float]:
        """Of the upright image of height, width `size`."""
        if not self.stored or orientation < 5:
            return x, y
        height, width = size
        return {5: (y, x), 6: (width - y, x), 7: (width - y, height - x), 8: (y, height - x)}[orientation]

    def box(self, box: Sequence[float], size: Size, orientation: int) -> tuple[float, float, float, float]:
        (x1, y1), (x2, y2) = (self.point(box[i], box[i + 1], size, orientation) for i in (0, 2))
        return (x1, y1, x2, y2) if not self.stored or orientation < 5 else (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def left_out(reason: str, objects: int) -> str:
    """Why an image is dropped, with what goes with it."""
    return f"{reason}; its {objects} annotations are left out" if objects else reason
