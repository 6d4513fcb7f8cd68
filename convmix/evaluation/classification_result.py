"""What an evaluation finds out, as values: everything that the JSON file, the table and the page are written from."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convmix.evaluation.pairing import Pairing
from convmix.evaluation.robustness import Damage
from convmix.evaluation.slices import Slice
from convmix.metrics.calibration import Bin, Calibration


@dataclass(frozen=True)
class ScoredImages:
    """One evaluated image."""

    name: str
    truth: str
    prediction: str
    probability: float  # of the prediction, 0..1
    truth_probability: float = 0.0  # of the truth, 0..1
    loss: float = 0.0  # nats
    width: int = 0  # pixels of the upright original
    height: int = 0
    brightness: float = 0.0  # of what the model sees, 0 black to 255 white


@dataclass(frozen=True)
class Certainty:
    """Whether the run's probabilities mean what they say, on the scored images."""

    fitted: Calibration | None  # the run's own, fitted on other images
    ece_before: float  # expected calibration error of the raw softmax, 0..1
    ece_after: float | None  # with the run's temperature
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...] | None
    sure: int  # images whose probability reaches the run's threshold; all without one
    sure_accuracy: float | None  # of these; None where there are none
    sure_interval: tuple[float, float] | None  # Wilson's, 95 %


@dataclass(frozen=True)
class Evaluation:
    """Scores of one run on one split of one data set."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    metrics: dict[str, Any] = field(repr=False)  # of metrics.classification_metrics, with an interval beside every score
    left_out: int  # images of the split that the run was trained or chosen on
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that could not be read
    notes: tuple[str, ...]  # what the user should know, a line each
    output: Path  # the JSON file; the images are in the CSV file of the same name, all pictures in the HTML file
    images: tuple[ScoredImages, ...] = field(repr=False)
    slices: tuple[Slice, ...] = field(default=(), repr=False)
    certainty: Certainty | None = field(default=None, repr=False)
    against: Pairing | None = None
    robustness: tuple[Damage, ...] = field(default=(), repr=False)

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.output.with_suffix(".html")

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
            "calibration": _plain(asdict(self.certainty)) if self.certainty else None,
            "against": _plain(asdict(self.against) | {"sentence": self.against.sentence}) if self.against else None,
            "slices": [s.to_dict() for s in self.slices],
            "robustness": [d.to_dict() for d in self.robustness],
        }


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON reads it back: tuples are lists."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read
