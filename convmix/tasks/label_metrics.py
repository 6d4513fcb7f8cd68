"""Scores where an image may have several labels, with the uncertainty that the number of images leaves; what nobody knows is left out.

probabilities n,k + truth n,k (1, 0, UNKNOWN) + thresholds k -> Judged -> scores of the images, or of resamples of them

Average precision: Everingham et al. 2010, as scikit-learn computes it (no interpolation). Ranking loss: Schapire and Singer 2000.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from convmix.data.targets import UNKNOWN
from convmix.metrics.calibration import expected_calibration_error
from convmix.metrics.classification import wilson_interval

RESAMPLES, FEWEST = 1000, 200
_WORK = 400_000_000  # probabilities that all resamples together may hold; of more there are fewer resamples
ENDS = (2.5, 97.5)  # per cent: the middle 95 %
WHOLE = ("map", "macro_f1", "micro_f1", "sample_f1", "subset_accuracy", "ranking_loss", "loss")  # scores of all labels together


@dataclass(frozen=True)
class Judged:
    """n images with the probabilities of k labels, and which of them are true, as far as that is known."""

    probabilities: np.ndarray  # n,k float64, 0..1
    truth: np.ndarray  # n,k int8: 1, 0 or UNKNOWN
    thresholds: np.ndarray  # k float64: from this probability on the label is said

    def __post_init__(self) -> None:
        p, n, k = self.probabilities, len(self.truth), len(self.thresholds)
        if p.shape != (n, k) or self.truth.shape != (n, k):
            raise ValueError(
                f"probabilities are {p.shape}, truth {self.truth.shape}, thresholds {self.thresholds.shape}, expected n,k twice"
            )

    @cached_property
    def known(self) -> np.ndarray:
        """n,k bool."""
        known: np.ndarray = self.truth != UNKNOWN
        return known

    @cached_property
    def true(self) -> np.ndarray:
        """n,k bool."""
        true: np.ndarray = self.truth == 1
        return true

    @cached_property
    def said(self) -> np.ndarray:
        """n,k bool, of the known ones."""
        said: np.ndarray = (self.probabilities >= self.thresholds) & self.known
        return said

    @cached_property
    def sample_f1(self) -> np.ndarray:
        """n: of each image's labels; 1 where it has none and none is said, nan where nothing is known."""
        both = self.said.sum(1) + self.true.sum(1)
        f1 = np.where(both > 0, 2 * (self.said & self.true).sum(1) / np.maximum(both, 1), 1.0)
        return np.where(self.known.any(1), f1, np.nan)

    @cached_property
    def exact(self) -> np.ndarray:
        """n: 1 where every known label is right, nan where nothing is known."""
        return np.where(self.known.any(1), (self.said == self.true).all(1), np.nan)

    @cached_property
    def ranking_loss(self) -> np.ndarray:
        """n: the share of pairs of a true and a false label that are ranked the wrong way round, ties too; nan where there is none."""
        order = np.lexsort((self.true, -self.probabilities), axis=1)  # of equal ones the false label first
        true, false = (np.take_along_axis(x, order, 1) for x in (self.true, self.known & ~self.true))
        wrong = (true * false.cumsum(1)).sum(1)
        pairs = true.sum(1) * false.sum(1)
        return np.where(pairs > 0, wrong / np.maximum(pairs, 1), np.nan)

    @cached_property
    def loss(self) -> np.ndarray:
        """n: binary cross-entropy summed over the known labels, nats; nan where nothing is known."""
        right = np.where(self.true, self.probabilities, 1 - self.probabilities)
        nats = np.where(self.known, -np.log(np.clip(right, 1e-12, 1)), 0).sum(1)
        return np.where(self.known.any(1), nats, np.nan)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """How often each image counts, r,n -> r of each of `WHOLE`, r,k of `ap` and `f1`; nan where there is nothing to average."""
        w = weights.astype(np.float64)
        hits, said, true = (w @ x.astype(np.float64) for x in (self.said & self.true, self.said, self.true))  # r,k
        f1 = np.divide(2 * hits, said + true, out=np.full_like(hits, np.nan), where=true > 0)
        ap = np.stack([self._average_precision(c, w) for c in range(self.truth.shape[1])], 1)
        both = said.sum(1) + true.sum(1)
        return {
            "map": _mean(ap),
            "macro_f1": _mean(f1),
            "micro_f1": np.divide(2 * hits.sum(1), both, out=np.full(len(w), np.nan), where=both > 0),
            "sample_f1": _weighted(self.sample_f1, w),
            "subset_accuracy": _weighted(self.exact, w),
            "ranking_loss": _weighted(self.ranking_loss, w),
            "loss": _weighted(self.loss, w),
            "ap": ap,
            "f1": f1,
        }

    def _average_precision(self, column: int, weights: np.ndarray) -> np.ndarray:
        """r: of one label, nan where no image that counts has it."""
        rows = np.flatnonzero(self.known[:, column])
        rows = rows[np.argsort(-self.probabilities[rows, column], kind="stable")]
        p, true = self.probabilities[rows, column], self.true[rows, column]
        if not true.any():
            return np.full(len(weights), np.nan)
        ends = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # the last of each group of equals
        w = weights[:, rows]
        seen, found = w.cumsum(1)[:, ends], (w * true).cumsum(1)[:, ends]  # r,groups
        precision = np.divide(found, seen, out=np.zeros_like(seen), where=seen > 0)
        gained = np.diff(found, axis=1, prepend=0.0)
        total = found[:, -1]
        return np.divide((precision * gained).sum(1), total, out=np.full(len(w), np.nan), where=total > 0)


