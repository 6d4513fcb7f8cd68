"""Fields of COCO's JSON as tools write them: ids as text, crowds, outlines, and boxes in shares of the image, none above 1."""

import re
from collections.abc import Sequence
from typing import Any

from convmix.config import Size

ENOUGH = 5  # boxes; a single one of a pixel may be meant


def are_shares(annotations: Sequence[dict[str, Any]]) -> bool:
    boxes = [box for a in annotations if isinstance(box := a.get("bbox"), list) and len(box) == 4]
    numeric = [v for box in boxes for v in box if isinstance(v, int | float)]
    return len(boxes) >= ENOUGH and len(numeric) == 4 * len(boxes) and max(numeric) <= 1 and any(0 < v < 1 for v in numeric)


def in_pixels(annotation: dict[str, Any], size: Size) -> dict[str, Any]:
    """size: height, width of the upright image."""
    height, width = size
    found = dict(annotation)
    if isinstance(box := annotation.get("bbox"), list):
        found["bbox"] = [v * (height if i % 2 else width) for i, v in enumerate(box)]
    if isinstance(outlines := annotation.get("segmentation"), list):
        found["segmentation"] = [
            [v * (height if i % 2 else width) for i, v in enumerate(outline)] if isinstance(outline, list) else outline
            for outline in outlines
        ]
    return found


def key_of(identifier: Any) -> Any:
    """The same for 7, 7.0 and "7": tools write ids as numbers in one list and as text in the other."""
    if isinstance(identifier, str):
        return int(identifier) if re.fullmatch(r"0|[1-9]\d{0,17}", identifier.strip()) else identifier.strip()
    if isinstance(identifier, float) and identifier.is_integer():
        return int(identifier)
    return identifier if isinstance(identifier, int | float) else repr(identifier)


def is_crowd(annotation: dict[str, Any]) -> bool:
    return str(annotation.get("iscrowd") or 0).strip().lower() not in ("0", "false", "0.0")


def segmentation_of(annotation: dict[str, Any]) -> Any:
    """Without empty polygons; one written as a bare list of numbers is one polygon."""
    written = annotation.get("segmentation")
    if isinstance(written, list):
        written = [polygon for polygon in written if polygon != []]
        if written and all(isinstance(v, int | float) for v in written):
            written = [written]
    return written


def size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    size = image.get("height"), image.get("width")
    return (size[0], size[1]) if all(isinstance(side, int) and side > 0 for side in size) else None  # type: ignore[return-value]
