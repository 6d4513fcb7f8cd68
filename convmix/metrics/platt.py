"""A line that makes probabilities of outputs which were never asked to be any.

Platt 1999, Probabilistic outputs for support vector machines. Where there is little to learn from it stays near the outputs' own
probabilities, and it always rises, so that their order stays.
"""

import math

import numpy as np

_SPREAD = 0.5  # standard deviation of a slope's logarithm, and of an offset, before anything is seen
_LOG_SLOPES = (-4.0, 4.0)


def fit_line(z: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """The slope and the offset that make n truths most likely under n logits, near 1 and 0 where the images say little."""
    from scipy.optimize import minimize

    n = len(z)
    if not n or true.all() or not true.any():
        return 1.0, 0.0
    sign = np.where(true, 1.0, -1.0)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        slope = math.exp(at[0])
        margin = sign * (slope * z + at[1])
        wrong = -sign / (1 + np.exp(np.clip(margin, -500, 500)))  # the derivative by the line's value
        surprise = float((at**2).sum()) / (2 * n * _SPREAD**2)
        value = float(np.logaddexp(0, -margin).mean()) + surprise
        return value, np.array([(wrong * z).mean() * slope, wrong.mean()]) + at / (n * _SPREAD**2)

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[_LOG_SLOPES, (None, None)])
    return math.exp(float(found.x[0])), float(found.x[1])
