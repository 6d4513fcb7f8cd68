"""What the evaluations of objects, class maps and several labels find out, as values for the JSON file, the table and the page."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convmix.evaluation.group_sections import robustness_remarks
from convmix.evaluation.robustness import Damage
from convmix.evaluation.slices import Slice, remarks
from convmix.metrics.calibration import Bin
from convmix.metrics.resampling import Score

FEWEST = 6  # images: 2 / 2**6 is the first below 5 %


@dataclass(frozen=True)
class Difference:
    """Whether a run is better than its rival, from the same n images."""

    rival: str  # the other run's directory
    score: str  # what is compared, as people call it
    n: int
    value: float  # of the run, 0..1
    rival_value: float
    interval: tuple[float, float]  # of value - rival_value, 95 %, paired bootstrap over the images

    @property
    def difference(self) -> float:
        return self.value - self.rival_value

    @property
    def convincing(self) -> bool:
        """Whether the interval leaves no difference out, of `FEWEST` images at least.

        A bootstrap of fewer says so of anything in which all of them agree, which by chance they do with a probability of 2 / 2**n.
        """
        low, high = self.interval
        return self.n >= FEWEST and (low > 0 or high < 0)

    @property
    def sentence(self) -> str:
        """Whether the difference is real, in one plain sentence."""
        low, high = (100 * end for end in self.interval)
        by = f"{100 * abs(self.difference):.2f} points of {self.score} (95 % interval of the difference {low:+.2f} to {high:+.2f})"
        if not self.convincing:
            return f"Not distinguishable on {self.n} images: the difference of {by} may be chance."
        how = "better" if self.difference > 0 else "worse"
        return f"A convincing difference: on the same {self.n} images this run is {how} than {self.rival} by {by}."

    def to_dict(self) -> dict[str, Any]:
        return {
            "rival": self.rival, "score": self.score, "n": self.n, "value": self.value, "rival_value": self.rival_value,
            "difference": self.difference, "interval": list(self.interval), "convincing": self.convincing, "sentence": self.sentence,
        }  # fmt: skip


@dataclass(frozen=True)
class Groups:
    """The task's score over groups of images, and on damaged ones."""

    title: str  # of the score, for people
    whole: Score | None = None  # of all images
    slices: tuple[Slice, ...] = field(default=(), repr=False)
    robustness: tuple[Damage, ...] = field(default=(), repr=False)


NO_GROUPS = Groups("")


@dataclass(frozen=True)
class DenseEvaluation:
    """Scores of one run on one split of one data set."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    metrics: dict[str, Any] = field(repr=False)
    left_out: int  # images of the split that the run was trained or chosen on
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that could not be read
    notes: tuple[str, ...]  # what the user should know, a line each
    output: Path  # the JSON file; the images are in the CSV file of the same name, all pictures in the HTML file
    against: Difference | None = None
    groups: Groups = NO_GROUPS

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.output.with_suffix(".html")

    @property
    def about(self) -> str:
        """Which images were scored."""
        return self.data if self.split == "all" else f"{self.data}, {self.split} split"

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds: everything but the single images."""
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "left_out": self.left_out,
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
            "metrics": self.metrics,
            "against": self.against.to_dict() if self.against else None,
            "slices": [s.to_dict() for s in self.groups.slices],
            "robustness": [d.to_dict() for d in self.groups.robustness],
        }

    def remarks(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [*self.notes, *([self.against.sentence] if self.against else [])]
        lines += [*remarks(self.groups.slices), *robustness_remarks(self.groups.robustness)]
        if self.bad:
            lines.append(f"{len(self.bad)} images could not be read and are not counted; the first: {': '.join(self.bad[0])}")
        return lines


@dataclass(frozen=True)
class ScoredObjects:
    """One evaluated image, at the score thresholds of the classes."""

    name: str
    objects: int  # true ones, crowds and difficult ones left out
    found: int
    right: int
    mistakes: Mapping[str, int]  # by mistakes.KINDS
    missed: int  # true objects that no answer is about
    f1: float
    mean_iou: float | None  # of the right answers


@dataclass(frozen=True)
class SizeRecall:
    """How many of the objects of a size are found."""

    size: str  # small, medium, large: as in COCO
    objects: int
    found: int
    recall: float
    interval: tuple[float, float]  # Wilson's, 95 %


@dataclass(frozen=True)
class ObjectsEvaluation(DenseEvaluation):
    """Scores of a run that finds objects; `metrics` are those of `detection_metrics`."""

    by_outline: bool = False  # whether masks were scored, or boxes alone
    images: tuple[ScoredObjects, ...] = field(default=(), repr=False)
    mistakes: Mapping[str, Mapping[str, int]] = field(default_factory=dict, repr=False)  # class -> right, KINDS and missed -> count
    sizes: tuple[SizeRecall, ...] = ()
    reliability: tuple[Bin, ...] = field(default=(), repr=False)  # scores of the answers against how many are right at IoU .50
    calibration_error: float | None = None  # of these scores, 0..1; None: nothing was found
    calibrated: bool = False  # whether the run's scores were calibrated

    def to_dict(self) -> dict[str, Any]:
        more: dict[str, Any] = {"mistakes": {name: dict(counts) for name, counts in self.mistakes.items()}}
        bins = [asdict(b) for b in self.reliability]
        more["calibration"] = {"error": self.calibration_error, "calibrated": self.calibrated, "bins": bins}
        return super().to_dict() | more | {"sizes": [asdict(s) | {"interval": list(s.interval)} for s in self.sizes]}


@dataclass(frozen=True)
class ScoredMap:
    """One evaluated image."""

    name: str
    pixels: int  # that are scored
    pixel_accuracy: float | None  # None: no pixel is scored
    miou: float | None  # over the classes that are in the truth or in the answer


@dataclass(frozen=True)
class MapsEvaluation(DenseEvaluation):
    """Scores of a run that says a class for every pixel; `metrics` are those of `segmentation_metrics`."""

    images: tuple[ScoredMap, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class ScoredLabels:
    """One evaluated image that may have several labels."""

    name: str
    truth: tuple[str, ...]
    unknown: tuple[str, ...]  # labels of which nobody knows
    said: tuple[str, ...]
    f1: float | None  # of its labels; None: nothing is known of it
    loss: float | None  # summed over its known labels, nats


@dataclass(frozen=True)
class LabelsEvaluation(DenseEvaluation):
    """Scores of a run that says several labels of an image; `metrics` are those of `label_metrics`."""

    images: tuple[ScoredLabels, ...] = field(default=(), repr=False)
    confusions: tuple[tuple[str, str, int], ...] = field(default=(), repr=False)  # missed, said instead, images; the most frequent first

    def to_dict(self) -> dict[str, Any]:
        pairs = [{"missed": missed, "said": said, "images": n} for missed, said, n in self.confusions]
        return super().to_dict() | {"confusions": pairs}
