"""Losses where an image may have several labels: each label is a question of its own, and what nobody knows asks none.

logits N,k + targets N,k in 0..1, negative where nobody knows -> nats, summed over the labels, mean over the images

The sum, not the mean, over the labels: a step is as large as with one label of k classes, so that recipes hold for both.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Asymmetric:
    """Ridnik et al. 2021, Asymmetric Loss For Multi-Label Classification, arXiv 2009.14119, equations 4 to 7."""

    gamma_positive: float
    gamma_negative: float
    margin: float  # a negative of a smaller probability counts as nothing


def label_loss(
    logits: Tensor, targets: Tensor, *, asymmetric: Asymmetric | None, positive_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Binary cross-entropy, or the asymmetric loss, a scalar; targets between 0 and 1 count as both, by their parts.

    positive_weights: k, how much more a label counts where it is true.
    """
    logits, known = logits.float(), targets >= 0
    wanted = targets.clamp(min=0).float() * (1 - smoothing) + smoothing / 2
    if asymmetric is None:
        yes, no = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    else:
        q, shifted, m = (-logits).sigmoid(), logits.sigmoid() - asymmetric.margin, asymmetric.margin  # q: 1 - p, exact where p is near 1
        yes = -_power(q, asymmetric.gamma_positive) * F.logsigmoid(logits)
        no = -_power(shifted, asymmetric.gamma_negative) * (F.logsigmoid(-logits) if m == 0 else (q + m).clamp(max=1).log())
    if positive_weights is not None:
        yes = yes * positive_weights.to(yes.device)
    nats = torch.where(known, wanted * yes + (1 - wanted) * no, 0.0)  # N,k
    return nats.sum() / len(nats)


def _power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent, 0 where x is not positive; with finite gradients, also for exponents below 1."""
    return torch.where(x > 0, x.clamp(min=1e-8) ** exponent, 0.0)
