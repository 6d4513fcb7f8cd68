"""JSON with boxes of many images in a file: CreateML's and BDD100K's (also Scalabel's) -> ObjectSet.

CreateML   [{"image": "1.jpg", "annotations": [{"label": "nut", "coordinates": {"x": centre, "y": centre, "width", "height"}}]}]
BDD100K    [{"name": "1.jpg", "labels": [{"category": "car", "box2d": {"x1", "y1", "x2", "y2"}}]}], or an image a file with frames

Formats: https://developer.apple.com/documentation/createml/building-an-object-detector-data-source, https://doc.bdd100k.com/format.html.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from convmix.config import Data
from convmix.data.formats import printable
from convmix.data.readers.evidence import load_json
from convmix.data.readers.objectrows import Fault, ObjectSet
from convmix.data.readers.shapes import ImageShapes, Shape, finite, object_set
from convmix.data.readers.splits import folder_split
from convmix.data.readers.survey import Survey, folder_of, stem_of
from convmix.errors import DataError


def read_createml(seen: Survey, files: Sequence[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    """Boxes alone, in pixels."""
    images = []
    for name in files:
        for entry in _entries(seen, name):
            written = next((entry[k] for k in ("image", "imagefilename", "filename") if isinstance(entry.get(k), str)), None)
            if written:
                image = ImageShapes(name, written, None, split=_split(name, files))
                _add(image, entry.get("annotations") or entry.get("annotation"), _createml)
                images.append(image)
    return object_set(seen, images, masks=bool(masks), data=data)


def read_bdd100k(seen: Survey, files: Sequence[str], *, masks: bool | None, data: Data) -> ObjectSet | None:
    """Boxes alone, in pixels; lanes and areas, which have no box2d, are left out."""
    images = []
    for name in files:
        for entry in _entries(seen, name):
            frames = [f for f in entry.get("frames") or () if isinstance(f, dict)]
            written = entry.get("name")
            if isinstance(written, str) and written:
                image = ImageShapes(name, written, None, split=_split(name, files))
                _add(image, entry.get("labels") or [o for f in frames[:1] for o in f.get("objects") or ()], _bdd100k)
                images.append(image)
    return object_set(seen, images, masks=bool(masks), data=data)


def _split(name: str, files: Sequence[str]) -> str | None:
    """The split that a file's name or folder tells, where there is more than one file for many images each."""
    return folder_split(stem_of(name), exact=False) or folder_split(folder_of(name)) if 1 < len(files) <= 8 else None


def _entries(seen: Survey, name: str) -> Iterator[dict[str, Any]]:
    try:
        content = load_json(seen.path(name).read_bytes())
    except OSError as error:
        raise DataError(f"{seen.path(name)}: cannot be read: {error.strerror}") from None
    if isinstance(content, dict) and isinstance(content.get("frames"), list) and "name" not in content:
        content = content["frames"]  # Scalabel's list of images
    yield from (entry for entry in (content if isinstance(content, list) else [content]) if isinstance(entry, dict))


def _add(image: ImageShapes, listed: Any, read: Any) -> None:
    for number, one in enumerate(listed if isinstance(listed, list) else [], start=1):
        name = printable(f"{image.source}: {image.written}, object {number}")
        try:
            if not isinstance(one, dict):
                raise Fault("no object of JSON")
            image.shapes.append(read(one, name))
        except Fault as fault:
            image.faults.append((name, str(fault)))


def _createml(one: dict[str, Any], name: str) -> Shape:
    place = one.get("coordinates")
    if not isinstance(place, dict) or not str(one.get("label") or "").strip():
        raise Fault("an object without label or coordinates")
    x, y, width, height = finite([place.get(k) for k in ("x", "y", "width", "height")])
    return Shape(name, str(one["label"]).strip(), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _bdd100k(one: dict[str, Any], name: str) -> Shape:
    box, label = one.get("box2d"), str(one.get("category") or "").strip()
    if not isinstance(box, dict) or not label:
        raise Fault("an object without box2d: a lane or an area")
    left, top, right, bottom = finite([box.get(k) for k in ("x1", "y1", "x2", "y2")])
    return Shape(name, label, (left, top, right, bottom))
