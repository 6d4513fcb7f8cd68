"""A linear classifier fitted to features to convergence: multinomial logistic regression, its regularisation cross-validated.

    features n,v,d and classes n  ->  folds over images, the views of one never apart  ->  C of the smallest held-out loss
                                  ->  fit on all views, every image weighing the same    ->  LinearHead k,d and k

A pure function: the same features give the same numbers. scikit-learn fits; what is ours is the exact rotation into fewer dimensions
where there are fewer images than numbers, and what becomes of classes without an image.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STRENGTHS = tuple(float(c) for c in 10.0 ** np.arange(-4, 1.5, 0.5))  # scikit-learn's C, for standardised features
LEAST_SCALE = 0.5  # of a number's own deviation, as a share of all numbers': what hardly ever differs from zero is not blown up
USUAL = 10.0**-2  # where no class has two images to validate with
FOLDS = 5
JUDGED = 2_000  # images that the folds are made of at most
TOLERANCE, ITERATIONS = 1e-4, 500


@dataclass(frozen=True)
class LinearHead:
    """Logits are features @ weight.T + bias."""

    weight: np.ndarray  # k,d float32
    bias: np.ndarray  # k float32
    strength: float  # scikit-learn's C of the fit
    folds: int  # 0 where nothing could be cross-validated
    held_out_loss: float | None  # mean over the folds, nats
    held_out_accuracy: float | None


def fit_linear_head(features: np.ndarray, classes: np.ndarray, *, num_classes: int, balanced: bool = False) -> LinearHead:
    """features: n,v,d float32, the plain view first. classes: n integers of 0..num_classes-1, not each of which needs to occur.

    balanced: every class weighs the same, else every image. A class without an image gets no weights and the bias at which it has the
    probability of one image in n+1, on average (Laplace).
    """
    n, views, d = features.shape
    known, counts = np.unique(classes, return_counts=True)
    weights = np.ones(n)
    if balanced:
        weights = (n / (len(known) * counts))[np.searchsorted(known, classes)]
    x = features.astype(np.float64)
    middle = x.mean((0, 1))  # d
    x = x - middle
    scale = np.sqrt(np.mean(x**2, axis=(0, 1)))  # d
    scale = np.maximum(scale, LEAST_SCALE * np.sqrt(np.mean(scale**2))) if scale.any() else np.ones(d)
    x /= scale
    weight, bias = np.zeros((num_classes, d)), np.zeros(num_classes)
    strength, folds, loss, accuracy = USUAL, 0, None, None
    if len(known) > 1:
        strength, folds, loss, accuracy = _choose(x[:, 0], classes, weights)
        flat, back = _rotated(x.reshape(n * views, d))
        w, b = _fit(flat, np.repeat(classes, views), np.repeat(weights / views, views), strength)
        weight[known], bias[known] = w @ back, b
    if len(known) < num_classes:
        logits = x[:, 0] @ weight[known].T + bias[known]  # n,known
        highest = logits.max(1)
        unseen = np.ones(num_classes, bool)
        unseen[known] = False
        bias[unseen] = np.mean(highest + np.log(np.exp(logits - highest[:, None]).sum(1))) - np.log(n)
    weight /= scale
    return LinearHead(weight.astype(np.float32), (bias - weight @ middle).astype(np.float32), strength, folds, loss, accuracy)


def _rotated(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m,d as m,r with r = min(m, d), and r,d that turns weights back: the penalty is the same in both, so the fit is."""
    if len(x) >= x.shape[1]:
        return x, np.eye(x.shape[1])
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u * s, vt


def _choose(x: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[float, int, float | None, float | None]:
    """C of the smallest held-out loss, how many folds that took, and the held-out loss and accuracy there."""
    known, counts = np.unique(classes, return_counts=True)
    several = known[counts >= 2]
    if len(several) < 2:
        return USUAL, 0, None, None
    judged = np.flatnonzero(np.isin(classes, several))
    if len(judged) > JUDGED:
        judged = np.sort(np.random.default_rng(0).permutation(judged)[:JUDGED])
        left, counts = np.unique(classes[judged], return_counts=True)
        judged = judged[np.isin(classes[judged], left[counts >= 2])]
    x, classes, weights = x[judged], classes[judged], weights[judged]
    smallest = int(np.unique(classes, return_counts=True)[1].min())
    number = min(FOLDS, smallest)
    x, _ = _rotated(x)
    losses, rights = np.zeros((number, len(STRENGTHS))), np.zeros((number, len(STRENGTHS)))
    for i, (fit, held) in enumerate(_folds(classes, number)):
        for j, (w, b) in enumerate(_path(x[fit], classes[fit], weights[fit])):
            logits = x[held] @ w.T + b
            column = np.searchsorted(np.unique(classes[fit]), classes[held])
            highest = logits.max(1, keepdims=True)
            log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
            losses[i, j] = np.average(log_sum - logits[np.arange(len(held)), column], weights=weights[held])
            rights[i, j] = np.mean(logits.argmax(1) == column)
    best = int(losses.mean(0).argmin())
    return STRENGTHS[best], number, float(losses.mean(0)[best]), float(rights.mean(0)[best])


def _folds(classes: np.ndarray, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    yield from StratifiedKFold(number, shuffle=True, random_state=0).split(np.zeros(len(classes)), classes)


def _path(x: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The fit for every strength, each beginning where the one before ended."""
    model = _regression(STRENGTHS[0], warm=True)
    for strength in STRENGTHS:
        model.set_params(C=strength)
        yield _solved(model, x, classes, weights)


def _fit(x: np.ndarray, classes: np.ndarray, weights: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    return _solved(_regression(strength, warm=False), x, classes, weights)


def _regression(strength: float, *, warm: bool):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS, warm_start=warm)


def _solved(model, x: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Weights k,d and biases k, also for two classes, of which scikit-learn gives the difference."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so weak a penalty that the loss still falls a little is seldom the best one
        model.fit(x, classes, sample_weight=weights)
    w, b = model.coef_, model.intercept_
    return (np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2) if len(w) == 1 else (w, b)
