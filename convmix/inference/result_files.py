"""One result in the forms that other programs read: JSON values, rows of a table, COCO, Pascal VOC, PNG. `prediction_files` writes them.

Boxes, Masks  -> objects (JSON) | rows | COCO annotations | VOC XML | a PNG whose values are the numbers of the objects
SemanticMap   -> shares (JSON)  | rows                               | a PNG whose values are the classes
ImageLabels   -> labels and probabilities (JSON) | rows
"""

import io
import re
from collections.abc import Sequence
from functools import singledispatch
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image

from convmix.data import rle
from convmix.results import Boxes, ImageLabels, Masks, SemanticMap

DenseResult = Boxes | SemanticMap | ImageLabels  # Masks are Boxes too
BETWEEN = "|"  # labels in a cell, as tables that training reads may have it
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML 1.0 cannot hold, not even escaped


@singledispatch
def to_dict(result: DenseResult) -> dict[str, Any]:
    """The result as plain JSON values, with the size of the image as [height, width]."""
    raise TypeError(f"no files are written of a {type(result).__name__}")


@to_dict.register
def _(result: Boxes) -> dict[str, Any]:
    return {"size": list(result.size), "objects": _objects(result)}


@to_dict.register
def _(result: SemanticMap) -> dict[str, Any]:
    shares = dict(zip(result.labels, result.shares.tolist(), strict=True))
    return {"size": list(result.classes.shape), "shares": shares, "certainty": float(result.certainty.double().mean())}


@to_dict.register
def _(result: ImageLabels) -> dict[str, Any]:
    said = [{"label": label, "probability": probability} for label, probability in result.said()]
    return {"labels": said, "probabilities": dict(zip(result.labels, result.probabilities.tolist(), strict=True))}


@singledispatch
def summary(result: DenseResult) -> tuple[str, str]:
    """What a person wants to know at a glance: what is in the image, and how sure the surest of it is."""
    raise TypeError(f"no files are written of a {type(result).__name__}")


@summary.register
def _(result: Boxes) -> tuple[str, str]:
    if not len(result):
        return "nothing", ""
    counts = np.bincount(result.columns.numpy(), minlength=len(result.labels))
    said = ", ".join(f"{counts[c]} {result.labels[c]}" for c in np.argsort(-counts, kind="stable") if counts[c])
    return said, f"{result.labels[int(result.columns[0])]} {percent(float(result.scores[0]))}"


@summary.register
def _(result: SemanticMap) -> tuple[str, str]:
    shares = result.shares.numpy()
    covering = [c for c in np.argsort(-shares, kind="stable") if shares[c] > 0]
    more = f" and {len(covering) - 6} more" if len(covering) > 6 else ""
    said = ", ".join(f"{result.labels[c]} {percent(shares[c])}" for c in covering[:6]) + more
    return said, percent(float(result.certainty.double().mean()))


@summary.register
def _(result: ImageLabels) -> tuple[str, str]:
    said = ", ".join(f"{label} {percent(probability)}" for label, probability in result.said())
    best = int(result.probabilities.argmax())
    return said or "no label", f"{result.labels[best]} {percent(float(result.probabilities[best]))}"


@singledispatch
def table_rows(result: DenseResult) -> list[tuple[object, ...]]:
    """Rows of a table: per object label, score, left, top, right, bottom, and the area of Masks; per class label, share;
    of ImageLabels a single one: the labels, and their probabilities."""
    raise TypeError(f"no files are written of a {type(result).__name__}")


@table_rows.register
def _(result: Boxes) -> list[tuple[object, ...]]:
    rows = [(o["label"], o["score"], *o["box"]) for o in _objects(result)]
    if isinstance(result, Masks):
        return [(*row, area) for row, area in zip(rows, areas(result).tolist(), strict=True)]
    return rows


@table_rows.register
def _(result: SemanticMap) -> list[tuple[object, ...]]:
    return list(zip(result.labels, result.shares.tolist(), strict=True))


@table_rows.register
def _(result: ImageLabels) -> list[tuple[object, ...]]:
    said = result.said()
    return [(BETWEEN.join(label for label, _ in said), BETWEEN.join(f"{probability:.6f}" for _, probability in said))]


