"""VGG Image Annotator (VIA 2): JSON of a project or of its annotations, or CSV; rectangles, polygons, circles and ellipses in pixels.

The class of a region is its one attribute, or the one called class, label or the like; a region without attributes is an "object".
Format: https://www.robots.ox.ac.uk/~vgg/software/via/docs/face_track_annotation.html and the tool's own exports.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from convmix.config import Data
from convmix.data.formats import LABEL_COLUMNS, printable
from convmix.data.readers.box_table import ONE_CLASS
from convmix.data.readers.evidence import load_json
from convmix.data.readers.label_cells import plain_header
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.shapes import ImageShapes, Shape, ellipse, extent, finite, object_set
from convmix.data.readers.survey import Survey, some
from convmix.data.readers.table_files import read_rows
from convmix.errors import DataError

Region = tuple[dict[str, Any], dict[str, Any]]  # shape_attributes, region_attributes
CLASS_NAMES = (*LABEL_COLUMNS, "name", "type", "object", "object_name")


def read_via(seen: Survey, files: Sequence[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    """DataError where regions have several attributes and none of them is called like a class."""
    jsons = [name for name in files if name.lower().endswith(".json")]
    described = [(name, *image) for name in jsons or files for image in _images(seen, name)]
    key = _class_key([attributes for _, _, regions in described for _, attributes in regions], seen)
    images = []
    for source, written, regions in described:
        image = ImageShapes(source, written, None)
        for number, (shape, attributes) in enumerate(regions, start=1):
            name = printable(f"{source}: {written}, region {number}")
            try:
                image.shapes.append(_shape(shape, _label(attributes, key), name))
            except Fault as fault:
                image.faults.append((name, str(fault)))
        images.append(image)
    return object_set(seen, images, masks=masks, data=data)


def _images(seen: Survey, name: str) -> Iterator[tuple[str, list[Region]]]:
    if not name.lower().endswith(".json"):
        yield from _table(seen, name)
        return
    try:
        content = load_json(seen.path(name).read_bytes())
    except OSError as error:
        raise DataError(f"{seen.path(name)}: cannot be read: {error.strerror}") from None
    listed = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    for entry in listed.values() if isinstance(listed, dict) else listed:
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
            regions = entry.get("regions") or []
            regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
            pairs = [(r.get("shape_attributes") or {}, r.get("region_attributes") or {}) for r in regions if isinstance(r, dict)]
            yield entry["filename"], pairs


def _table(seen: Survey, name: str) -> Iterator[tuple[str, list[Region]]]:
    """A region a row; an image without regions has one row with an empty shape."""
    rows = read_rows(seen.path(name))
    header = [plain_header(h).lstrip("#") for h in rows.header]
    at = [header.index(h) for h in ("filename", "region_shape_attributes", "region_attributes")]
    images: dict[str, list[Region]] = {}
    for row in rows.rows:
        if len(row) <= max(at) or not row[at[0]].strip():
            continue
        regions = images.setdefault(row[at[0]].strip(), [])
        shape, attributes = (load_json(row[i].encode()) for i in at[1:])
        if isinstance(shape, dict) and shape:
            regions.append((shape, attributes if isinstance(attributes, dict) else {}))
    yield from images.items()


def _class_key(attributes: Sequence[dict[str, Any]], seen: Survey) -> str | None:
    counts = Counter(key for one in attributes for key, value in one.items() if _text(value))
    if len(counts) < 2:
        return next(iter(counts), None)
    usual = [key for key in counts if plain_header(key) in CLASS_NAMES]
    if usual:
        return min(usual, key=lambda key: CLASS_NAMES.index(plain_header(key)))
    raise DataError(
        f"{seen.root}: the regions have the attributes {some(sorted(counts))}, and none is called class or label: rename the one "
        "that is meant"
    )


def _text(value: Any) -> str:
    """Checkboxes are written as {"nut": true}."""
    if isinstance(value, dict):
        return " ".join(str(key) for key, ticked in value.items() if ticked)
    return str(value).strip() if value is not None else ""


def _label(attributes: dict[str, Any], key: str | None) -> str:
    if key is None:
        return ONE_CLASS
    if not (label := _text(attributes.get(key))):
        raise Fault(f"a region without {key}")
    return label


def _shape(shape: dict[str, Any], label: str, name: str) -> Shape:
    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = finite([shape.get(k) for k in ("x", "y", "width", "height")])
        return Shape(name, label, (x, y, x + width, y + height))
    if kind == "polygon":
        xs, ys = finite(shape.get("all_points_x") or []), finite(shape.get("all_points_y") or [])
        if len(xs) != len(ys) or len(xs) < 3:
            raise Fault(f"a polygon of {len(xs)} and {len(ys)} numbers")
        outline = tuple(v for point in zip(xs, ys, strict=True) for v in point)
        return Shape(name, label, extent(outline), (outline,))
    if kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        cx, cy, rx, ry = finite([shape.get(k) for k in ("cx", "cy", *radii)])
        outline = _turned(ellipse(cx, cy, rx, ry), cx, cy, finite([shape.get("theta") or 0])[0])
        return Shape(name, label, extent(outline), (outline,))
    raise Fault(f"a {kind}, which has no area" if kind in ("point", "polyline") else f"a shape of the kind {kind}")


def _turned(points: Sequence[float], x: float, y: float, radians: float) -> tuple[float, ...]:
    c, s = math.cos(radians), math.sin(radians)
    pairs = zip(points[0::2], points[1::2], strict=True)
    return tuple(v for px, py in pairs for v in (x + (px - x) * c - (py - y) * s, y + (px - x) * s + (py - y) * c))
