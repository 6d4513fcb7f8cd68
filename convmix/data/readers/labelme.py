"""LabelMe's JSON, one file an image: polygons, rectangles, circles and masks with a label, beside the image or elsewhere.

Format: https://github.com/wkentaro/labelme.
"""

import base64
import io
from typing import Any

import numpy as np
import PIL.Image

from convmix.config import Data
from convmix.data import rle
from convmix.data.formats import printable
from convmix.data.readers.evidence import load_json
from convmix.data.readers.names import plain
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.shapes import ImageShapes, Shape, ellipse, extent, finite, object_set
from convmix.data.readers.survey import Survey, stem_of

NO_OBJECTS = ("point", "points", "line", "linestrip")  # shapes without area


def read_labelme(seen: Survey, files: list[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    stems = {plain(stem_of(image)) for image in seen.images}
    return object_set(seen, [_image(seen, name, stems) for name in files], masks=masks, data=data)


def _image(seen: Survey, name: str, stems: set[str]) -> ImageShapes:
    """The image is the one of the JSON's own name, where there is one: imagePath is often that of another machine."""
    try:
        content = load_json(seen.path(name).read_bytes())
    except OSError as error:
        content = None
        reason = f"cannot be read: {error.strerror}"
    else:
        reason = "broken JSON"
    if not isinstance(content, dict):
        return ImageShapes(name, stem_of(name), None, faults=[(printable(name), f"{reason}; its image is left out")])
    height, width = content.get("imageHeight"), content.get("imageWidth")
    annotated = (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None
    image_path = content.get("imagePath")
    written = image_path if isinstance(image_path, str) and image_path and plain(stem_of(name)) not in stems else stem_of(name)
    image = ImageShapes(name, written, annotated)
    for number, shape in enumerate(content.get("shapes") or [], start=1):
        label = f"{printable(name)}: shape {number}"
        try:
            image.shapes.append(_shape(shape, label, annotated))
        except Fault as fault:
            image.faults.append((label, str(fault)))
    return image


def _shape(shape: Any, name: str, size: tuple[int, int] | None) -> Shape:
    if not isinstance(shape, dict) or not str(shape.get("label") or "").strip():
        raise Fault("a shape without label")
    kind, label = shape.get("shape_type") or "polygon", str(shape["label"]).strip()
    points = finite([v for point in shape.get("points") or [] for v in (point if isinstance(point, list) else [point])])
    if kind in NO_OBJECTS:
        raise Fault(f"a {kind}, which has no area")
    if len(points) < 4 or len(points) % 2:
        raise Fault(f"a {kind} of {len(points)} numbers")
    if kind == "rectangle":
        return Shape(name, label, extent(points))
    if kind == "circle":
        radius = ((points[0] - points[2]) ** 2 + (points[1] - points[3]) ** 2) ** 0.5
        outline = ellipse(points[0], points[1], radius, radius)
        return Shape(name, label, extent(outline), (outline,))
    if kind == "mask":
        return Shape(name, label, None, counts=_mask(shape.get("mask"), points, size))
    if kind not in ("polygon", "rotation", "oriented_rectangle"):
        raise Fault(f"a shape of the kind {kind}")
    if len(points) < 6:
        raise Fault(f"a polygon of {len(points) // 2} points")
    return Shape(name, label, extent(points), (tuple(points),))


def _mask(encoded: Any, points: list[float], size: tuple[int, int] | None) -> bytes:
    """A PNG over the box of the points."""
    if size is None or not isinstance(encoded, str):
        raise Fault("a mask without the size of its image")
    try:
        part = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(encoded)))).astype(bool)
    except Exception:  # codecs raise anything on broken bytes
        raise Fault("a mask that cannot be decoded") from None
    whole = np.zeros((1, *size), bool)
    left, top = int(points[0]), int(points[1])
    inside = whole[0, max(top, 0) : top + part.shape[0], max(left, 0) : left + part.shape[1]]
    inside |= part[: inside.shape[0], : inside.shape[1]]
    return rle.encode(whole)[0]


def flags(seen: Survey, files: list[str]) -> list[tuple[str, list[str]]]:
    """(written image, its flags that are set) of every file, empty where no file has one."""
    found = []
    for name in files:
        content = load_json(seen.path(name).read_bytes())
        if isinstance(content, dict) and isinstance(content.get("flags"), dict):
            path = content.get("imagePath")
            written = path if isinstance(path, str) and path else stem_of(name)
            found.append((written, [str(flag) for flag, is_set in content["flags"].items() if is_set is True]))
    return found if any(listed for _, listed in found) else []
