"""COCO's average precision and recall of found objects, with the uncertainty that the number of images leaves.

matches of a class (`matching`) x weights of the images -> precision over recall -> AP and AR, averaged over classes and overlaps

A resample of the images is a weight for each of them, so one accumulation serves the score (every weight 1) and its bootstrap interval.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from convmix.data.targets import Objects
from convmix.metrics.matching import AREAS, MOST, OVERLAPS, Matches, match
from convmix.results import Boxes

RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision
RESAMPLES = 1000
FEWEST = 200  # resamples of a large set: 17 s for 5,000 images of 100 found objects, on one core; matching them takes 5 s
_WORK = 30_000_000  # found objects times resamples up to which there are RESAMPLES: some seconds
_AT_ONCE = 2_000_000  # numbers held at a time, for the memory

_ALL, _T50, _T75 = list(AREAS).index("all"), 0, 5


def detection_metrics(
    found: Sequence[Boxes], truths: Sequence[Objects], classes: Sequence[str], *, masks: bool = False, intervals: bool = True
) -> dict[str, Any]:
    """COCO's twelve scores of what was found in n images, as plain JSON values: ap (over overlaps .50 to .95), ap50, ap75, ap_small,
    ap_medium, ap_large, ar1, ar10, ar100 (1, 10, 100 objects per image and class), ar_small, ar_medium, ar_large; all in 0..1, None where
    there is no such object.

    per_class: ap and ap50, the true objects, and precision, recall and F1 at overlap .50 at the score threshold where F1 is highest. With
    `masks` the scores of the masks stand beside those of the boxes, as mask_ap and so on. With `intervals` every score of the whole has
    its 95 % interval, and ap and ap50 of a class: bootstrap over images, None where no resample differs, and too narrow where few images
    have such objects. Crowds are ignored regions. Raises ValueError for no images, or where results and truths do not belong together.
    """
    n = len(truths)
    if n == 0:
        raise ValueError("no images to score")
    metrics: dict[str, Any] = {"n": n, "objects": sum(int((~t.crowd).sum()) for t in truths)}
    per_class: dict[str, dict[str, Any]] = {
        name: {"objects": sum(int(((t.labels == c) & ~t.crowd).sum()) for t in truths)} for c, name in enumerate(classes)
    }
    for prefix, outlines in (("", False), ("mask_", True))[: 1 + masks]:
        matches = match(found, truths, len(classes), masks=outlines)
        whole = scores(matches, np.ones((1, n), np.int64))
        resampled = scores(matches, resamples(n, sum(map(len, matches)))) if intervals else None
        for name, values in whole.items():
            if values.ndim == 1:
                metrics[prefix + name] = _plain(values[0])
                if resampled:
                    metrics[f"{prefix}{name}_interval"] = _ends(resampled[name], values[0])
                continue
            for c, of_class in enumerate(per_class.values()):
                key = prefix + name.removeprefix("class_")
                of_class[key] = _plain(values[0, c])
                if resampled:
                    of_class[f"{key}_interval"] = _ends(resampled[name][:, c], values[0, c])
        for of_class, m in zip(per_class.values(), matches, strict=True):
            of_class |= {prefix + name: value for name, value in best_threshold(m).items()}
    return metrics | {"per_class": per_class}


def precision_recall(
    found: Sequence[Boxes], truths: Sequence[Objects], classes: Sequence[str], *, masks: bool = False
) -> dict[str, dict[str, list[float]]]:
    """Per class that has objects: 101 recalls, and the highest precision at overlap .50 that reaches each of them (0 where none does)."""
    curves = {}
    for name, m in zip(classes, match(found, truths, len(classes), masks=masks), strict=True):
        objects = m.objects[_ALL].sum()
        if objects:
            hits, precision = _envelope(m, _by_object(m, np.ones((1, len(truths)), np.int64)), _ALL, _T50)
            at = np.searchsorted(hits[:, 0] / objects, RECALLS)
            curves[name] = {"recall": RECALLS.tolist(), "precision": np.append(precision[:, 0], np.zeros(1))[at].tolist()}
    return curves


def scores(matches: Sequence[Matches], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of r samples of n images, where weights, r,n int64, say how often each image was drawn; nan where there is no object.

    r float64 each; class_ap and class_ap50 are r,k.
    """
    precision = np.stack([average_precision(m, weights) for m in matches], 1)  # r,k,a,t
    recall = {most: np.stack([average_recall(m, weights, most) for m in matches], 1) for most in (1, 10, MOST)}
    sizes = {name: a for a, name in enumerate(AREAS) if a != _ALL}
    return (
        {"ap": _mean(precision[:, :, _ALL]), "ap50": _mean(precision[:, :, _ALL, _T50]), "ap75": _mean(precision[:, :, _ALL, _T75])}
        | {f"ap_{name}": _mean(precision[:, :, a]) for name, a in sizes.items()}
        | {f"ar{most}": _mean(values[:, :, _ALL]) for most, values in recall.items()}
        | {f"ar_{name}": _mean(recall[MOST][:, :, a]) for name, a in sizes.items()}
        | {"class_ap": precision[:, :, _ALL].mean(2), "class_ap50": precision[:, :, _ALL, _T50]}
    )


def mean_ap(matches: Sequence[Matches], weights: np.ndarray) -> np.ndarray:
    """The `ap` of `scores` alone."""
    return _mean(np.stack([average_precision(m, weights, areas=(_ALL,))[:, _ALL] for m in matches], 1))


