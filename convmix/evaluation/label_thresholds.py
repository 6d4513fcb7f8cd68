"""`calibrate` where images may have several labels: a slope, an offset and a threshold for each, fitted anew, written and shown.

run + Selection -> logits n,k and what is known n,k -> LabelCalibration -> the model directory, calibration.json and a page
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.atomic import write_json
from convmix.data.loaders import eval_batches
from convmix.data.targets import UNKNOWN
from convmix.errors import ConfigError, DataError
from convmix.evaluation.calibration_page import table
from convmix.evaluation.dense_page import class_table, share
from convmix.evaluation.group_sections import percent
from convmix.evaluation.kept_calibration import keep
from convmix.evaluation.model_outputs import Means
from convmix.evaluation.reliability import reliability_picture
from convmix.evaluation.selection import Selection
from convmix.inference.batches import run_model
from convmix.metrics.calibration import FEWEST, Bin, reliability
from convmix.plots.html_page import Page
from convmix.tasks.label_calibration import LabelCalibration, calibrate_labels
from convmix.tasks.label_metrics import Judged, multilabel_metrics

if TYPE_CHECKING:
    from rich.console import Group

_HEADER = ("label", "threshold before", "threshold", "precision", "recall", "images with it", "said of")


@dataclass(frozen=True)
class LabelsCalibrated:
    """Calibrations and thresholds of labels that were written into a model directory, and what they give on the images they are of."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    calibration: LabelCalibration
    previous: LabelCalibration | None  # what the directory held before
    per_class: dict[str, dict[str, Any]] = field(repr=False)  # of `label_metrics`, on these images
    bins_before: tuple[Bin, ...] = field(repr=False)  # of all labels together, without any calibration
    bins_after: tuple[Bin, ...] = field(repr=False)
    left_out: int  # images that the run was trained or chosen on, or is to be tested on
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that could not be read
    notes: tuple[str, ...]  # what the user should know, a line each
    output: Path  # the JSON file

    @property
    def page(self) -> Path:
        """The HTML page; its picture is beside it."""
        return self.output.with_suffix(".html")

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "calibration": self.calibration.to_dict(),
            "previous": self.previous.to_dict() if self.previous else None,
            "per_class": self.per_class,
            "left_out": self.left_out,
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
        }


def calibrate_run(
    artifact: Artifact, selection: Selection, means: Means, *, accuracy: float | None, coverage: float | None, notes: tuple[str, ...]
) -> LabelsCalibrated:
    """`certainty.calibrate` for such a run. accuracy: the share of each label's answers that are to be right, its precision.

    Raises ConfigError for a coverage, DataError for too few images.
    """
    if coverage is not None:
        raise ConfigError("coverage: every image is answered where it may have several labels; give accuracy, the precision of each label")
    examples = Renumbered(
        selection.examples, columns(selection.examples.classes, artifact.labels, selection.data), len(artifact.labels)
    )  # fmt: skip
    batches = eval_batches(examples, artifact.preprocess, batch_size=means.batch_size, workers=means.workers)
    outputs = run_model(artifact.model.to(means.device), batches, device=means.device, precision=means.precision)
    if (n := len(outputs.values)) < FEWEST:
        raise DataError(f"{selection.data}: {n} images that can be read are too few to calibrate on, expected at least {FEWEST}")
    name = selection.split if selection.own else f"{selection.data} ({selection.split})"
    found = calibrate_labels(outputs.values, outputs.targets, split=name, precision=accuracy)

    truth = outputs.targets.numpy()
    before, after = (p.double().numpy() for p in (outputs.values.sigmoid(), found.apply(outputs.values)))
    judged = Judged(after, truth, np.array(found.thresholds))
    known, true = truth != UNKNOWN, (truth == 1).astype(float)
    missed = [label for label, reached in zip(artifact.labels, found.reached, strict=True) if not reached]
    if missed:
        why = "no image shows where their thresholds should be" if accuracy is None else f"no threshold reaches {percent(accuracy)}"
        notes = (*notes, f"{', '.join(missed[:5])}{f' and {len(missed) - 5} more' if len(missed) > 5 else ''}: {why} on these images")
    result = LabelsCalibrated(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        calibration=found,
        previous=artifact.calibration if isinstance(artifact.calibration, LabelCalibration) else None,
        per_class=multilabel_metrics(judged, artifact.labels, intervals=False)["per_class"],
        bins_before=tuple(reliability(before[known], true[known])),
        bins_after=tuple(reliability(after[known], true[known])),
        left_out=selection.left_out,
        bad=tuple((selection.examples.name(i), reason) for i, reason in outputs.bad),
        notes=(*selection.notes, *notes),
        output=artifact.path / "calibration.json",
    )
    build_page(result).write(result.page)
    write_json(result.output, result.to_dict())
    keep(artifact, found)
    return result


def rows(result: LabelsCalibrated) -> list[tuple[object, ...]]:
    """A line per label."""
    before = result.previous.thresholds if result.previous else (None,) * len(result.per_class)
    return [
        (
            label, "–" if old is None else f"{old:.3f}", f"{s['threshold']:.3f}", share(s["precision"]), share(s["recall"]), s["support"],
            s["said"],
        )
        for (label, s), old in zip(result.per_class.items(), before, strict=True)
    ]  # fmt: skip


def build_page(result: LabelsCalibrated) -> Page:
    """The probabilities before and after, and the threshold of every label with what it gives."""
    c = result.calibration
    of = result.data if result.split == "all" else f"{result.data}, {result.split} split"
    page = Page(f"Calibration of {Path(result.run).name}", f"{c.n:,} images: {of}")
    for note in result.notes:
        page.note(note)
    if result.bad:
        page.note(f"{len(result.bad)} images could not be read and are not counted; the first: {': '.join(result.bad[0])}")
    page.section("What the probabilities are worth", "Of labels that are said with a probability of 80 %, 80 % should be there.")
    scores = [
        ("calibration error, mean over the labels", percent(c.ece_before), percent(c.ece_after)),
        ("loss, mean over what is known", f"{c.nll_before:.4f} nats", f"{c.nll_after:.4f} nats"),
    ]
    page.table(("score", "before", "after"), scores, caption="On the images that each label's slope and offset were fitted on")
    picture = reliability_picture(result.bins_before, result.bins_after, title="how probable labels are said to be, and how many are there")
    page.figure(picture, name="reliability", alt="Reliability diagram before and after calibration")
    page.section("Thresholds", _goal(c))
    page.table(_HEADER, rows(result), caption="Precision and recall on the same images")
    return page


@table.register(LabelsCalibrated)
def _(result: LabelsCalibrated) -> "Group":
    """For a terminal: what changed, the thresholds, what the user should know, and the page's path."""
    from rich.console import Group
    from rich.text import Text

    lines = [result.calibration.sentence, *result.notes]
    if result.bad:
        lines.append(f"{len(result.bad)} images could not be read and are not counted; the first: {': '.join(result.bad[0])}")
    return Group(class_table(_HEADER, rows(result)), "", *map(Text, lines), Text(f"page: {result.page}"))


def _goal(c: LabelCalibration) -> str:
    if c.wanted is None:
        return "Those of the best F1 of each label. --accuracy 0.9 asks for a precision instead."
    return f"As low as a precision of {percent(c.wanted)} of each label allows."
