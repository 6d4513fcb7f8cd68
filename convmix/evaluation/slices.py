"""Where a run does worse than on the whole: its accuracy over groups of images that have something in common.

a property of each image -> Grouping (which group each image belongs to) -> a Slice per group
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convmix.metrics.classification import wilson_interval

BUILT_IN = ("class", "size", "aspect", "brightness")  # properties that need no table
MOST_VALUES = 30  # groups of one property; what is rarer is one group together
_QUARTERS = 4
_TAIL = 0.025  # of a 95 % interval, on one side
_ASPECTS = (  # width / height, up to and with the bound
    (1 / 2, "taller than 1:2"),
    (3 / 4, "tall, 1:2 to 3:4"),
    (4 / 3, "about square"),
    (2 / 1, "wide, 4:3 to 2:1"),
    (math.inf, "wider than 2:1"),
)


@dataclass(frozen=True)
class Slice:
    """The images of one group."""

    by: str  # what they have in common: class, size, aspect, brightness, or a column of the user's
    value: str
    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]  # Wilson's, 95 %
    worse: bool  # below the accuracy of all images by more than chance explains


@dataclass(frozen=True)
class Grouping:
    """A property, and which of its values each image has."""

    by: str
    values: tuple[str, ...]
    groups: np.ndarray  # n int64, positions in `values`


def slices(groupings: Sequence[Grouping], correct: np.ndarray) -> tuple[Slice, ...]:
    """Accuracy by group, `correct` being n bools. A property that all images share is left out: there is nothing to compare.

    A slice is called worse where its interval lies wholly below the accuracy of all images, and so would an exact one: Wilson's alone
    would accuse a single wrong image.
    """
    from scipy.stats import binom

    overall = float(correct.mean())
    found = []
    for grouping in groupings:
        sizes = np.bincount(grouping.groups, minlength=len(grouping.values))
        hits = np.bincount(grouping.groups, weights=correct, minlength=len(grouping.values))
        if (sizes > 0).sum() < 2:
            continue
        for value, n, hit in zip(grouping.values, sizes.tolist(), hits.tolist(), strict=True):
            if n:
                interval = wilson_interval(int(hit), n)
                worse = interval[1] < overall and bool(binom.cdf(hit, n, overall) < _TAIL)
                found.append(Slice(grouping.by, value, n, int(hit), hit / n, interval, worse))
    return tuple(found)


def by_value(by: str, values: Sequence[str]) -> Grouping:
    """One group per value, alphabetically; beyond `MOST_VALUES` the rarest are one group."""
    names, groups, counts = np.unique(np.asarray(values, dtype=object), return_inverse=True, return_counts=True)
    if len(names) > MOST_VALUES:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_VALUES - 1])
        position = np.full(len(names), len(kept))
        position[kept] = np.arange(len(kept))
        return Grouping(by, (*(str(names[i]) for i in kept), f"{len(names) - len(kept)} rarer values"), position[groups])
    return Grouping(by, tuple(str(name) for name in names), groups)


def by_quarter(by: str, values: np.ndarray, *, unit: str = "", digits: int = 0) -> Grouping:
    """Four groups of about as many images, from the lowest n values to the highest, named by their ends; nan is a group of its own."""
    known = ~np.isnan(values)
    edges = np.unique(np.quantile(values[known], np.arange(1, _QUARTERS) / _QUARTERS)) if known.any() else np.empty(0)
    groups = np.searchsorted(edges, values)  # a value on an edge belongs to the group below
    groups[~known] = len(edges) + 1
    names = []
    for g in range(len(edges) + 1):
        inside = values[known & (groups == g)]
        names.append(_between(inside.min(), inside.max(), unit, digits) if len(inside) else "")
    return Grouping(by, (*names, "not given"), groups)


def by_aspect(sizes: np.ndarray) -> Grouping:
    """Groups by width / height; `sizes` are n,2 (height, width)."""
    bounds = np.array([bound for bound, _ in _ASPECTS[:-1]])
    return Grouping("aspect", tuple(name for _, name in _ASPECTS), np.searchsorted(bounds, sizes[:, 1] / sizes[:, 0]))


def _between(low: float, high: float, unit: str, digits: int) -> str:
    ends = [f"{low:,.{digits}f}", f"{high:,.{digits}f}"]
    return (ends[0] if ends[0] == ends[1] else " to ".join(ends)) + (f" {unit}" if unit else "")
