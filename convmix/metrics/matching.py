"""Which found object is which true one: COCO's matching, in the four size ranges and ten overlaps of its scores.

found and true objects of an image -> overlaps by class -> one greedy pass, the surest first -> hit, false or ignored

The overlaps are faster-coco-eval's. Its matches cannot be read from outside, and the bootstrap, the curves and the galleries of
`detection_metrics` need them, so the greedy pass stands here, all lanes (size range by overlap) at a time. Lin et al. 2014,
arXiv 1405.0312; tests hold it to pycocotools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import mask as coco

from convmix.config import Size
from convmix.data import rle
from convmix.data.targets import Objects
from convmix.results import Boxes, Masks

OVERLAPS = np.linspace(0.5, 0.95, 10)  # intersection over union from which a found object is right
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels, both ends in
MOST = 100  # found objects of an image and class that are looked at, the surest first


@dataclass(frozen=True)
class Matches:
    """What became of the d objects found of one class in n images, the surest first; a,t: size ranges and overlaps.

    Neither hit nor counted is what lies on a crowd, or is of another size than the range asks for.
    """

    image: np.ndarray  # d int64, 0..n-1
    score: np.ndarray  # d float64
    rank: np.ndarray  # d int64: place among those of its image
    hit: np.ndarray  # a,t,d bool: right
    counted: np.ndarray  # a,t,d bool: right or false
    objects: np.ndarray  # a,n int64: true objects to be found

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Verdict:
    """What is right and wrong in one image, as positions in what was found and in the truth, int64 each."""

    right: np.ndarray  # found
    confused: np.ndarray  # found, on an object of another class
    false: np.ndarray  # found, where nothing is
    missed: np.ndarray  # true, not found under any class
    partner: np.ndarray  # per found object: the true one that it is right or confused about, -1: none

    @property
    def errors(self) -> int:
        return len(self.confused) + len(self.false) + len(self.missed)


def match(found: Sequence[Boxes], truths: Sequence[Objects], num_classes: int, *, masks: bool = False) -> list[Matches]:
    """Per class the matches of n images, by boxes or by `masks`.

    The size of a true object is its mask's area wherever it has a mask, as in COCO's annotations, also where boxes are matched; the size
    of a found one is that of what is matched. Raises ValueError where results and truths do not belong together, or masks are missing.
    """
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(num_classes)]  # by class: image, score, rank, hit, counted
    objects = np.zeros((num_classes, len(AREAS), len(truths)), np.int64)
    low, high = (np.array(ends)[:, None] for ends in zip(*AREAS.values(), strict=True))  # a,1
    thresholds = np.tile(OVERLAPS, len(AREAS))  # a*t lanes
    for i, (f, t) in enumerate(zip(found, truths, strict=True)):
        _check(f, t, masks)
        columns, scores = f.columns.numpy(), f.scores.double().numpy()
        found_area, true_area = _found_areas(f, masks), true_areas(t)
        for c in np.union1d(columns, t.labels):
            which = np.flatnonzero(columns == c)
            which = which[np.argsort(-scores[which], kind="stable")][:MOST]
            true = np.flatnonzero(t.labels == c)
            ignored = t.crowd[true] | (true_area[true] < low) | (true_area[true] > high)  # a,g
            objects[c, :, i] = (~ignored).sum(1)
            if not len(which):
                continue
            lanes = np.repeat(ignored, len(OVERLAPS), 0)  # a*t,g
            partner = assign(overlaps(f, which, t, true, masks), lanes, t.crowd[true], thresholds)  # a*t,d
            on_ignored = np.zeros(partner.shape, bool)
            if len(true):
                on_ignored = (partner >= 0) & np.take_along_axis(lanes, partner.clip(0), 1)
            other_size = (found_area[which] < low) | (found_area[which] > high)  # a,d
            hit = (partner >= 0) & ~on_ignored
            counted = hit | ((partner < 0) & ~np.repeat(other_size, len(OVERLAPS), 0))
            shape = (len(AREAS), len(OVERLAPS), len(which))
            parts[c].append((np.full(len(which), i), scores[which], np.arange(len(which)), hit.reshape(shape), counted.reshape(shape)))
    return [_joined(p, o) for p, o in zip(parts, objects, strict=True)]


def match_image(found: Boxes, truth: Objects, *, iou: float = 0.5, threshold: float, masks: bool = False) -> Verdict:
    """What is right and wrong among the objects of one image whose score reaches the threshold.

    First every class by itself, as COCO matches; then what is left over is confused where it overlaps a left-over object of another class.
    What lies on a crowd of its class is neither right nor wrong.
    """
    _check(found, truth, masks)
    scores, columns = found.scores.double().numpy(), found.columns.numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    everything = np.arange(len(truth))
    overlap = overlaps(found, order, truth, everything, masks)
    same = columns[order, None] == truth.labels
    level = np.array([iou])
    own = assign(np.where(same, overlap, -1.0), truth.crowd[None], truth.crowd, level)[0]
    on_crowd = (own >= 0) & truth.crowd[own] if len(truth) else np.zeros(len(order), bool)
    left = np.flatnonzero(own < 0)
    free = np.setdiff1d(everything[~truth.crowd], own)
    other = assign(overlap[np.ix_(left, free)], np.zeros((1, len(free)), bool), np.zeros(len(free), bool), level)[0]
    partner = np.full(len(found), -1)
    partner[order] = np.where(on_crowd, -1, own)
    partner[order[left[other >= 0]]] = free[other[other >= 0]]
    return Verdict(
        right=order[(own >= 0) & ~on_crowd], confused=order[left[other >= 0]], false=order[left[other < 0]],
        missed=np.setdiff1d(free, partner), partner=partner,
    )  # fmt: skip


def assign(overlap: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Greedy matching in l independent lanes: which true object, -1 for none, each found one gets, l,d int64.

    overlap: d,g, the surest found object first; ignored: l,g bool; crowd: g bool, those may be given more than once; thresholds: l. Each
    found object takes the free true one that it overlaps most, an ignored one only where no other is left.
    """
    lanes, (d, g) = len(thresholds), overlap.shape
    partner = np.full((lanes, d), -1)
    if not d or not g:
        return partner
    place = overlap.argsort(1, kind="stable").argsort(1)  # d,g: of two equal overlaps COCO takes the later object
    free = np.ones((lanes, g), bool)
    every = np.arange(lanes)
    first_choice = np.where(ignored, 0, g)  # l,g
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for row in np.flatnonzero(overlap.max(1) >= least.min()):
        key = np.where(free & (overlap[row] >= least), place[row] + first_choice, -1)  # l,g
        best = key.argmax(1)
        matched = key[every, best] >= 0
        partner[matched, row] = best[matched]
        free[every[matched], best[matched]] = crowd[best[matched]]
    return partner


