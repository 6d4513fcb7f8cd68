"""How far the scores of a sample of images may be from those of all such images: percentile bootstrap, 95 %.

Resampling images with replacement and counting again is the same as drawing the cells of the confusion matrix from a multinomial
distribution, which costs by the cells in use instead of by the images. Shares of images keep Wilson's interval, which is right near 0 and
1 too, where no resample shows an error and the bootstrap's ends meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from convmix.metrics.classification import wilson_interval

RESAMPLES = 2000
ENDS = (2.5, 97.5)  # per cent: the middle 95 %
_AT_ONCE = 2_000_000  # numbers drawn at a time, for the memory


@dataclass(frozen=True)
class Resampled:
    """Scores of r resamples of the images; nan where a class has no image in a resample."""

    balanced_accuracy: np.ndarray  # r
    macro_precision: np.ndarray  # r
    macro_f1: np.ndarray  # r
    f1: np.ndarray  # r,k float32


def with_intervals(metrics: dict[str, Any], truth: np.ndarray, predicted: np.ndarray, loss: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """`metrics.classification_metrics` with an interval [low, high] beside every score.

    truth, predicted: n positions in the classes of `metrics`; loss: n, nats. A class without images gets no interval. Where every image
    is right, or every one wrong, the averages over classes get none either (None): no resample differs.
    """
    n = len(truth)
    drawn = resample(truth, predicted, len(metrics["per_class"]), seed=seed)
    said = np.bincount(predicted, minlength=len(metrics["per_class"]))
    per_class = {}
    for c, (name, scores) in enumerate(metrics["per_class"].items()):
        per_class[name] = dict(scores)
        if scores["support"]:
            hits = round(scores["recall"] * scores["support"])
            per_class[name]["recall_interval"] = list(wilson_interval(hits, scores["support"]))
            per_class[name]["precision_interval"] = list(wilson_interval(hits, int(said[c])))
            per_class[name]["f1_interval"] = _ends(drawn.f1[:, c])
    varies = 0 < metrics["correct"] < n
    return metrics | {
        "top5_interval": list(wilson_interval(round(metrics["top5"] * n), n)),
        "loss_interval": mean_interval(loss, seed=seed),
        "balanced_accuracy_interval": _ends(drawn.balanced_accuracy) if varies else None,
        "macro_precision_interval": _ends(drawn.macro_precision) if varies else None,
        "macro_f1_interval": _ends(drawn.macro_f1) if varies else None,
        "per_class": per_class,
    }


def mean_interval(values: np.ndarray, *, seed: int = 0) -> list[float]:
    """Bootstrap interval of the mean of n values."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), (r, len(values)))].mean(1) for r in _portions(len(values))]
    return _ends(np.concatenate(means))


def resample(truth: np.ndarray, predicted: np.ndarray, num_classes: int, *, seed: int = 0) -> Resampled:
    """Scores over the classes, as `metrics.classification_metrics` has them, of resamples of n images."""
    from scipy.sparse import csr_array

    k = num_classes
    cells, counts = np.unique(truth * k + predicted, return_counts=True)  # c cells of the confusion matrix that hold images
    rows, cols = cells // k, cells % k
    on_diagonal = np.flatnonzero(rows == cols)
    place = np.arange(len(cells))
    to_truth, to_predicted = (csr_array((np.ones(len(cells)), (place, to)), shape=(len(cells), k)) for to in (rows, cols))
    rng = np.random.default_rng(seed)
    parts = []
    for r in _portions(len(cells)):
        drawn = rng.multinomial(len(truth), counts / len(truth), size=r)  # r,c images in every cell
        support, said = drawn @ to_truth, drawn @ to_predicted  # r,k
        hits = np.zeros((r, k))
        hits[:, rows[on_diagonal]] = drawn[:, on_diagonal]
        present = support > 0
        recall = np.divide(hits, support, out=np.zeros((r, k)), where=present)
        precision = np.divide(hits, said, out=np.zeros((r, k)), where=said > 0)
        f1 = np.divide(2 * hits, support + said, out=np.zeros((r, k)), where=present)
        averages = [np.where(present, score, 0).sum(1) / present.sum(1) for score in (recall, precision, f1)]  # r each
        parts.append((*averages, np.where(present, f1, np.nan).astype(np.float32)))
    return Resampled(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _portions(numbers: int) -> Iterator[int]:
    """How many resamples of so many numbers to draw at a time, until there are RESAMPLES."""
    at_once = max(min(_AT_ONCE // numbers, RESAMPLES), 1)
    for done in range(0, RESAMPLES, at_once):
        yield min(at_once, RESAMPLES - done)


def _ends(values: np.ndarray) -> list[float]:
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, ENDS)
    return [float(low), float(high)]