def multilabel_metrics(judged: Judged, labels: Sequence[str], *, intervals: bool = True) -> dict[str, Any]:
    """Scores of n images as plain JSON values; shares in 0..1, `loss` in nats per image, None where there is nothing to score.

    map and macro_f1 are means over the labels that an image has, sample_f1 over the images. per_class also says how many images have a
    label (support), of how many that is known, and how far its probabilities are off (calibration_error).
    intervals: with [low, high] beside each, percentile bootstrap over the images; recall and precision of a label have Wilson's.
    Raises ValueError for no images.
    """
    n = len(judged.truth)
    if not n:
        raise ValueError("no images to score")
    whole = judged.scores(np.ones((1, n)))
    drawn = judged.scores(resamples(n, n * len(labels))) if intervals else None
    metrics: dict[str, Any] = {"n": n, "known": int(judged.known.sum()), "unknown": int((~judged.known).sum())}
    for name in WHOLE:
        metrics[name] = _plain(whole[name][0])
        if drawn is not None:
            metrics[f"{name}_interval"] = interval(drawn[name])
    metrics["per_class"] = {label: _of_label(judged, c, whole, drawn) for c, label in enumerate(labels)}
    return metrics


def _of_label(judged: Judged, c: int, whole: dict[str, np.ndarray], drawn: dict[str, np.ndarray] | None) -> dict[str, Any]:
    known = judged.known[:, c]
    hits, said, true = (int(x[:, c].sum()) for x in (judged.said & judged.true, judged.said, judged.true))
    error = expected_calibration_error(judged.probabilities[known, c], judged.true[known, c]) if known.any() else None
    found: dict[str, Any] = {
        "ap": _plain(whole["ap"][0, c]), "f1": _plain(whole["f1"][0, c]), "precision": hits / said if said else None,
        "recall": hits / true if true else None, "support": true, "said": said, "known": int(known.sum()),
        "threshold": float(judged.thresholds[c]), "calibration_error": error,
    }  # fmt: skip
    if drawn is not None:
        found |= {f"{name}_interval": interval(drawn[name][:, c]) for name in ("ap", "f1")}
        found["precision_interval"] = list(wilson_interval(hits, said)) if said else None
        found["recall_interval"] = list(wilson_interval(hits, true)) if true else None
    return found


def resamples(n: int, numbers: int) -> np.ndarray:
    """How often each of n images is drawn in each resample: r,n, the same every time; fewer the more `numbers` each of them costs."""
    r = int(np.clip(_WORK // max(numbers, 1), FEWEST, RESAMPLES))
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=r)


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of r resamples; None where no two differ, since such a sample cannot say how far it may be off."""
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return None
    low, high = np.percentile(values, ENDS)
    return [float(low), float(high)]


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """n values, r,n weights -> r means over those that are not nan."""
    some = ~np.isnan(values)
    total = weights @ some
    return np.divide(weights @ np.where(some, values, 0), total, out=np.full(len(weights), np.nan), where=total > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """r,k -> r, over what is not nan."""
    some = ~np.isnan(values)
    count = some.sum(1)
    return np.divide(np.where(some, values, 0).sum(1), count, out=np.full(len(values), np.nan), where=count > 0)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
