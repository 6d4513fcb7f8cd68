"""Scores of class maps from per-image confusion matrices, with the uncertainty that the number of images leaves; and what to beat.

truth H,W, prediction H,W -> confusion k,k per image -> n,k,k -> IoU, accuracy

IoU of a class: pixels that truth and prediction share, over those that either has, all images together (Everingham et al. 2015).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from convmix.config import Size
from convmix.data.targets import IGNORE

RESAMPLES = 2000


def confusion(truth: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
    """Pixels by true and predicted class of one image: H,W uint8 truth (IGNORE is left out), H,W prediction -> k,k int64, rows: truth.

    Raises ValueError for maps of two sizes and for values that are not among the k classes.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"a prediction of {predicted.shape} for a truth of {truth.shape}")
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < k:
        raise ValueError(f"the prediction holds class {predicted.max()}, expected 0 to {k - 1}")
    counts = np.bincount((truth.astype(np.int32) * k + predicted).ravel(), minlength=(IGNORE + 1) * k).reshape(IGNORE + 1, k)
    if counts[k:IGNORE].any():
        raise ValueError(f"the truth holds class {k + int(counts[k:IGNORE].any(1).argmax())}, expected 0 to {k - 1} or {IGNORE}")
    return counts[:k]


def segmentation_metrics(confusions: np.ndarray, classes: Sequence[str], *, intervals: bool = True) -> dict[str, Any]:
    """Scores of n images from their n,k,k confusions (rows: truth), as plain JSON values, shares in 0..1.

    miou: the mean of the classes' IoU; mean_accuracy: of the shares of each class's pixels that are found; both over the classes that
    occur, others have None. per_class also says what share of the pixels a class has and in how many images it is. With `intervals`
    miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou and each class's IoU have a 95 % interval: percentile bootstrap over
    images, None where no resample differs. Raises ValueError where there is no pixel to score.
    """
    n, k = len(confusions), len(classes)
    if confusions.shape != (n, k, k):
        raise ValueError(f"confusions are {confusions.shape}, expected n,{k},{k}")
    counts = tallies(confusions)
    if not counts[:, 1].any():
        raise ValueError("no pixel to score")
    total = counts.sum(0, keepdims=True)
    whole = scores(total)
    metrics: dict[str, Any] = {"n": n, "pixels": int(total[0, 1].sum())}
    metrics |= {name: float(values[0]) for name, values in whole.items() if values.ndim == 1}
    per_class: dict[str, dict[str, Any]] = {
        name: {
            "iou": _plain(whole["class_iou"][0, c]),
            "accuracy": _plain(whole["class_accuracy"][0, c]),
            "share": float(total[0, 1, c] / total[0, 1].sum()),
            "images": int((counts[:, 1, c] > 0).sum()),
        }
        for c, name in enumerate(classes)
    }
    if intervals:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # r,n: how often each image
        # pixels run past the 24 bits of float32 but not the 53 of float64, which BLAS multiplies and int64 it does not
        resampled = scores((drawn.astype(np.float64) @ counts.reshape(n, -1).astype(np.float64)).reshape(RESAMPLES, 3, k))
        metrics |= {f"{name}_interval": _ends(values) for name, values in resampled.items() if values.ndim == 1}
        for c, of_class in enumerate(per_class.values()):
            of_class["iou_interval"] = _ends(resampled["class_iou"][:, c])
    return metrics | {"per_class": per_class, "confusion": confusions.sum(0).tolist()}


def tallies(confusions: np.ndarray) -> np.ndarray:
    """n,k,k confusions -> n,3,k pixels of every class: right, true, predicted."""
    return np.stack([confusions.diagonal(axis1=1, axis2=2), confusions.sum(2), confusions.sum(1)], 1)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """r,3,k pixels (right, true, predicted) of r samples -> r scores each, r,k of the classes; nan where a class does not occur."""
    right, true, predicted = counts[:, 0], counts[:, 1], counts[:, 2]
    iou, accuracy = _share(right, true + predicted - right), _share(right, true)
    pixels = true.sum(1)
    return {
        "miou": _mean(iou),
        "pixel_accuracy": _share(right.sum(1), pixels),
        "mean_accuracy": _mean(accuracy),
        "frequency_weighted_iou": _share((true * np.nan_to_num(iou)).sum(1), pixels),
        "class_iou": iou,
        "class_accuracy": accuracy,
    }


class PositionPrior:
    """The class that training maps most often have at each place, whatever the image shows: what a model has to beat."""

    def __init__(self, classes: np.ndarray) -> None:
        self.classes = classes  # h,w uint8: a grid laid over any image

    @classmethod
    def of(cls, maps: Iterable[np.ndarray], k: int, *, grid: Size = (64, 64)) -> "PositionPrior":
        """Counted over H,W uint8 maps of any sizes with k classes, in the cells of a grid laid over each; IGNORE does not count.

        Every map counts as much as any other, however large. A cell where no map has a class gets the commonest of all. Raises ValueError
        where there is no pixel to count.
        """
        frequencies = np.zeros((grid[0] * grid[1], IGNORE + 1))
        for classes in maps:
            height, width = (max(side, cells) for side, cells in zip(classes.shape, grid, strict=True))
            fine = _resized(classes, (height, width))  # at least one pixel in every cell
            cells = (np.arange(height) * grid[0] // height)[:, None] * grid[1] + np.arange(width) * grid[1] // width
            counts = np.bincount((cells * (IGNORE + 1) + fine).ravel(), minlength=frequencies.size)
            frequencies += counts.reshape(frequencies.shape) / (height * width)
        frequencies = frequencies[:, :k]
        if not frequencies.any():
            raise ValueError("no pixel to count")
        commonest = np.where(frequencies.any(1), frequencies.argmax(1), frequencies.sum(0).argmax())
        return cls(commonest.reshape(grid).astype(np.uint8))

    def predict(self, size: Size) -> np.ndarray:
        """The same for every image of height, width `size`: H,W uint8."""
        return _resized(self.classes, size)


def _resized(classes: np.ndarray, size: Size) -> np.ndarray:
    """h,w -> H,W: at each pixel the class of the nearest one."""
    rows, columns = (((np.arange(to) + 0.5) * from_ / to).astype(int) for from_, to in zip(classes.shape, size, strict=True))
    return classes[rows[:, None], columns]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """r,k -> r, over what is not nan; nan where all is."""
    return _share(np.nan_to_num(values).sum(1), (~np.isnan(values)).sum(1))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ends(values: np.ndarray) -> list[float] | None:
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return [float(low), float(high)]
