"""Scores of found objects as probabilities: of the objects found with a score of 0.8, 80 % should be there.

found and true objects of validation images -> matched at IoU .50 -> score d, right or false d -> slope and offset (Platt) -> probability

Platt 1999, on the logit of the score, so that a line can leave the scores as they are. It rises: which object is the surer one stays,
and so do all average precisions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convmix.data.targets import Objects
from convmix.errors import ConfigError, RunError, did_you_mean
from convmix.metrics.calibration import expected_calibration_error
from convmix.metrics.platt import fit_line
from convmix.results import Boxes

FEWEST = 20  # found objects, and some of them right and some false, that a line is fitted on
_EDGE = 1e-6  # scores of 0 and 1 have no logit


@dataclass(frozen=True)
class ScoreCalibration:
    """How scores become probabilities, and on what that was found out."""

    slope: float  # positive
    offset: float  # the probability is sigmoid(slope * logit(score) + offset)
    split: str  # the images: "val", "test", or the name of other data
    n: int  # so many
    found: int  # objects that the run found in them
    ece_before: float  # expected calibration error, 0..1
    ece_after: float
    nll_before: float  # mean negative log-likelihood, nats
    nll_after: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.offset) and self.slope > 0):
            raise ConfigError(f"slope and offset: {self.slope} and {self.offset}, expected finite numbers, the slope above 0")

    @property
    def threshold(self) -> None:
        """Objects are found by their own threshold."""
        return None

    def apply(self, scores: Tensor) -> Tensor:
        """n scores 0..1 -> n probabilities, float32."""
        logits = scores.double().clamp(_EDGE, 1 - _EDGE).logit()
        return (self.slope * logits + self.offset).sigmoid().float()

    def brief(self) -> dict[str, Any]:
        """What a record keeps."""
        return self.to_dict()

    @property
    def sentence(self) -> str:
        """What it did, for people."""
        return (
            f"scores calibrated on {self.found} objects found in {self.n} {'validation ' if self.split == 'val' else ''}images: "
            f"calibration error {self.ece_before:.4f} before, {self.ece_after:.4f} after"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> "ScoreCalibration":
        """The inverse of `to_dict`; RunError for a missing or unknown key and for a value of the wrong kind."""
        kinds = {f.name: f.type for f in fields(cls)}
        if not isinstance(values, Mapping):
            raise RunError(f"calibration: {values!r} is not an object of {', '.join(kinds)}")
        if unknown := [key for key in values if key not in kinds]:
            raise RunError(f"calibration: unknown key {unknown[0]}{did_you_mean(str(unknown[0]), kinds)}")
        if missing := [key for key in kinds if key not in values]:
            raise RunError(f"calibration has no {', '.join(missing)}; fit it again with `convmix calibrate`")
        for key, value in values.items():
            fits = isinstance(value, str) if kinds[key] is str else isinstance(value, (int, float)) and not isinstance(value, bool)
            if not fits:
                raise RunError(f"calibration.{key}: {value!r} is not what `convmix calibrate` writes")
        try:
            return cls(**values)
        except ConfigError as error:
            raise RunError(f"calibration.{error}") from None


def scores_and_truth(found: Sequence[Boxes], truths: Sequence[Objects], num_classes: int, *, masks: bool) -> tuple[np.ndarray, np.ndarray]:
    """The score of every object found in n images, d float64, and whether it is right at IoU .50; without those on crowds."""
    from convmix.metrics.matching import AREAS, match  # brings COCO's own library, which classifiers need not wait for

    matches = match(found, truths, num_classes, masks=masks)
    of_all, at_half = list(AREAS).index("all"), 0
    counted = [m.counted[of_all, at_half] for m in matches]
    scores = [m.score[which] for m, which in zip(matches, counted, strict=True)]
    right = [m.hit[of_all, at_half][which] for m, which in zip(matches, counted, strict=True)]
    return np.concatenate([np.zeros(0), *scores]), np.concatenate([np.zeros(0, bool), *right])


def calibrate_scores(scores: np.ndarray, right: np.ndarray, *, n: int, split: str) -> ScoreCalibration:
    """From d scores and whether each object is right, found in n images. ConfigError where they are too few or all alike."""
    if len(scores) < FEWEST or right.all() or not right.any():
        raise ConfigError(
            f"{len(scores)} objects were found in these {n} images, {int(right.sum())} of them right: expected at least {FEWEST}, right "
            "ones and false ones among them"
        )
    p = np.clip(scores, _EDGE, 1 - _EDGE)
    slope, offset = fit_line(np.log(p / (1 - p)), right)
    draft = ScoreCalibration(slope, offset, split, n, len(scores), 0.0, 0.0, 0.0, 0.0)
    after = draft.apply(torch.from_numpy(scores)).double().numpy()
    errors = [(expected_calibration_error(q, right), _nll(q, right)) for q in (scores, after)]
    return ScoreCalibration(slope, offset, split, n, len(scores), errors[0][0], errors[1][0], errors[0][1], errors[1][1])


def _nll(probability: np.ndarray, right: np.ndarray) -> float:
    return float(-np.log(np.clip(np.where(right, probability, 1 - probability), 1e-12, 1)).mean())
