"""Numbers that say how good predictions are, with the uncertainty that the size of the sample leaves.

scikit-learn computes the field's standard scores from whole-split arrays; the interval is Wilson's, through scipy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share `correct`/`n`, both ends in 0..1 (Wilson 1927); (0, 1) for n = 0."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(correct, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of n,k logits against n class indices, as plain JSON values.

    Shares are in 0..1, `loss` is the mean cross-entropy in nats. A class without test images is left out of the averages.
    """
    import torch.nn.functional as F
    from sklearn.metrics import precision_recall_fscore_support

    n, k = logits.shape[0], len(classes)
    if n == 0:
        raise ValueError("no images to score")
    logits = logits.double()
    predicted = logits.argmax(1).numpy()
    truth = targets.numpy()
    columns = np.arange(k)
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=columns, zero_division=0)
    present = support > 0
    correct = int((predicted == truth).sum())
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
        # rows: truth, columns: prediction; counted here, for scikit-learn warns users of a model that knows one class
        "confusion": np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k).tolist(),
    }


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The scores of a whole split without those per class: what model directories and run records keep."""
    return {name: value for name, value in metrics.items() if name not in ("per_class", "confusion")}