def overlaps(found: Boxes, which: np.ndarray, truth: Objects, true: np.ndarray, masks: bool) -> np.ndarray:
    """d,g float64: intersection over union, over the found object's area where the true one is a crowd."""
    if not len(which) or not len(true):
        return np.zeros((len(which), len(true)))
    crowd = truth.crowd[true].astype(int).tolist()
    if not masks:
        return np.asarray(coco.iou(_xywh(found.boxes.numpy()[which]), _xywh(truth.boxes[true]), crowd))
    assert isinstance(found, Masks) and truth.masks is not None  # _check has seen it
    return np.asarray(coco.iou(_runs(found.masks, which, found.size), _runs(truth.masks, true, truth.size), crowd))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    xyxy = boxes.astype(np.float64)
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)


def _runs(counts: Sequence[bytes], which: np.ndarray, size: Size) -> list[dict[str, object]]:
    return [{"size": [int(size[0]), int(size[1])], "counts": counts[i]} for i in which]


def _found_areas(found: Boxes, masks: bool) -> np.ndarray:
    if masks and isinstance(found, Masks):
        return rle.areas(found.masks, found.size).astype(np.float64)
    return _xywh(found.boxes.numpy())[:, 2:].prod(1)


def true_areas(truth: Objects) -> np.ndarray:
    """m float64, pixels: of the masks, or of the boxes where there are none."""
    return _xywh(truth.boxes)[:, 2:].prod(1) if truth.masks is None else rle.areas(truth.masks, truth.size).astype(np.float64)


def _check(found: Boxes, truth: Objects, masks: bool) -> None:
    if tuple(found.size) != tuple(truth.size):
        raise ValueError(f"objects found in an image of {found.size}, truth of an image of {truth.size}")
    if masks and not (isinstance(found, Masks) and truth.masks is not None):
        raise ValueError("masks are to be matched, but the " + ("truth" if isinstance(found, Masks) else "result") + " holds boxes alone")


def _joined(parts: list[tuple[np.ndarray, ...]], objects: np.ndarray) -> Matches:
    if not parts:
        none = np.zeros((len(AREAS), len(OVERLAPS), 0), bool)
        return Matches(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), none, none, objects)
    image, score, rank, hit, counted = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    return Matches(image[order], score[order], rank[order], hit[..., order], counted[..., order], objects)
