"""`calibrate` for runs that find objects: scores that are probabilities, written into the model directory and shown.

run + Selection -> found and true objects, matched at IoU .50 -> ScoreCalibration -> the model directory, calibration.json and a page
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.atomic import write_json
from convmix.errors import ConfigError, DataError
from convmix.evaluation.calibration_page import table
from convmix.evaluation.group_sections import percent
from convmix.evaluation.kept_calibration import keep
from convmix.evaluation.model_outputs import Answerer, Means
from convmix.evaluation.reliability import reliability_picture
from convmix.evaluation.selection import Selection
from convmix.metrics.calibration import Bin, reliability
from convmix.metrics.score_calibration import ScoreCalibration
from convmix.plots.html_page import Page

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class ScoresCalibrated:
    """A calibration of scores that was written into a model directory, and what it was made from."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    calibration: ScoreCalibration
    previous: ScoreCalibration | None  # what the directory held before
    bins_before: tuple[Bin, ...] = field(repr=False)
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
            "bins_before": [asdict(b) for b in self.bins_before],
            "bins_after": [asdict(b) for b in self.bins_after],
            "left_out": self.left_out,
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
        }

    @property
    def remarks(self) -> list[str]:
        """What a person should know, a line each."""
        unread = [f"{len(self.bad)} images could not be read and are not counted; the first: {': '.join(self.bad[0])}"] if self.bad else []
        return [*self.notes, *unread]


def calibrate_objects(artifact: Artifact, selection: Selection, means: Means, *, notes: tuple[str, ...]) -> ScoresCalibrated:
    """`calibrate.calibrate` for such a run. Raises DataError where too few objects are found to learn from."""
    column_of = columns(selection.examples.classes, artifact.labels, selection.data)
    answerer = Answerer(artifact, len(selection.examples), means)
    task = answerer.task
    outputs = answerer(Renumbered(selection.examples, column_of), task.preprocessing(artifact.preprocess))
    if not len(outputs.indices):
        raise DataError(f"{selection.data}: none of its images can be read; the first: {outputs.bad[0][1]}")
    name = selection.split if selection.own else f"{selection.data} ({selection.split})"
    task.calibration = None
    before = task.certainty(outputs.values, outputs.targets)
    try:
        found = task.calibrate(outputs.values, outputs.targets, split=name)
    except ConfigError as error:
        raise DataError(f"{selection.data}: {error}") from None
    assert isinstance(found, ScoreCalibration)
    task.calibration = found
    after = task.certainty(outputs.values, outputs.targets)
    result = ScoresCalibrated(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        calibration=found,
        previous=artifact.calibration if isinstance(artifact.calibration, ScoreCalibration) else None,
        bins_before=tuple(reliability(*before)),
        bins_after=tuple(reliability(*after)),
        left_out=selection.left_out,
        bad=tuple((selection.examples.name(i), reason) for i, reason in outputs.bad),
        notes=(*selection.notes, *notes, *([answerer.ready.note] if answerer.ready.note else [])),
        output=artifact.path / "calibration.json",
    )
    build_page(result).write(result.page)
    write_json(result.output, result.to_dict())
    keep(artifact, found)
    return result


def rows(c: ScoreCalibration) -> list[tuple[str, str, str]]:
    """Score, before and after."""
    return [
        ("calibration error", percent(c.ece_before), percent(c.ece_after)),
        ("loss", f"{c.nll_before:.4f} nats", f"{c.nll_after:.4f} nats"),
    ]


def build_page(result: ScoresCalibrated) -> Page:
    """The scores before and after."""
    c = result.calibration
    of = result.data if result.split == "all" else f"{result.data}, {result.split} split"
    page = Page(f"Calibration of {Path(result.run).name}", f"{c.found:,} objects found in {c.n:,} images: {of}")
    for remark in result.remarks:
        page.note(remark)
    page.section(
        "What the scores are worth",
        "Of objects that are found with a score of 80 %, 80 % should be there, at an IoU of one half. The order of the objects stays, and "
        "so do all average precisions.",
    )
    page.table(("score", "before", "after"), rows(c), caption="On the objects that slope and offset were fitted on")
    picture = reliability_picture(result.bins_before, result.bins_after, title="scores of found objects, and how many are there")
    page.figure(picture, name="reliability", alt="Reliability diagram before and after calibration")
    return page


@table.register(ScoresCalibrated)
def _(result: ScoresCalibrated) -> "Group":
    """For a terminal: what changed, what the user should know, and the page's path."""
    from rich.console import Group
    from rich.text import Text

    return Group(*map(Text, [result.calibration.sentence, *result.remarks]), Text(f"page: {result.page}"))
