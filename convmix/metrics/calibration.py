"""Probabilities that mean what they say, and the point below which an answer is better called "not sure".

logits n,k + truth n -> temperature -> probabilities n,k -> confidence n, right or wrong n -> ECE, reliability, coverage curve -> threshold

Temperature: Guo et al. 2017, arXiv 1706.04599. It scales the logits, so it changes how sure an answer is and never which one it is.
Threshold: Geifman and El-Yaniv 2017, arXiv 1705.08500 (selective classification; without their bound, see `choose_threshold`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from convmix.errors import ConfigError, RunError, did_you_mean
from convmix.metrics.classification import wilson_interval

FEWEST = 10  # images that a temperature is fitted on, or that must be sure for an accuracy to be believed
BINS = 15  # of equal width, as in the paper
_BOUNDS = (0.01, 100.0)  # of the temperature
_SPREAD = 0.5  # standard deviation of its logarithm before any image is seen: 95 % of it between 0.4 and 2.7


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in (low, high], at least one."""

    low: float
    high: float
    n: int
    confidence: float  # mean, 0..1
    accuracy: float  # share of right answers, 0..1


@dataclass(frozen=True)
class CoverageCurve:
    """What is answered, and how well, at each threshold that the data tell apart: m of them, from the most confident down."""

    threshold: np.ndarray  # m float64, falling: images of at least this confidence are answered
    coverage: np.ndarray  # m float64, rising to 1: their share of all images
    accuracy: np.ndarray  # m float64: the share of them that is right


@dataclass(frozen=True)
class Choice:
    """A threshold, what was asked for, and what it gives on the images that it was chosen on."""

    threshold: float  # 0..1
    target: str  # "accuracy" or "coverage"
    wanted: float  # 0..1
    n: int  # images that are sure
    coverage: float  # share of all images, 0..1
    accuracy: float  # of the sure ones, 0..1
    accuracy_interval: tuple[float, float]  # Wilson's, 95 %


