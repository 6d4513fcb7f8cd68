"""What one change of the base does: the difference of scores, paired by seed, beside what the paper found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convmix.comparison.grid import Variation
from convmix.comparison.interval import Mean, mean_difference
from convmix.comparison.pareto import CandidateScore


@dataclass(frozen=True)
class Effect:
    """One variation in numbers."""

    variation: Variation
    score: CandidateScore
    difference: Mean | None  # variation - base, shares of the test images; None where they have no seed in common

    @property
    def verdict(self) -> str:
        """Whether the paper's finding holds here; "" where there is no finding, or no difference to judge by.

        holds, fails: the interval excludes zero. holds in sign, fails in sign: the mean alone says so. For a change that made no
        difference in the paper: no difference, or fails.
        """
        expected, found = self.variation.expected, self.difference
        if not expected or found is None:
            return ""
        if expected == "same":
            return "fails" if found.excludes_zero else "no difference"
        if found.value == 0:
            return "no difference"
        word = "holds" if (found.value > 0) == (expected == "better") else "fails"
        return word if found.excludes_zero else f"{word} in sign"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.score.to_dict() | {
            "axis": self.variation.axis,
            "difference": self.difference and asdict(self.difference),
            "paper": self.variation.expected,
            "paper_is_sure": self.variation.is_sure,
            "verdict": self.verdict,
        }


def effects(variations: Sequence[Variation], scores: Mapping[str, CandidateScore], base: CandidateScore) -> tuple[Effect, ...]:
    """One per variation, by the scores of its contender and of the base."""
    return tuple(
        Effect(v, scores[v.contender.name], mean_difference(scores[v.contender.name].accuracies, base.accuracies)) for v in variations
    )


@dataclass(frozen=True)
class Ablation:
    """A base and its variations under one recipe, with the same splits and seeds."""

    data: str
    base: CandidateScore
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]  # variations that cannot be made, a line each
    seeds: tuple[int, ...]
    facts: Mapping[str, str]  # label -> text: what all shared, for people
    values: Mapping[str, Any] = field(repr=False)  # what the JSON file holds
    page: Path | None = None  # the HTML page
    title: str = "accuracy"  # the score that differences are of, for people

    def summary(self) -> str:
        """How many of the paper's findings hold, in a sentence."""
        judged = [e.verdict for e in self.effects if e.verdict]
        if not judged:
            return "None of these changes has a finding of the paper's to compare with."
        count = {word: judged.count(word) for word in ("holds", "holds in sign", "no difference", "fails in sign", "fails")}
        said = "; ".join(f"{word}: {n}" for word, n in count.items() if n)
        return f"Of {len(judged)} changes on which the paper has a finding on CIFAR-10: {said}."
