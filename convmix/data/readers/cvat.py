"""CVAT's own XML "for images": boxes, polygons, ellipses and masks of all images in one file, with their subsets.

Tags, which are labels of whole images, are read by `tags`. Format: https://docs.cvat.ai/docs/manual/advanced/xml_format.
"""

from xml.etree.ElementTree import Element

import numpy as np

from convmix.config import Data
from convmix.data import rle
from convmix.data.formats import SPLIT_WORDS, printable
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.shapes import ImageShapes, Shape, ellipse, extent, finite, object_set, turned_about_centre
from convmix.data.readers.survey import Survey
from convmix.data.readers.voc import parse_xml
from convmix.errors import DataError

NO_OBJECTS = ("points", "polyline", "skeleton", "cuboid")


def read_cvat(seen: Survey, files: list[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    images, order = [], []
    for name in files:
        tree = _tree(seen, name)
        order += [(label.findtext("name") or "").strip() for label in tree.iter("label") if label.find("name") is not None]
        images += [_image(element, name) for element in tree.findall("image")]
    found = object_set(seen, images, masks=masks, data=data, order=list(dict.fromkeys(order)))
    if found is not None and any("skeleton" in reason or "points" in reason for _, reason in found.dropped):
        found.notes.append("keypoints are left out")
    return found


def _tree(seen: Survey, name: str) -> Element:
    try:
        tree, _ = parse_xml(seen.path(name), "annotations")
    except Fault as fault:
        raise DataError(f"{seen.path(name)}: {fault}") from None
    if tree.find("image") is None:
        raise DataError(f"{seen.path(name)}: holds tracks of a video and no images; export it from CVAT as COCO or 'CVAT for images'")
    return tree


def _image(element: Element, file: str) -> ImageShapes:
    written = element.get("name") or ""
    size = _size(element)
    image = ImageShapes(file, written, size, split=SPLIT_WORDS.get((element.get("subset") or "").strip().lower()))
    for number, shape in enumerate((e for e in element if e.tag != "tag"), start=1):
        name = printable(f"{file}: {written}, {shape.tag} {number}")
        try:
            image.shapes.append(_shape(shape, name, size))
        except Fault as fault:
            image.faults.append((name, str(fault)))
    return image


def _size(element: Element) -> tuple[int, int] | None:
    try:
        height, width = int(float(element.get("height") or 0)), int(float(element.get("width") or 0))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _shape(shape: Element, name: str, size: tuple[int, int] | None) -> Shape:
    label = (shape.get("label") or "").strip()
    if not label:
        raise Fault(f"a {shape.tag} without label")
    if shape.tag in NO_OBJECTS:
        raise Fault(f"a {shape.tag}, which is not read")
    turn = float(shape.get("rotation") or 0)
    if shape.tag == "box":
        left, top, right, bottom = finite([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")])
        box = (left, top, right, bottom)
        return Shape(name, label, extent(turned_about_centre(box, turn)) if turn else box)
    if shape.tag == "ellipse":
        outline = ellipse(*finite([shape.get(key) for key in ("cx", "cy", "rx", "ry")]))
        return Shape(name, label, extent(outline), (outline,))
    if shape.tag == "polygon":
        points = finite([v for point in (shape.get("points") or "").split(";") for v in point.split(",")])
        if len(points) < 6:
            raise Fault(f"a polygon of {len(points) // 2} points")
        return Shape(name, label, extent(points), (tuple(points),))
    if shape.tag == "mask":
        return Shape(name, label, None, counts=_mask(shape, size))
    raise Fault(f"a {shape.tag}, which is not read")


def _mask(shape: Element, size: tuple[int, int] | None) -> bytes:
    """Run lengths along the rows of a box, of zeros first."""
    if size is None:
        raise Fault("a mask without the size of its image")
    left, top, width, height = map(int, finite([shape.get(key) for key in ("left", "top", "width", "height")]))
    runs = [int(v) for v in finite((shape.get("rle") or "").split(","))]
    if sum(runs) != width * height or min(runs, default=-1) < 0 or left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise Fault("a mask whose run lengths do not fill its box")
    whole = np.zeros((1, *size), bool)
    whole[0, top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return rle.encode(whole)[0]


def tags(seen: Survey, files: list[str]) -> list[tuple[str, list[str]]]:
    """(written image, its tags) of every image, empty where none has a tag."""
    found = [
        (element.get("name") or "", [(tag.get("label") or "").strip() for tag in element.findall("tag")])
        for name in files
        for element in _tree(seen, name).findall("image")
    ]
    return found if any(listed for _, listed in found) else []