def areas(result: Boxes) -> np.ndarray:
    """n, pixels: what the outlines enclose, or the boxes where there are none."""
    if isinstance(result, Masks):
        return rle.areas(result.masks, result.size)
    boxes = result.boxes.numpy().astype(np.float64)
    area: np.ndarray = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).round(2)
    return area


def coco_annotations(result: Boxes, *, image_id: Any, category_ids: Sequence[Any], first_id: int) -> list[dict[str, Any]]:
    """The objects as annotations of a COCO file, with the ids of their image and of every class; boxes are left, top, width, height."""
    annotations = []
    for i, (o, column, area) in enumerate(zip(_objects(result), result.columns.tolist(), areas(result).tolist(), strict=True)):
        left, top, right, bottom = o["box"]
        annotation = {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": category_ids[column],
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "area": area,
            "iscrowd": 0,
            "score": o["score"],
        }
        annotations.append(annotation | ({"segmentation": o["segmentation"]} if "segmentation" in o else {}))
    return annotations


def voc(result: Boxes, name: str) -> bytes:
    """Pascal VOC XML; the boxes are whole pixels, at least one wide and high, and every object has its score."""
    height, width = result.size
    root = ElementTree.Element("annotation")
    folder, _, filename = name.rpartition("/")
    for tag, text in (("folder", folder), ("filename", filename)):
        ElementTree.SubElement(root, tag).text = _xml_text(text)
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for o in _objects(result):
        found = ElementTree.SubElement(root, "object")
        told = {"name": o["label"], "pose": "Unspecified", "truncated": "0", "difficult": "0", "score": str(o["score"])}
        for tag, text in told.items():
            ElementTree.SubElement(found, tag).text = _xml_text(text)
        box = ElementTree.SubElement(found, "bndbox")
        left, top = (min(round(o["box"][i]), end - 1) for i, end in ((0, width), (1, height)))
        right, bottom = max(round(o["box"][2]), left + 1), max(round(o["box"][3]), top + 1)
        for tag, value in (("xmin", left), ("ymin", top), ("xmax", right), ("ymax", bottom)):
            ElementTree.SubElement(box, tag).text = str(value)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def instances_png(result: Masks) -> bytes:
    """A PNG of 16 bits: 0 where nothing is, else 1 + the object's position; of objects that overlap the surest is in front.

    Raises ValueError for more objects than 16 bits can number.
    """
    if len(result) > 65_535:
        raise ValueError(f"{len(result)} objects cannot be numbered in 16 bits")
    numbers = np.zeros(result.size, np.uint16)
    for i in reversed(range(len(result))):  # one at a time: all masks of a large image at once may not fit in memory
        numbers[rle.decode(result.masks[i : i + 1], result.size)[0] > 0] = i + 1
    return _png(PIL.Image.fromarray(numbers))


def classes_png(result: SemanticMap, palette: Sequence[Sequence[int]]) -> bytes:
    """A PNG of the same size whose values are the classes: with a palette (RGB per class), or of 16 bits for more than 256 classes."""
    classes = result.classes.numpy()
    if len(result.labels) > 256:
        return _png(PIL.Image.fromarray(classes.astype(np.uint16)))
    picture = PIL.Image.fromarray(classes.astype(np.uint8), "P")
    picture.putpalette([int(value) for colour in palette for value in colour])
    return _png(picture)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _objects(result: Boxes) -> list[dict[str, Any]]:
    """One dictionary per object: label, score 0..1, box (left, top, right, bottom in pixels), and the mask as COCO has it."""
    boxes, scores, columns = result.boxes.double().numpy().round(2).tolist(), result.scores.tolist(), result.columns.tolist()
    objects: list[dict[str, Any]] = [
        {"label": result.labels[c], "score": score, "box": box} for c, score, box in zip(columns, scores, boxes, strict=True)
    ]
    if isinstance(result, Masks):
        for o, counts in zip(objects, result.masks, strict=True):
            o["segmentation"] = {"size": list(result.size), "counts": counts.decode("ascii")}
    return objects


def _xml_text(text: str) -> str:
    return _NOT_XML.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _png(picture: PIL.Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=False)
    return out.getvalue()
