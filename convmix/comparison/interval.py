"""How sure a mean over a few trainings is: Student's interval, alone and for differences paired by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean with Student's 95 % interval; `low` and `high` are None for a single value, which says nothing about the spread."""

    value: float
    n: int
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does; values that are all equal, as on few test images, have none that could."""
        return self.low is not None and self.high is not None and self.low < self.high and (self.low > 0 or self.high < 0)

    def within(self, lowest: float, highest: float) -> "Mean":
        """The same with an interval that does not leave the possible values."""
        if self.low is None or self.high is None:
            return self
        return Mean(self.value, self.n, max(lowest, self.low), min(highest, self.high))


def mean_of(values: Sequence[float], *, confidence: float = 0.95) -> Mean:
    """The mean of independent values: +- t(n - 1) * s / sqrt(n). Raises ValueError for none."""
    from scipy.stats import t

    if not values:
        raise ValueError("no values to average")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(mean, 1, None, None)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Mean(mean, n, mean - half, mean + half)


def mean_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Mean | None:
    """The mean of value - base over the seeds that both have; None where they share none.

    Paired, because a seed's order of images and augmentation is the same for both, and so is part of its luck.
    """
    shared = sorted(values.keys() & base.keys())
    return mean_of([values[seed] - base[seed] for seed in shared]) if shared else None
