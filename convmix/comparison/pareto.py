"""What became of one contender over its seeds, and the front of those that nobody beats in both accuracy and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from convmix.comparison.candidates import Candidate
from convmix.comparison.interval import Mean, mean_of
from convmix.comparison.run import RunOutcome
from convmix.config import Run
from convmix.metrics.classification import wilson_interval


@dataclass(frozen=True)
class Speed:
    """Inference of one contender, measured in turn with the others."""

    images_per_s: float | None = None  # the median over the rounds; None where it failed
    low: float | None = None  # quartiles over the rounds
    high: float | None = None
    memory_mib: float | None = None  # at its peak
    failed: str = ""


@dataclass(frozen=True)
class CandidateScore:
    """One contender in numbers; what is None was not measured, because every training failed."""

    contender: Candidate
    accuracies: Mapping[int, float]  # seed -> share of the test images that are right, 0..1
    test_images: int
    parameters: int | None
    macs: int | None  # per image
    train_s: float | None  # of the training steps alone, mean over the seeds
    epochs: float | None  # passes over the training images, mean over the seeds
    lr: float  # what the recipe gives to this model
    weight_decay: float
    failures: Mapping[int, str] = field(default_factory=dict)  # seed -> reason
    speed: Speed = Speed()
    measure: str = "accuracy"  # the score that `accuracies` are of, a key of the task's metrics
    intervals: Mapping[int, tuple[float, float]] = field(
        default_factory=dict
    )  # seed -> over the images, of scores that are no share of them

    @property
    def accuracy(self) -> Mean | None:
        """Over the seeds: what another training would give on the same test images."""
        return mean_of([self.accuracies[seed] for seed in sorted(self.accuracies)]).within(0, 1) if self.accuracies else None

    @property
    def sampling(self) -> tuple[float, float] | None:
        """95 % interval of the mean: what other test images would give with the same trainings. Wilson's; of other scores than the accuracy
        the mean over the seeds of the ends of each training's own."""
        if self.measure != "accuracy":
            ends = list(self.intervals.values())
            return (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if ends else None
        return wilson_interval(round(self.accuracy.value * self.test_images), self.test_images) if self.accuracy else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the intervals."""
        return {
            "name": self.contender.name,
            "settings": dict(self.contender.settings),
            "note": self.contender.note,
            "accuracies": {str(seed): value for seed, value in self.accuracies.items()},
            "accuracy": self.accuracy and asdict(self.accuracy),
            "measure": self.measure,
            "sampling_interval": self.sampling and list(self.sampling),
            "test_images": self.test_images,
            "parameters": self.parameters,
            "macs": self.macs,
            "train_s": self.train_s,
            "epochs": self.epochs,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "failures": {str(seed): reason for seed, reason in self.failures.items()},
        }


def score(
    contender: Candidate, outcomes: Mapping[int, RunOutcome], *, run: Run, test_images: int, speed: Speed | None = None,
    measure: str = "accuracy",
) -> CandidateScore:  # fmt: skip
    """The outcomes of a contender's trainings, seed -> outcome, in numbers; `run` are its settings as resolved.

    measure: the task's main score, a key of its metrics.
    """
    done = {seed: ended.record for seed, ended in outcomes.items() if ended.record is not None}
    records = {seed: record for seed, record in done.items() if record["test"][measure] is not None}
    failures = {seed: ended.failed for seed, ended in outcomes.items() if ended.record is None}
    failures |= {seed: f"its test images hold nothing to score ({measure})" for seed in done if seed not in records}
    some = list(records.values())
    return CandidateScore(
        contender,
        {seed: r["test"][measure] for seed, r in records.items()},
        some[0]["test"]["n"] if some else test_images,
        some[0]["parameters"] if some else None,
        some[0]["macs"] if some else None,
        fmean(r["train_elapsed_s"] for r in some) if some else None,
        fmean(r["epochs_done"] for r in some) if some else None,
        run.optim.lr,
        run.optim.weight_decay,
        failures,
        speed or Speed(),
        measure,
        {seed: tuple(ends) for seed, r in records.items() if (ends := r["test"].get(f"{measure}_interval"))},
    )


@dataclass(frozen=True)
class Cost:
    """One thing to pay with, beside which accuracy is judged."""

    name: str  # for files and JSON
    title: str
    of: str  # attribute of CandidateScore or of Speed
    more_is_better: bool = False

    def value(self, score: CandidateScore) -> float | None:
        return getattr(score, self.of) if hasattr(score, self.of) else getattr(score.speed, self.of)


COSTS = (
    Cost("parameters", "parameters", "parameters"),
    Cost("macs", "multiply-adds per image", "macs"),
    Cost("throughput", "inference, images per second", "images_per_s", more_is_better=True),
    Cost("memory", "inference, peak memory (MiB)", "memory_mib"),
    Cost("time", "training time (s)", "train_s"),
)


def front(scores: Sequence[CandidateScore], cost: Cost) -> frozenset[str]:
    """Names of the contenders on the Pareto front: nobody is as accurate at less cost, or more accurate at no more."""
    points = [(s.contender.name, value, s.accuracy.value) for s in scores if (value := cost.value(s)) is not None and s.accuracy]
    sign = -1.0 if cost.more_is_better else 1.0
    return frozenset(
        name
        for name, price, accuracy in points
        if not any(
            sign * p <= sign * price and a >= accuracy and (sign * p < sign * price or a > accuracy)
            for other, p, a in points
            if other != name
        )
    )


def fronts(scores: Sequence[CandidateScore]) -> dict[str, frozenset[str]]:
    """Cost -> names on its front."""
    return {cost.name: front(scores, cost) for cost in COSTS}


@dataclass(frozen=True)
class Comparison:
    """Contenders under one recipe and budget, with the same splits and seeds."""

    data: str
    scores: tuple[CandidateScore, ...]  # in the order in which they were given
    seeds: tuple[int, ...]
    facts: Mapping[str, str]  # label -> text: what all shared, for people
    values: Mapping[str, Any] = field(repr=False)  # what the JSON file holds
    page: Path | None = None  # the HTML page
    title: str = "accuracy"  # what `CandidateScore.accuracy` is, for people
