"""Label Studio's JSON export, whole or JSON-MIN: rectangles, polygons and ellipses in per cent of the image.

Choices, which are labels of whole images, are read by `choices`. Format: https://labelstud.io/guide/export.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from convmix.config import Data
from convmix.data.formats import printable
from convmix.data.readers.evidence import load_json
from convmix.data.readers.names import ImageIndex, plain
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.shapes import ImageShapes, Shape, ellipse, extent, finite, object_set, rotated
from convmix.data.readers.survey import Survey
from convmix.errors import DataError

SHAPES = {
    "rectanglelabels": "rectangle", "polygonlabels": "polygon", "ellipselabels": "ellipse", "brushlabels": "brush",
    "keypointlabels": "keypoint",
}  # fmt: skip


def read_labelstudio(seen: Survey, files: list[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    images = [image for name in files for image in _images(seen, name)]
    found = object_set(seen, images, masks=masks, data=data)
    if found is not None and any("keypoint" in reason for _, reason in found.dropped):
        found.notes.append("keypoints are left out")
    return found


def _tasks(seen: Survey, name: str) -> list[dict[str, Any]]:
    try:
        content = load_json(seen.path(name).read_bytes())
    except OSError as error:
        raise DataError(f"{seen.path(name)}: cannot be read: {error.strerror}") from None
    return [task for task in (content if isinstance(content, list) else [content]) if isinstance(task, dict)]


def _images(seen: Survey, name: str) -> Iterator[ImageShapes]:
    index = ImageIndex(seen.root, seen.images)
    for position, task in enumerate(_tasks(seen, name)):
        written = _written(task.get("data") if isinstance(task.get("data"), dict) else task)
        if written is None:
            continue
        image = ImageShapes(name, without_prefix(written, index), None)
        for number, (kind, value, result) in enumerate(_results(task), start=1):
            label = f"{printable(name)}: task {task.get('id', position)}, region {number}"
            size = result.get("original_height"), result.get("original_width")
            if isinstance(size[0], int) and isinstance(size[1], int):
                image.size = (size[0], size[1])
            for text in value.get(kind) or []:
                try:
                    image.shapes.append(_shape(SHAPES[kind], value, str(text), label, image.size))
                except Fault as fault:
                    image.faults.append((label, str(fault)))
        yield image


def _results(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Of the first annotation that was not cancelled: kind, value, the result or region with the image's size."""
    done = [a for a in task.get("annotations") or task.get("completions") or [] if isinstance(a, dict) and not a.get("was_cancelled")]
    for result in (done[0].get("result") or []) if done else []:
        value = result.get("value") if isinstance(result, dict) else None
        for kind in SHAPES:
            if isinstance(value, dict) and kind in value:
                yield kind, value, result
    for regions in task.values():  # JSON-MIN
        for region in regions if isinstance(regions, list) else []:
            for kind in SHAPES:
                if isinstance(region, dict) and kind in region:
                    yield kind, region, region


def _written(data: Any) -> str | None:
    """The first value that is the path of an image."""
    texts = [v for v in data.values() if isinstance(v, str)] if isinstance(data, dict) else []
    return next((t for t in texts if re.search(r"\.(jpe?g|png|bmp|webp|tiff?|gif|heic|avif|jxl)($|\?)", t.lower())), None) or (
        texts[0] if texts else None
    )


def without_prefix(written: str, index: ImageIndex) -> str:
    """/data/upload/3/8a2b3c4d-part.jpg is part.jpg; /data/local-files/?d=set/part.jpg is set/part.jpg."""
    path = unquote(written.partition("?d=")[2] or written)
    base = plain(path).rpartition("/")[2]
    short = re.sub(r"^[0-9a-f]{8}-", "", base)
    if short != base and _absent(index, path):
        return short
    return path


def _absent(index: ImageIndex, path: str) -> bool:
    return index.find(path) is None


def _shape(kind: str, value: dict[str, Any], label: str, name: str, size: tuple[int, int] | None) -> Shape:
    if size is None:
        raise Fault("a region without the size of its image")
    if kind in ("brush", "keypoint"):
        raise Fault(f"a {kind}, which is not read" + ("; export as COCO or PNG" if kind == "brush" else ""))
    height, width = size
    if kind == "polygon":
        points = finite([v for point in value.get("points") or [] for v in point])
        pixels = tuple(v * (height if i % 2 else width) / 100 for i, v in enumerate(points))
        if len(pixels) < 6:
            raise Fault(f"a polygon of {len(pixels) // 2} points")
        return Shape(name, label, extent(pixels), (pixels,))
    if kind == "ellipse":
        x, y, rx, ry = finite([value.get(key) for key in ("x", "y", "radiusX", "radiusY")])
        outline = ellipse(x * width / 100, y * height / 100, rx * width / 100, ry * height / 100)
        return Shape(name, label, extent(outline), (outline,))
    x, y, w, h, turn = finite([*(value.get(key) for key in ("x", "y", "width", "height")), value.get("rotation") or 0])
    corners = rotated(x * width / 100, y * height / 100, w * width / 100, h * height / 100, turn)
    return Shape(name, label, extent(corners))


def choices(seen: Survey, files: list[str]) -> list[tuple[str, list[str]]]:
    """(written image, its choices) of every task that has some."""
    found = []
    index = ImageIndex(seen.root, seen.images)
    for name in files:
        for task in _tasks(seen, name):
            written = _written(task.get("data") if isinstance(task.get("data"), dict) else task)
            done = [
                a for a in task.get("annotations") or task.get("completions") or [] if isinstance(a, dict) and not a.get("was_cancelled")
            ]
            listed = [str(c) for r in (done[0].get("result") or [] if done else []) for c in (r.get("value") or {}).get("choices") or []]
            if written is not None and done:
                found.append((without_prefix(written, index), listed))
    return found if any(listed for _, listed in found) else []
