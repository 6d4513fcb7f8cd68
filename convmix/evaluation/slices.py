"""Where a run does worse than on the whole: its score over groups of images that have something in common.

a property of each image -> Grouping (which group each image belongs to) -> a Slice per group
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convmix.evaluation.robustness import with_accuracy
from convmix.metrics.resampling import Sampled

BUILT_IN = ("class", "size", "aspect", "brightness")  # properties that need no table
MOST_VALUES = 30  # groups of one property; what is rarer is one group together
FEWEST = 10  # images of a slice whose bootstrap is believed
_MOST_REMARKS = 5
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
    score: float  # the task's own, 0..1
    interval: tuple[float, float] | None  # 95 %
    worse: bool  # below the score of all images by more than chance explains
    correct: int | None = None  # images that are right, where the score is their share

    @property
    def accuracy(self) -> float:
        """The score of a classifier."""
        return self.score

    def to_dict(self) -> dict[str, Any]:
        return with_accuracy(asdict(self))


@dataclass(frozen=True)
class Grouping:
    """A property, and which of its values each image has."""

    by: str
    values: tuple[str, ...]
    groups: np.ndarray  # n int64, positions in `values`


def slices(groupings: Sequence[Grouping], sampled: Callable[[np.ndarray], Sampled], *, overall: float) -> tuple[Slice, ...]:
    """The score by group; `sampled` gives that of the images at some positions, `overall` is that of all. A property that all images
    share is left out: there is nothing to compare. So is a group in which there is nothing to score.

    A slice is called worse where its interval lies wholly below the score of all images. Of a share of images an exact one has to agree,
    since Wilson's alone would accuse a single wrong image; of other scores it has to be of `FEWEST` images at least.
    """
    found = []
    for grouping in groupings:
        sizes = np.bincount(grouping.groups, minlength=len(grouping.values))
        if (sizes > 0).sum() < 2:
            continue
        for i, value in enumerate(grouping.values):
            some = sampled(np.flatnonzero(grouping.groups == i)) if sizes[i] else None
            if some is not None and some.score is not None:
                correct = None if some.right is None else int(some.right.sum())
                found.append(Slice(grouping.by, value, some.n, *some.score, _is_worse(some, overall), correct))
    return tuple(found)


def by_appearance(sizes: np.ndarray, brightness: np.ndarray) -> list[Grouping]:
    """The properties of any images: sizes n,2 (height, width) and brightness n, 0 black to 255 white."""
    return [
        by_quarter("size", sizes.prod(1).astype(float), unit="pixels"),
        by_aspect(sizes),
        by_quarter("brightness", brightness, unit="of 255"),
    ]


def remarks(found: Sequence[Slice]) -> list[str]:
    """The slices that a person should know of, a line each."""
    worse = [s for s in found if s.worse and s.by != "class"]
    lines = [f"worse than the whole: {s.by} {s.value}, {100 * s.score:.2f} % of {s.n} images" for s in worse[:_MOST_REMARKS]]
    return [*lines, f"and {len(worse) - _MOST_REMARKS} more slices, on the page"] if len(worse) > _MOST_REMARKS else lines


def _is_worse(some: Sampled, overall: float) -> bool:
    from scipy.stats import binom

    assert some.score is not None
    if some.score.interval is None or some.score.interval[1] >= overall:
        return False
    return some.n >= FEWEST if some.right is None else bool(binom.cdf(some.right.sum(), some.n, overall) < _TAIL)


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
