"""Whether a faster model still is the same model: its outputs beside those of the float32 original, on the same images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from convmix.errors import ModelError
from convmix.metrics.classification import wilson_interval
from convmix.metrics.resampling import Score
from convmix.speed.backends import Dtype, Outputs, as_tuple

_MORE_THAN_ONE = 1.5  # images: what a single one decides is no evidence


@dataclass(frozen=True)
class OutputTolerance:
    """What an output may differ by from the original's; whatever breaks one of these is rejected."""

    difference: float  # of any output, as a share of the original's largest
    changed: float  # share of the answers (images, labels, objects, pixels) that are others
    lost: float = 0.005  # of the task's score, 0..1; a single image is no evidence


Limits = Mapping[Dtype, OutputTolerance]
LIMITS: Limits = {  # several times what a correct engine shows, far below what a wrong one does
    "fp32": OutputTolerance(1e-4, 0.005),
    "bf16": OutputTolerance(0.05, 0.02),
    "autocast": OutputTolerance(0.05, 0.02),  # in bf16
    "int8": OutputTolerance(0.25, 0.05),
}


class Judge(Protocol):
    """What a model's outputs mean to the task that it was trained for."""

    @property
    def title(self) -> str:
        """Of the score, for people."""
        ...

    def answers(self, outputs: Outputs) -> Any:
        """What the outputs for all images say."""
        ...

    def changed(self, before: Any, after: Any) -> tuple[int, int]:
        """Of two such answers: how many images (or labels, objects, pixels) are answered otherwise, and of how many."""
        ...

    def score(self, answers: Any) -> Score | None:
        """None where the truth is not known."""
        ...


@dataclass(frozen=True)
class FirstClass:
    """Of classifiers: the answer is the class with the largest output."""

    targets: Tensor | None = None  # n, the right classes
    title: str = "accuracy"

    def answers(self, outputs: Outputs) -> Tensor:
        (logits,) = as_tuple(outputs)
        return logits.argmax(1)

    def changed(self, before: Tensor, after: Tensor) -> tuple[int, int]:
        return int((before != after).sum()), before.numel()

    def score(self, answers: Tensor) -> Score | None:
        if self.targets is None:
            return None
        n, right = len(answers), int((answers == self.targets).sum())
        return Score(right / n, wilson_interval(right, n))


@dataclass(frozen=True)
class Verdict:
    """How outputs compare with the original's. What is known on all images only is None for a part of them, and for noise."""

    difference: float  # the largest, as a share of the original's largest; NaN where an output is
    changed: tuple[int, int] | None = None  # answers that are others, and of how many
    score: Score | None = None  # where the truth is known
    objection: str | None = None  # what breaks the limits


@dataclass(frozen=True)
class Original:
    """Images with what the original says about them. Raises ModelError where that is not finite."""

    images: Tensor  # n,C,H,W float32
    outputs: Outputs  # n rows each, float32
    judge: Judge | None = None  # None: no images but noise, on which no answer is right

    def __post_init__(self) -> None:
        if not all(output.isfinite().all() for output in as_tuple(self.outputs)):
            raise ModelError("the model's output is not finite, so nothing can be compared with it")

    @cached_property
    def largest(self) -> tuple[float, ...]:
        """Of each output, by magnitude; what differences are a share of."""
        return tuple(max(float(output.abs().max()), 1e-30) for output in as_tuple(self.outputs))

    @cached_property
    def answers(self) -> Any:
        return None if self.judge is None else self.judge.answers(self.outputs)

    @cached_property
    def score(self) -> Score | None:
        """On all images, where the truth is known."""
        return None if self.judge is None else self.judge.score(self.answers)

    def difference(self, outputs: Outputs) -> float:
        """Of outputs for the first m images: the largest, as a share; NaN where an output is."""
        pairs = zip(as_tuple(outputs), as_tuple(self.outputs), self.largest, strict=True)
        shares = [float((after - before[: len(after)]).abs().max()) / largest for after, before, largest in pairs]
        return math.nan if any(map(math.isnan, shares)) else max(shares)

    def compare(self, outputs: Outputs, limits: OutputTolerance) -> Verdict:
        """Outputs for the first m images; what they answer is compared where they are all images."""
        difference = self.difference(outputs)
        if not difference <= limits.difference:  # also for NaN
            why = f"wrong: an output differs by {difference:.1e} of the largest, {limits.difference:.0e} is allowed"
            return Verdict(difference, objection=why)
        if len(as_tuple(outputs)[0]) < len(self.images) or self.judge is None:
            return Verdict(difference)
        answers = self.judge.answers(outputs)
        changed, score = self.judge.changed(self.answers, answers), self.judge.score(answers)
        return Verdict(difference, changed, score, self._objection(*changed, score, limits))

    def _objection(self, changed: int, compared: int, score: Score | None, limits: OutputTolerance) -> str | None:
        if changed > limits.changed * compared:
            return f"another answer for {changed} of {compared}, {100 * limits.changed:g} % are allowed"
        n = len(self.images)
        if score and self.score and self.score.value - score.value > max(_MORE_THAN_ONE / n, limits.lost) + 1e-9:  # shares are rounded
            assert self.judge is not None  # there would be no score
            now, before = (f"{100 * some.value:.2f} %" for some in (score, self.score))
            return f"{self.judge.title} {now} on {n} images, the original's is {before}; {100 * limits.lost:g} points are allowed"
        return None