@dataclass(frozen=True)
class Calibration:
    """How a model's logits become probabilities, which of them are sure, and on what images that was found out."""

    temperature: float  # logits are divided by it
    threshold: float | None  # an answer of a lower probability is "not sure"; None: every answer is sure
    split: str  # the images: "val", "test", or the name of other data
    n: int  # so many
    ece_before: float  # expected calibration error, 0..1
    ece_after: float
    nll_before: float  # mean negative log-likelihood, nats
    nll_after: float
    choice: Choice | None = None  # where the threshold comes from

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature: {self.temperature} is not a number above 0")
        if self.threshold is not None:
            check_threshold(self.threshold)
        if self.choice is not None and self.choice.threshold != self.threshold:
            raise ConfigError(f"threshold: {self.threshold}, but the one that was chosen is {self.choice.threshold}")

    def apply(self, logits: Tensor) -> Tensor:
        """n,k logits -> n,k probabilities, float32."""
        return (logits.float() / self.temperature).softmax(1)

    def brief(self) -> dict[str, Any]:
        """What a record keeps."""
        names = ("split", "n", "temperature", "ece_before", "ece_after", "nll_before", "nll_after")
        return {name: getattr(self, name) for name in names}

    @property
    def sentence(self) -> str:
        """What it did, for people."""
        return (
            f"calibrated on {self.n} {'validation ' if self.split == 'val' else ''}images: temperature {self.temperature:.3f}, "
            f"calibration error {self.ece_before:.4f} before, {self.ece_after:.4f} after"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> "Calibration":
        """The inverse of `to_dict`; RunError for a missing or unknown key and for a value of the wrong kind."""
        read = _read(cls, values, "calibration")
        if read["choice"] is not None:
            choice = _read(Choice, read["choice"], "calibration.choice")
            interval = choice["accuracy_interval"]
            if not (isinstance(interval, (list, tuple)) and len(interval) == 2 and all(_is_number(v) for v in interval)):
                raise RunError(f"calibration.choice.accuracy_interval: {interval!r} is not two numbers")
            read["choice"] = Choice(**{**choice, "accuracy_interval": (float(interval[0]), float(interval[1]))})
        try:
            return cls(**read)
        except ConfigError as error:
            raise RunError(f"calibration.{error}") from None


def calibrate_logits(logits: Tensor, targets: Tensor, *, split: str) -> Calibration:
    """A temperature for n,k logits of n classes, with what it changes; every answer stays sure. Errors as in `fit_temperature`."""
    temperature = fit_temperature(logits, targets)
    logits = logits.double()
    scores = []
    for t in (1.0, temperature):
        confidence, predicted = (logits / t).softmax(1).max(1)
        ece = expected_calibration_error(confidence.numpy(), (predicted == targets).numpy())
        scores.append((ece, float(F.cross_entropy(logits / t, targets))))
    (ece_before, nll_before), (ece_after, nll_after) = scores
    return Calibration(temperature, None, split, len(logits), ece_before, ece_after, nll_before, nll_after)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature that makes n class indices most likely under n,k logits.

    Where the images say little it stays near 1: its logarithm is expected within some `_SPREAD` of 0 beforehand, which hundreds of images
    with mistakes among them overrule, while a few without a single one do not make the model certain for ever.
    Raises RunError for logits that are not finite, ValueError for shapes that do not fit and for no images.
    """
    from scipy.optimize import minimize_scalar

    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(logits):
        raise ValueError(f"logits are {tuple(logits.shape)} and targets {tuple(targets.shape)}, expected n,k and n with n > 0")
    if bad := int((~logits.isfinite().all(1)).sum()):
        raise RunError(f"the model's outputs for {bad} of {len(logits)} images are not finite; its weights are of no use")
    n = len(logits)
    logits = logits.double() - logits.double().amax(1, keepdim=True)
    true = float(logits.gather(1, targets[:, None]).mean())

    def loss(log_temperature: float) -> float:
        beta = math.exp(-log_temperature)
        surprise = (log_temperature / _SPREAD) ** 2 / (2 * n)
        return float((logits * beta).logsumexp(1).mean()) - beta * true + surprise

    found = minimize_scalar(loss, bounds=(math.log(_BOUNDS[0]), math.log(_BOUNDS[1])), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, weighted by their images; 0..1 (Guo et al., equation 3)."""
    some = reliability(confidence, correct, bins=bins)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in some) / len(confidence)


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> list[Bin]:
    """n confidences (0..1) and whether each answer is right, by confidence; bins without an image are left out."""
    confidence, correct = _checked(confidence, correct)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)  # a confidence on an edge belongs to the bin below
    n = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct)]
    return [
        Bin(float(edges[i]), float(edges[i + 1]), int(n[i]), float(sums[0][i] / n[i]), float(sums[1][i] / n[i])) for i in np.flatnonzero(n)
    ]


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> CoverageCurve:
    """Coverage and accuracy at every confidence (0..1) that occurs; images of equal confidence are answered together or not at all."""
    confidence, correct = _checked(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    last = np.flatnonzero(np.append(falling[:-1] != falling[1:], True))  # of each group of equals
    n = last + 1
    return CoverageCurve(falling[last], n / len(confidence), np.cumsum(correct[order])[last] / n)


def choose_threshold(
    confidence: np.ndarray, correct: np.ndarray, *, accuracy: float | None = None, coverage: float | None = None
) -> Choice:
    """The threshold for one of two wishes, from n confidences (0..1) and whether each answer is right.

    accuracy: the most images may be sure that are right so often, and at least `FEWEST` of them: a handful is right by luck.
    coverage: the fewest images that are at least this share of all.
    Both are shares in 0..1. They hold on these images. On others of the same kind coverage and accuracy will differ by chance, the accuracy
    by as much as its interval says; whoever needs the target to hold more surely asks for one whose interval begins above it.

    Raises ConfigError where neither or both are given, for a value outside 0..1, and for an accuracy that is not reached, naming the best.
    """
    target, wanted = check_target(accuracy=accuracy, coverage=coverage)
    curve = coverage_curve(confidence, correct)
    counts = np.rint(curve.coverage * len(confidence)).astype(int)
    if target == "coverage":
        at = int(np.flatnonzero(curve.coverage >= wanted)[0])
    else:
        believed = counts >= min(FEWEST, len(confidence))
        reached = np.flatnonzero(believed & (curve.accuracy >= wanted))
        if not len(reached):
            best = int(np.argmax(np.where(believed, curve.accuracy, -1)))
            raise ConfigError(
                f"accuracy: {wanted:g} is not reached on these {len(confidence)} images at any threshold; "
                f"the best is {curve.accuracy[best]:.4f}, with {curve.coverage[best]:.1%} of them sure"
            )
        at = int(reached[-1])
    # half-way to the next lower confidence, so that a difference in the last digit does not decide; all sure: whatever comes
    threshold = 0.0 if at == len(counts) - 1 else float(curve.threshold[at] + curve.threshold[at + 1]) / 2
    n, share = int(counts[at]), float(curve.accuracy[at])
    interval = wilson_interval(round(share * n), n)
    return Choice(threshold, target, wanted, n, float(curve.coverage[at]), share, interval)


def check_target(*, accuracy: float | None, coverage: float | None) -> tuple[str, float]:
    """The name and value of the one wish that is given; ConfigError as in `choose_threshold`, before anything is computed."""
    given = [(name, value) for name, value in (("accuracy", accuracy), ("coverage", coverage)) if value is not None]
    if len(given) != 1:
        raise ConfigError("give either an accuracy or a coverage, one of the two, to choose a threshold by")
    [(target, wanted)] = given
    if not 0 < wanted <= 1:
        raise ConfigError(f"{target}: {wanted:g} is outside 0..1; give a share such as 0.95")
    return target, float(wanted)


def check_threshold(threshold: float) -> None:
    """ConfigError for what is no probability."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: {threshold:g} is outside 0..1; give a probability such as 0.8")


def _checked(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; ValueError where they are no confidences and no answers."""
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(f"confidence is {confidence.shape} and correct {correct.shape}, expected n and n with n > 0")
    if not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):  # NaN fails too; a softmax may round to just above 1
        raise ValueError(f"confidence lies in {confidence.min()}..{confidence.max()}, expected 0..1")
    return confidence, correct


def _read(cls: type, values: object, name: str) -> dict[str, Any]:
    """The fields of a dataclass from JSON, all there and of the right kind."""
    if not isinstance(values, Mapping):
        raise RunError(f"{name}: {values!r} is not an object of {', '.join(f.name for f in fields(cls))}")
    kinds = {f.name: f.type for f in fields(cls)}
    for key in values:
        if key not in kinds:
            raise RunError(f"{name}: unknown key {key}{did_you_mean(str(key), kinds)}")
    if missing := [key for key in kinds if key not in values]:
        raise RunError(f"{name} has no {', '.join(missing)}; fit it again with `convmix calibrate`")
    for key, value in values.items():
        if kinds[key] in (float, int) or (kinds[key] == float | None and value is not None):
            fits = _is_number(value) and (kinds[key] is not int or isinstance(value, int))
        else:
            fits = kinds[key] is not str or isinstance(value, str)
        if not fits:
            raise RunError(f"{name}.{key}: {value!r} is not what `convmix calibrate` writes")
    return dict(values)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
