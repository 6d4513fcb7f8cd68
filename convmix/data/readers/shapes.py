"""Annotations of tools as shapes on images -> ObjectSet: what LabelMe, Label Studio, CVAT and tables of boxes have in common.

a tool's files -> ImageShapes (a written image name, the size it was annotated at, shapes with a class name) -> ObjectSet
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from convmix.config import Data, Size
from convmix.data import rle
from convmix.data.formats import printable
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.objectrows import Box, Fault, ObjectRows, ObjectSet, Turned, annotated_size, fit_box, left_out
from convmix.data.readers.paired import pictures_of
from convmix.data.readers.splits import ORDER, Splits, apart, by_folders, by_lists, find_lists
from convmix.data.readers.survey import Survey
from convmix.errors import DataError, did_you_mean

CIRCLE_POINTS = 32


@dataclass(frozen=True)
class Shape:
    """One object in pixels."""

    name: str  # for people: a.json: shape 3
    label: str
    box: Box | None  # left, top, right, bottom
    polygons: tuple[tuple[float, ...], ...] = ()  # x1, y1, x2, y2, ...; parts of one object
    counts: bytes | None = None  # of a mask over the size it was annotated at
    crowd: bool = False


@dataclass
class ImageShapes:
    """What a tool says of one image."""

    source: str  # the file that says it, relative to the data set
    written: str  # the image's name there
    size: Size | None  # at which it was annotated
    shapes: list[Shape] = field(default_factory=list)
    split: str | None = None  # where the tool says one
    faults: list[tuple[str, str]] = field(default_factory=list)  # name, reason


@dataclass
class _Image:
    file: str
    size: Size
    orientation: int
    shapes: list[Shape]


def object_set(
    seen: Survey, described: Sequence[ImageShapes], *, masks: bool | None, data: Data, order: Sequence[str] = ()
) -> ObjectSet | None:
    """None where no image has a shape. The classes are the labels of the training images, in `order` where that has them all, else sorted.

    masks: whether outlines are read; None: where most objects have one. DataError where none of the images is there.
    """
    if not any(image.shapes for image in described):
        return None
    found = ObjectSet({}, ())
    images = _located(seen, described, found, data)
    if not images:
        reason = next((why for _, why in found.dropped if why != "an image without annotation"), "no such file")
        raise DataError(
            f"{seen.root}: none of the {len(described)} images that {described[0].source} and others describe can be used: "
            f"{reason}; choose another reading with --layout"
        )
    splits = _splits(seen, images, described, found)
    shapes = [shape for image in images.values() for shape in image.shapes]
    outlines = sum(bool(shape.polygons or shape.counts) for shape in shapes)
    with_masks = bool(shapes) and 3 * outlines >= 2 * len(shapes) if masks is None else masks
    if 0 < outlines < len(shapes) and masks is None:
        boxes = f"{len(shapes) - outlines} of {len(shapes)} objects"
        alone = "are a box without outline: they are neither learned from nor scored; --task detect reads boxes alone"
        found.notes.append(f"{boxes} {alone}" if with_masks else f"{boxes} have no outline: all are read as boxes")
    taught = splits.images.get("train") or splits.images.get("all") or []
    used = {shape.label for name in taught for shape in images[name].shapes}
    found.classes = tuple(order) if used and used <= set(order) else tuple(sorted(used))
    turned = Turned()
    for image in images.values():
        if image.orientation > 1:
            turned.see([shape.box for shape in image.shapes if shape.box], image.size)
    found.notes += turned.note()
    for split, names in splits.images.items():
        found.splits[split] = rows = ObjectRows(with_masks=with_masks)
        for name in names:
            _add(rows, images[name], seen, found, turned)
    return found


def _located(seen: Survey, described: Sequence[ImageShapes], found: ObjectSet, data: Data) -> dict[str, _Image]:
    """The images that are there and can be read, by their name."""
    index = ImageIndex(seen.root, pictures_of(seen)[0])
    images: dict[str, _Image] = {}
    for image in described:
        found.dropped += image.faults
        where = printable(f"{image.source}: {image.written}" if image.source else image.written)
        try:
            file = index.find(image.written, base=image.source.rpartition("/")[0], hint=image.source)
            if file is None:
                raise Fault(f"no such file: {image.written}")
            if file in images:
                raise Fault("described a second time")
            size, orientation = annotated_size(seen.path(file), data, image.size)
            images[file] = _Image(file, size, orientation, image.shapes)
        except (Fault, Ambiguous) as fault:
            found.dropped.append((where, left_out(str(fault), len(image.shapes))))
    named = set(images)
    found.dropped += [(printable(i), "an image without annotation") for i in pictures_of(seen)[0] if i not in named]
    return {name: images[name] for name in sorted(images, key=lambda n: n.split("/"))}


def _splits(seen: Survey, images: dict[str, _Image], described: Sequence[ImageShapes], found: ObjectSet) -> Splits:
    names = list(images)
    index = ImageIndex(seen.root, seen.images)
    told = {file: image.split for image in described if image.split and (file := _quietly(index, image)) in images}
    if told:
        by_split: dict[str, list[str]] = {}
        for name in names:
            by_split.setdefault(told.get(name) or "train", []).append(name)
        splits = apart(Splits({s: by_split[s] for s in ORDER if s in by_split}, "the annotation file"))
    else:
        lists = find_lists(seen, index)
        splits = by_lists(seen, index, lists, among=names) if lists else by_folders(names)
    found.dropped += splits.dropped
    found.notes += splits.notes
    found.origin = splits.origin
    return splits


def _quietly(index: ImageIndex, image: ImageShapes) -> str | None:
    try:
        return index.find(image.written, base=image.source.rpartition("/")[0], hint=image.source)
    except Ambiguous:
        return None


def _add(rows: ObjectRows, image: _Image, seen: Survey, found: ObjectSet, turned: Turned) -> None:
    rows.image(seen.path(image.file), image.file, image.size)
    for shape in image.shapes:
        try:
            if shape.label not in found.classes:
                nearest = did_you_mean(shape.label, found.classes)
                raise Fault(f"of class {shape.label!r}, which the training images do not have{nearest}")
            label = found.classes.index(shape.label)
            box, mask = _placed(shape, image, turned, with_masks=rows.with_masks)
            if rows.with_masks and mask is None:
                rows.box_alone(box, label, image.size)
                raise Fault("a box without an outline")
            rows.object(box, label, crowd=shape.crowd, mask=mask)
        except Fault as fault:
            found.dropped.append((shape.name, str(fault)))


def _placed(shape: Shape, image: _Image, turned: Turned, *, with_masks: bool) -> tuple[Box, bytes | None]:
    size, orientation = image.size, image.orientation
    polygons = [[v for x, y in zip(p[0::2], p[1::2], strict=True) for v in turned.point(x, y, size, orientation)] for p in shape.polygons]
    mask = None
    if shape.counts is not None and orientation == 1:
        mask = shape.counts
    elif polygons and with_masks:
        try:
            mask = rle.from_polygons(polygons, size)
        except ValueError as error:
            raise Fault(str(error)) from None
    if mask is not None and not rle.areas([mask], size)[0]:
        raise Fault("an outline without area inside the image")
    if shape.box is not None:
        box = turned.box(shape.box, size, orientation)
    elif polygons:
        xs, ys = [v for p in polygons for v in p[0::2]], [v for p in polygons for v in p[1::2]]
        box = (min(xs), min(ys), max(xs), max(ys))
    elif mask is not None:
        left, top, right, bottom = rle.boxes([mask], size)[0].tolist()
        box = (left, top, right, bottom)
    else:
        raise Fault("without box and outline")
    return fit_box(*box, size), mask if with_masks else None


def extent(points: Sequence[float]) -> Box:
    """The box around x1, y1, x2, y2, ..."""
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])


def ellipse(x: float, y: float, rx: float, ry: float) -> tuple[float, ...]:
    turns = [2 * math.pi * i / CIRCLE_POINTS for i in range(CIRCLE_POINTS)]
    return tuple(v for t in turns for v in (x + rx * math.cos(t), y + ry * math.sin(t)))


def rotated(left: float, top: float, width: float, height: float, degrees: float) -> tuple[float, ...]:
    """The corners of a box turned about its left top corner, clockwise as the eye sees it."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return tuple(v for x, y in corners for v in (left + x * c - y * s, top + x * s + y * c))


def turned_about_centre(box: Box, degrees: float) -> tuple[float, ...]:
    left, top, right, bottom = box
    x, y, c, s = (left + right) / 2, (top + bottom) / 2, math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y))
    return tuple(v for dx, dy in corners for v in (x + dx * c - dy * s, y + dx * s + dy * c))


def finite(values: Sequence[object]) -> list[float]:
    """Numbers out of a file. Raises Fault."""
    try:
        read = [float(v) for v in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise Fault(f"points of {str(list(values))[:60]}, expected numbers") from None
    if not all(map(math.isfinite, read)):
        raise Fault("points that are not finite")
    return read
