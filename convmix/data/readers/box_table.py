"""Tables of boxes: a box a row (filename,class,xmin,ymin,xmax,ymax and the like), or Hugging Face's rows with `objects` -> ObjectSet."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convmix.config import Data
from convmix.data.formats import IMAGE_COLUMNS, LABEL_COLUMNS
from convmix.data.readers.label_cells import plain_header
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.objectrows import Fault, ObjectSet, image_size
from convmix.data.readers.shapes import ImageShapes, Shape, finite, object_set
from convmix.data.readers.splits import folder_split
from convmix.data.readers.survey import Survey, folder_of, stem_of
from convmix.data.readers.table_files import Rows, read_rows
from convmix.errors import DataError

CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
)
CENTRES = (
    ("x_center", "y_center", "width", "height"),
    ("x_centre", "y_centre", "width", "height"),
    ("xcenter", "ycenter", "width", "height"),
    ("center_x", "center_y", "width", "height"),
    ("cx", "cy", "w", "h"),
    ("xc", "yc", "w", "h"),
)
SIDES = (
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("x", "y", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("left", "top", "width", "height"),
)
CLASS_COLUMNS = (*LABEL_COLUMNS, "name", "labelname", "object", "tag", "classid")
ONE_CLASS = "object"
TABLES = (".csv", ".tsv", ".jsonl")


def find_box_tables(seen: Survey) -> list[str]:
    """The tables whose columns are boxes."""
    found = []
    json_files = seen.of("json")
    for name in [*seen.of("table", "jsonl"), *(json_files if len(json_files) <= 20 else [])]:
        if "submission" not in stem_of(name).lower() and is_box_table(seen.path(name)):
            found.append(name)
    return found


def is_box_table(path: Path) -> bool:
    try:
        rows = read_rows(path)
    except DataError:
        return False
    return bool(rows.rows) and _form(rows) is not None


def _form(rows: Rows) -> tuple[str, tuple[int, ...]] | None:
    """corners, centres, sides, text or objects, with the positions of the columns; None for a table of something else."""
    if not rows.header:
        numeric = len(rows.rows[0]) == 6 and all(re.fullmatch(r"-?\d+(\.\d+)?|", c.strip()) for row in rows.rows[:50] for c in row[1:5])
        return ("corners", (1, 2, 3, 4)) if numeric else None
    plain = [plain_header(h) for h in rows.header]
    for form, choices in (("corners", CORNERS), ("centres", CENTRES), ("sides", SIDES)):
        for names in choices:
            if set(names) <= set(plain):
                return form, tuple(plain.index(n) for n in names)
    for form, name in (("objects", "objects"), ("text", "bbox"), ("text", "box")):
        if name in plain:
            return form, (plain.index(name),)
    return None


def read_box_tables(seen: Survey, names: Sequence[str], *, data: Data) -> ObjectSet | None:
    """Boxes alone; shares of the image where no number is above 1, else pixels."""
    images = [image for name in names for image in _images(seen, name, data, several=len(names) > 1)]
    return object_set(seen, images, masks=False, data=data)


def _images(seen: Survey, name: str, data: Data, *, several: bool) -> list[ImageShapes]:
    rows = read_rows(seen.path(name))
    form = _form(rows)
    assert form is not None  # find_box_tables
    plain = [plain_header(h) for h in rows.header]
    written_at = next((plain.index(c) for c in (*IMAGE_COLUMNS, "image_id", "imageid", "id") if c in plain), 0)
    label_at = next((plain.index(c) for c in CLASS_COLUMNS if c in plain and plain.index(c) != written_at), None if plain else 5)
    split_at = plain.index("split") if "split" in plain else None
    split = folder_split(stem_of(name), exact=False) if several or folder_split(folder_of(name)) else None
    images: dict[str, ImageShapes] = {}
    shares = _are_shares(rows, form)
    for number, row in enumerate(rows.rows, rows.first):
        cells = [c.strip() for c in row] + [""] * (len(plain) - len(row))
        if not cells or not cells[written_at]:
            continue
        told = folder_split(cells[split_at]) if split_at is not None else split or folder_split(folder_of(name))
        image = images.setdefault(cells[written_at], ImageShapes(name, cells[written_at], None, split=told))
        label = f"{name} line {number}"
        try:
            for box, text in _boxes(cells, form, label_at):
                image.shapes.append(_shape(label, text, box, seen, image, data, shares=shares))
        except Fault as fault:
            image.faults.append((label, str(fault)))
    return list(images.values())


def _are_shares(rows: Rows, form: tuple[str, tuple[int, ...]]) -> bool:
    if form[0] in ("objects", "text"):
        return False
    values = [c for i in form[1] for c in rows.column(i)[:500] if c]
    try:
        return bool(values) and max(map(float, values)) <= 1.0
    except ValueError:
        return False


def _boxes(cells: Sequence[str], form: tuple[str, tuple[int, ...]], label_at: int | None) -> Iterator[tuple[list[float], str]]:
    """(left, top, right, bottom), class of every box in a row."""
    kind, at = form
    label = (cells[label_at] if label_at is not None and label_at < len(cells) else "") or ONE_CLASS
    if kind == "objects":
        yield from _objects(_json(cells[at[0]]))
        return
    if not any(cells[i] for i in at):
        return  # an image without objects
    written: Sequence[Any] = re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", cells[at[0]]) if kind == "text" else [cells[i] for i in at]
    if len(written) != 4:
        raise Fault(f"a box of {len(written)} numbers")
    a, b, c, d = finite(written)
    if kind == "centres":
        a, b = a - c / 2, b - d / 2
    yield ([a, b, c, d] if kind == "corners" else [a, b, a + c, b + d]), label


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        raise Fault("objects that are no JSON") from None


def _objects(value: Any) -> Iterator[tuple[list[float], str]]:
    """{"bbox": [[x, y, width, height], ...], "categories": [...]}, or a list of {"bbox": ..., "category": ...}."""
    keys = ("categories", "category", "labels", "label", "class", "category_id", "names", "name")
    if isinstance(value, list):
        for one in value:
            if isinstance(one, dict):
                label = next((one[k] for k in keys if k in one), ONE_CLASS)
                yield _edges(one.get("bbox")), str(label)
        return
    boxes = value.get("bbox") or value.get("bboxes") or value.get("boxes") or [] if isinstance(value, dict) else []
    labels = next((value[k] for k in keys if isinstance(value.get(k), list)), [ONE_CLASS] * len(boxes)) if boxes else []
    if len(labels) != len(boxes):
        raise Fault(f"{len(boxes)} boxes and {len(labels)} classes")
    for box, label in zip(boxes, labels, strict=True):
        yield _edges(box), str(label)


def _edges(box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise Fault(f"a box of {str(box)[:40]}, expected x, y, width, height")
    left, top, width, height = finite(box)
    return [left, top, left + width, top + height]


def _shape(name: str, label: str, box: list[float], seen: Survey, image: ImageShapes, data: Data, *, shares: bool) -> Shape:
    left, top, right, bottom = box
    if shares:
        try:
            file = ImageIndex(seen.root, seen.images).find(image.written, base=image.source.rpartition("/")[0])
        except Ambiguous as several:
            raise Fault(str(several)) from None
        if file is not None:
            height, width = image_size(seen.path(file), data)
            left, top, right, bottom = left * width, top * height, right * width, bottom * height
    return Shape(name, label, (left, top, right, bottom))
