"""How far two answers to the same image are apart, by the type of the answer.

Classes       largest difference of a probability; the same first class or not
ImageLabels   largest difference of a probability; share of the labels that both say, or both do not
Boxes, Masks  largest difference of a score, of objects found by both; share of the objects that both found
SemanticMap   mean difference of a pixel's certainty; share of the pixels with the same class
"""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch

from convmix.results import Boxes, Classes, ImageLabels, SemanticMap

SEEN = 0.3  # score from which an object counts
SAME = 0.9  # overlap (intersection over union) from which two boxes are one


@dataclass(frozen=True)
class Agreement:
    """Between two answers to one image, or several."""

    difference: float  # 0..1
    agreed: float  # of `compared`
    compared: int  # images, objects or pixels


@singledispatch
def agreement(before: Any, after: Any) -> Agreement:
    """Between two answers of the same type."""
    raise TypeError(f"no comparison of {type(before).__name__}")


@agreement.register
def _(before: Classes, after: Classes) -> Agreement:
    same = before.probabilities.argmax(1) == after.probabilities.argmax(1)
    return Agreement(float((before.probabilities - after.probabilities).abs().max()), int(same.sum()), len(same))


@agreement.register
def _(before: ImageLabels, after: ImageLabels) -> Agreement:
    same = before.present == after.present
    return Agreement(float((before.probabilities - after.probabilities).abs().max()), int(same.sum()), len(same))


@agreement.register
def _(before: Boxes, after: Boxes) -> Agreement:
    """An object counts where either says it is there; one that the other has too, with any score, is found by both."""
    from torchvision.ops import box_iou

    agreed = compared = 0
    difference = 0.0
    for one, other in ((before, after), (after, before)):
        seen = one.above(SEEN)
        fits = (box_iou(seen.boxes, other.boxes) >= SAME) & (seen.columns[:, None] == other.columns)  # seen,others
        apart = (seen.scores[:, None] - other.scores).abs().where(fits, torch.inf)
        nearest = apart.amin(1) if len(other) else torch.full((len(seen),), torch.inf)
        found = nearest.isfinite()
        difference = max([difference, *nearest[found].tolist()])
        agreed, compared = agreed + int(found.sum()), compared + len(seen)
    return Agreement(difference, agreed, compared)


@agreement.register
def _(before: SemanticMap, after: SemanticMap) -> Agreement:
    same = before.classes == after.classes
    return Agreement(float((before.certainty - after.certainty).abs().mean()), int(same.sum()), same.numel())


def together(parts: list[Agreement]) -> Agreement:
    """Of all images: the largest difference."""
    return Agreement(max(p.difference for p in parts), sum(p.agreed for p in parts), sum(p.compared for p in parts))
