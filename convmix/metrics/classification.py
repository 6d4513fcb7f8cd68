"""Numbers that say how good predictions are, with the uncertainty that the size of the sample leaves.

The scores are scikit-learn's, counted here from the confusion matrix, and the interval is Wilson's: every training needs them, and
scikit-learn and scipy take a second to import. The tests compare with both.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from torch import Tensor


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share `correct`/`n`, both ends in 0..1 (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share, z = correct / n, NormalDist().inv_cdf((1 + confidence) / 2)
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return 0.0 if correct == 0 else low, 1.0 if correct == n else high


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of n,k logits against n class indices, as plain JSON values.

    Shares are in 0..1, `loss` is the mean cross-entropy in nats. A class without test images is left out of the averages.
    """
    import torch.nn.functional as F

    n, k = logits.shape[0], len(classes)
    if n == 0:
        raise ValueError("no images to score")
    logits = logits.double()
    predicted = logits.argmax(1).numpy()
    truth = targets.numpy()
    confusion = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)  # rows: truth, columns: prediction
    right, support, said = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(support, 1)  # 0 for what was never said, or never there
    f1 = 2 * right / np.maximum(said + support, 1)
    present = support > 0
    correct = int(right.sum())
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "accuracy_interval": list(wilson_interval(correct, n)),
        "top5": float((logits.topk(min(5, k), dim=1).indices == targets[:, None]).any(1).double().mean()),
        "loss": float(F.cross_entropy(logits, targets)),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_precision": float(precision[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        },
        "confusion": confusion.tolist(),
    }


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The scores of a whole split without those per class: what model directories and run records keep."""
    return {name: value for name, value in metrics.items() if name not in ("per_class", "confusion")}
