"""The score of any part of some images, and how sure it is: what slices, robustness and engines ask of every task alike.

n images with their answers -> how often each counts, r,n -> the score of each of r samples -> value with 95 % interval
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from convmix.metrics.classification import wilson_interval

RESAMPLES, FEWEST = 400, 100
_WORK = 400_000  # images times resamples up to which there are RESAMPLES
ENDS = (2.5, 97.5)  # per cent: the middle 95 %


class Score(NamedTuple):
    """How good answers are, where the truth is known."""

    value: float  # 0..1
    interval: tuple[float, float] | None = None  # 95 %; None: the images cannot say


@dataclass(frozen=True)
class Sampled:
    """One score of n images, and of what is drawn from them."""

    n: int
    of: Callable[[np.ndarray], np.ndarray]  # r,n int64, how often each image counts -> r; nan where there is nothing to score
    right: np.ndarray | None = None  # n bool, where the score is the share of images that are right
    is_biased: bool = False  # whether samples that are drawn score higher than what they are drawn from, as interpolated precision does

    @classmethod
    def share(cls, right: np.ndarray) -> "Sampled":
        """Of n bools."""
        return cls(len(right), lambda weights: weights @ right / np.maximum(weights.sum(1), 1), right)

    @cached_property
    def score(self) -> Score | None:
        """Of all images: Wilson's interval of a share, else the percentile bootstrap over images; None where there is nothing to score."""
        if not self.n:
            return None
        if self.right is not None:
            hits = int(self.right.sum())
            return Score(hits / self.n, wilson_interval(hits, self.n))
        value = float(self.of(np.ones((1, self.n), np.int64))[0])
        return None if np.isnan(value) else Score(value, self._interval(value))

    def _interval(self, value: float) -> tuple[float, float] | None:
        count = int(np.clip(_WORK // self.n, FEWEST, RESAMPLES))
        drawn = self.of(np.random.default_rng(0).multinomial(self.n, np.full(self.n, 1 / self.n), size=count))
        drawn = drawn[~np.isnan(drawn)]
        if not len(drawn) or drawn.min() == drawn.max():  # such a sample cannot say how far it may be off
            return None
        low, high = np.percentile(drawn, ENDS) - (2 * (drawn.mean() - value) if self.is_biased else 0)
        return float(max(min(low, value), 0)), float(min(max(high, value), 1))
