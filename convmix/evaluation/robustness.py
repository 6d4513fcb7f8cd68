"""A run on the same images, damaged in every way that leaves the truth where it is: its score against each strength of each damage."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from convmix.data.loaders import Annotated
from convmix.data.preprocessing import Loads, Preprocess
from convmix.evaluation.corruption import STRENGTHS, Damaged, possible
from convmix.evaluation.model_outputs import Answerer
from convmix.inference.batches import Outputs
from convmix.metrics.resampling import Sampled, Score


@dataclass(frozen=True)
class Damage:
    """How the run does on the same images, damaged."""

    kind: str
    strength: int  # 1..3
    means: str  # what this strength is
    n: int
    score: float  # the task's own, 0..1
    interval: tuple[float, float] | None  # 95 %
    correct: int | None = None  # images that are right, where the score is their share

    @property
    def accuracy(self) -> float:
        """The score of a classifier."""
        return self.score

    def to_dict(self) -> dict[str, Any]:
        return with_accuracy(asdict(self))


def with_accuracy(values: dict[str, Any]) -> dict[str, Any]:
    """JSON values of a score; of a classifier also under the name of accuracy, and without the count for the others."""
    correct, interval = values.pop("correct"), values["interval"]
    more = {} if correct is None else {"correct": correct, "accuracy": values["score"]}
    return {**values, **more, "interval": None if interval is None else list(interval)}


def passes(preprocess: Preprocess, *, places: bool) -> int:
    """How often robustness goes through the images."""
    return len(STRENGTHS) * len(possible(preprocess, places=places))


def under_damage(answerer: Answerer, examples: Annotated, sampled: Callable[[Outputs], Sampled]) -> tuple[Damage, ...]:
    """The same images again, damaged in every way; `sampled` scores what comes out."""
    preprocess, task = answerer.artifact.preprocess, answerer.task
    found = []
    for corruption in possible(preprocess, places=task.places):
        for strength in STRENGTHS:
            loads: Loads = task.preprocessing(Damaged.of(preprocess, corruption.name, strength))
            some = sampled(answerer(examples, loads))
            score = some.score or Score(0.0)
            correct = None if some.right is None else int(some.right.sum())
            found.append(Damage(corruption.name, strength, corruption.means(strength), some.n, *score, correct))
    return tuple(found)


def left_out(preprocess: Preprocess, *, places: bool) -> tuple[str, ...]:
    """What is not asked, in a line: damage that would move the truth."""
    gone = [c.name for c in possible(preprocess) if c not in possible(preprocess, places=places)]
    return (f"robustness: {', '.join(gone)} left out, which moves what is annotated",) if gone else ()