def average_precision(m: Matches, weights: np.ndarray, *, areas: Sequence[int] = range(len(AREAS))) -> np.ndarray:
    """AP of one class in r samples, r,n int64 weights -> r,a,t; nan where a sample has no such object, and beside the `areas` asked for."""
    rows = max(_AT_ONCE // max(len(m), 1), 1)
    return np.concatenate([_average_precision(m, weights[r : r + rows], areas) for r in range(0, len(weights), rows)])


def _average_precision(m: Matches, weights: np.ndarray, areas: Sequence[int]) -> np.ndarray:
    objects = weights @ m.objects.T  # r,a
    by_object = _by_object(m, weights)
    area = np.full((len(weights), len(AREAS), len(OVERLAPS)), np.nan)
    for a, t in itertools.product(areas, range(len(OVERLAPS))):
        present = objects[:, a] > 0
        hits, precision = _envelope(m, by_object, a, t)
        recall = hits / np.where(present, objects[:, a], 1)  # p,r
        reached = np.searchsorted(RECALLS, recall, side="right")  # p,r: how many of the 101 recalls
        area[:, a, t] = np.where(present, (np.diff(reached, axis=0, prepend=0) * precision).sum(0) / len(RECALLS), np.nan)
    return area


def _by_object(m: Matches, weights: np.ndarray) -> np.ndarray:
    """d,r int32: how often each found object is in each sample. Samples last, as sums run along the objects."""
    return np.ascontiguousarray(weights.T.astype(np.int32))[m.image]


def _envelope(m: Matches, by_object: np.ndarray, a: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """At each of the p hits, in r samples: the hits so far, and the best precision there or further on; p,r each.

    Precision only falls between two hits, so nothing is lost by looking at the hits alone.
    """
    counted = np.flatnonzero(m.counted[a, t])
    right = np.flatnonzero(m.hit[a, t][counted])  # p, places among those counted
    if not len(right):
        return np.zeros((0, by_object.shape[1]), np.int32), np.zeros((0, by_object.shape[1]))
    hits = np.cumsum(by_object[counted[right]], axis=0, dtype=np.int32)
    starts = np.concatenate([[0], right[:-1] + 1])  # each hit with the false ones before it
    seen = np.cumsum(np.add.reduceat(by_object[counted[: right[-1] + 1]], starts, axis=0, dtype=np.int32), axis=0, dtype=np.int32)
    precision = hits / np.maximum(seen, 1)
    return hits, np.maximum.accumulate(precision[::-1], axis=0)[::-1]


def average_recall(m: Matches, weights: np.ndarray, most: int) -> np.ndarray:
    """Share of the objects of one class found among the `most` surest of each image, r,n weights -> r,a,t; nan without an object."""
    objects = (weights @ m.objects.T)[:, :, None]  # r,a,1
    hits = np.stack(
        [weights @ np.bincount(m.image[hit & (m.rank < most)], minlength=weights.shape[1]) for by_area in m.hit for hit in by_area], 1
    ).reshape(len(weights), len(AREAS), len(OVERLAPS))
    return np.where(objects > 0, hits / np.maximum(objects, 1), np.nan)


def best_threshold(m: Matches) -> dict[str, float | None]:
    """Precision, recall and F1 of one class at overlap .50 at the score from which F1 is highest, and that threshold.

    None, all of it, without an object; the threshold and the precision also where nothing right was found or nothing at all.
    """
    objects = int(m.objects[_ALL].sum())
    if not objects:
        return {"precision": None, "recall": None, "f1": None, "threshold": None}
    counted = m.counted[_ALL, _T50]
    score, hits = m.score[counted], np.cumsum(m.hit[_ALL, _T50][counted])
    if not len(hits) or not hits[-1]:
        return {"precision": 0.0 if len(hits) else None, "recall": 0.0, "f1": 0.0, "threshold": None}
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    last = np.append(score[1:] != score[:-1], True)  # a threshold parts no equal scores
    best = int(np.argmax(np.where(last, f1, -1)))
    return {
        "precision": float(hits[best] / (best + 1)), "recall": float(hits[best] / objects), "f1": float(f1[best]),
        "threshold": float(score[best]),
    }  # fmt: skip


def resamples(n: int, found: int) -> np.ndarray:
    """How often each of n images is drawn in each resample: r,n int64, the same every time; fewer the more objects there are."""
    r = int(np.clip(_WORK // max(found, 1), FEWEST, RESAMPLES))
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=r)


def _mean(values: np.ndarray) -> np.ndarray:
    """r,... -> r, over what is not nan; nan where all is."""
    rows = values.reshape(len(values), -1)
    known = ~np.isnan(rows)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, rows, 0).sum(1) / np.maximum(count, 1), np.nan)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ends(values: np.ndarray, score: float) -> list[float] | None:
    """The middle 95 % of the resamples' scores, moved by twice their bias.

    COCO's precision is the best further on, so an image drawn twice helps: resamples score higher than what they are drawn from, as that
    does itself than what it stands for. Unmoved, the interval of 72 images held the truth in 70 to 80 cases of 100 instead of about 94.
    """
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return None
    low, high = np.percentile(values, (2.5, 97.5)) - 2 * (values.mean() - score)
    return [float(max(min(low, score), 0)), float(min(max(high, score), 1))]
