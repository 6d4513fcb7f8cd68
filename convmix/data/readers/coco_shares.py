"""COCO's JSON with boxes and outlines in shares of the image, which some converters write: known by numbers, none of which is above 1."""

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
            [v * (height if i % 2 else width) for i, v in enumerate(outline)] if isinstance(outline, list) else outline for outline in outlines
        ]
    return found
