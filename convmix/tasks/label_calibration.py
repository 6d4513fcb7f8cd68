"""Where an image may have several labels: probabilities that mean what they say, and from which one on each label is said.

logits n,k + truth n,k (1, 0, UNKNOWN) -> a slope and an offset per label (Platt) -> probabilities n,k -> a threshold per label

Platt 1999, Probabilistic outputs for support vector machines. A slope alone, as `calibration` has it, cannot mend losses that make every
label too probable, as the asymmetric one does. Slopes are positive: the order of the images by a label stays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convmix.data.targets import UNKNOWN
from convmix.errors import ConfigError, RunError, did_you_mean
from convmix.metrics.calibration import FEWEST, Calibration, expected_calibration_error
from convmix.metrics.platt import fit_line
from convmix.metrics.score_calibration import ScoreCalibration

UNDECIDED = 0.5  # the threshold of a label that no image shows how to set


@dataclass(frozen=True)
class LabelCalibration:
    """How k logits become probabilities, from which one on a label is said, and on what images that was found out."""

    slopes: tuple[float, ...]  # k, positive
    offsets: tuple[float, ...]  # k; the probability is sigmoid(slope * logit + offset)
    thresholds: tuple[float, ...]  # k, probabilities
    reached: tuple[bool, ...]  # k: whether images show the threshold; else it is UNDECIDED, or the nearest to the wanted precision
    wanted: float | None  # the precision that thresholds were chosen for, 0..1; None: for the best F1
    split: str  # the images: "val", "test", or the name of other data
    n: int  # so many
    ece_before: float  # expected calibration error, the mean over the labels, 0..1
    ece_after: float
    nll_before: float  # binary cross-entropy, the mean over what is known, nats
    nll_after: float

    def __post_init__(self) -> None:
        k = len(self.slopes)
        for name in ("offsets", "thresholds", "reached"):
            if len(getattr(self, name)) != k:
                raise ConfigError(f"{name}: {len(getattr(self, name))} values for {k} labels")
        if not all(math.isfinite(v) for v in (*self.slopes, *self.offsets)) or min(self.slopes, default=1) <= 0:
            raise ConfigError("slopes and offsets: expected finite numbers, slopes above 0")
        if not all(0 <= t <= 1 for t in self.thresholds):
            raise ConfigError("thresholds: expected probabilities in 0..1")

    @property
    def threshold(self) -> None:
        """There is none that holds for every label."""
        return None

    def apply(self, logits: Tensor) -> Tensor:
        """n,k logits -> n,k probabilities, float32."""
        slopes, offsets = (torch.tensor(v, dtype=torch.float32, device=logits.device) for v in (self.slopes, self.offsets))
        return (logits.float() * slopes + offsets).sigmoid()

    def brief(self) -> dict[str, Any]:
        """What a record keeps."""
        names = ("split", "n", "wanted", "ece_before", "ece_after", "nll_before", "nll_after")
        return {name: getattr(self, name) for name in names}

    @property
    def sentence(self) -> str:
        """What it did, for people."""
        by = "best F1" if self.wanted is None else f"a precision of {100 * self.wanted:g} %"
        missed = len(self.reached) - sum(self.reached)
        return (
            f"each label calibrated on {self.n} images, mean calibration error {self.ece_before:.4f} before, {self.ece_after:.4f} after; "
            f"thresholds for {by}, {min(self.thresholds):.2f} to {max(self.thresholds):.2f}"
            + (f"; the images do not show one for {missed} labels" if missed else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: object) -> "LabelCalibration":
        """The inverse of `to_dict`; RunError for a missing or unknown key and for a value of the wrong kind."""
        names = [f.name for f in fields(cls)]
        if not isinstance(values, Mapping):
            raise RunError(f"calibration: {values!r} is not an object of {', '.join(names)}")
        if unknown := [key for key in values if key not in names]:
            raise RunError(f"calibration: unknown key {unknown[0]}{did_you_mean(str(unknown[0]), names)}")
        if missing := [key for key in names if key not in values]:
            raise RunError(f"calibration has no {', '.join(missing)}; train again")
        read: dict[str, Any] = dict(values)
        for key, kind in (("slopes", float), ("offsets", float), ("thresholds", float), ("reached", bool)):
            listed = read[key]
            if not isinstance(listed, list) or not all(
                isinstance(v, bool) == (kind is bool) and isinstance(v, (int, float)) for v in listed
            ):
                raise RunError(f"calibration.{key}: {listed!r} is not what training writes")
            read[key] = tuple(kind(v) for v in listed)
        for key in ("n", "ece_before", "ece_after", "nll_before", "nll_after"):
            if isinstance(read[key], bool) or not isinstance(read[key], (int, float)):
                raise RunError(f"calibration.{key}: {read[key]!r} is not what training writes")
        try:
            return cls(**read)
        except ConfigError as error:
            raise RunError(f"calibration.{error}") from None


AnyCalibration = Calibration | LabelCalibration | ScoreCalibration


def calibrate_labels(logits: Tensor, truth: Tensor, *, split: str, precision: float | None = None) -> LabelCalibration:
    """Slope, offset and threshold of every label, from n,k logits and n,k of 1, 0 and UNKNOWN.

    precision: thresholds as low as this precision allows, 0..1; None: those of the best F1. What a label's images leave open stays near
    the network's own probabilities, and a label without a positive or a negative keeps them.
    Raises RunError for logits that are not finite.
    """
    if bad := int((~logits.isfinite().all(1)).sum()):
        raise RunError(f"the model's outputs for {bad} of {len(logits)} images are not finite; its weights are of no use")
    z, y = logits.double().numpy(), truth.numpy()
    columns = range(z.shape[1])
    pairs = [fit_line(z[y[:, c] != UNKNOWN, c], y[y[:, c] != UNKNOWN, c] == 1) for c in columns]
    slopes, offsets = zip(*pairs, strict=True)
    before, after = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-(z * np.array(slopes) + np.array(offsets))))
    found = [choose(after[y[:, c] != UNKNOWN, c], y[y[:, c] != UNKNOWN, c] == 1, precision=precision) for c in columns]
    (ece_before, nll_before), (ece_after, nll_after) = (_errors(p, y) for p in (before, after))
    return LabelCalibration(
        slopes, offsets, tuple(t for t, _ in found), tuple(reached for _, reached in found), precision, split, len(z),
        ece_before, ece_after, nll_before, nll_after,
    )  # fmt: skip


def choose(probability: np.ndarray, true: np.ndarray, *, precision: float | None = None) -> tuple[float, bool]:
    """A threshold for one label, from n probabilities and truths, and whether the images show it.

    precision: the lowest threshold that keeps it, with at least `FEWEST` images said (a handful is right by luck), or all that have the
    label where those are fewer; where none does, the one that comes nearest. None: the threshold of the best F1.
    """
    if not len(true) or not true.any():
        return UNDECIDED, False
    order = np.argsort(-probability, kind="stable")
    falling = probability[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of each group of equals
    said, hits = last + 1, true[order].cumsum()[last]
    reached = True
    if precision is None:
        at = int(np.argmax(2 * hits / (said + true.sum())))
    else:
        believed = said >= min(FEWEST, int(true.sum()))
        kept = np.flatnonzero(believed & (hits >= precision * said - 1e-9))
        reached = bool(len(kept))
        at = int(kept[-1]) if reached else int(np.argmax(np.where(believed, hits / said, -1)))
    below = falling[last[at] + 1] if at + 1 < len(last) else 0.0
    return float(falling[last[at]] + below) / 2, reached  # half-way to the next lower one, so that the last digit does not decide


def _errors(probabilities: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Expected calibration error, the mean over the labels of which anything is known, and binary cross-entropy, nats."""
    known = truth != UNKNOWN
    errors: Sequence[float] = [
        expected_calibration_error(probabilities[known[:, c], c], truth[known[:, c], c] == 1) for c in np.flatnonzero(known.any(0))
    ]
    right = np.where(truth == 1, probabilities, 1 - probabilities)[known]
    return (float(np.mean(errors)), float(-np.log(np.clip(right, 1e-12, 1)).mean())) if len(right) else (0.0, 0.0)
