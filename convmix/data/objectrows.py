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
from convmix.data.decode import BadImage, upright_size
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


def image_size(path: Path, data: Data, *, annotated: Size | None = None) -> Size:
    """Height and width of the upright image. Raises Fault for one that cannot be read or that was annotated at another size."""
    try:
        size = upright_size(path, in_chans=data.in_chans, max_pixels=data.max_pixels)
    except BadImage as bad:
        raise Fault(bad.reason) from None
    if annotated is not None and annotated != size:
        raise Fault(f"annotated at {annotated[1]}x{annotated[0]}, the upright image is {size[1]}x{size[0]}")
    return size


def left_out(reason: str, objects: int) -> str:
    """Why an image is dropped, with what goes with it."""
    return f"{reason}; its {objects} annotations are left out" if objects else reason
