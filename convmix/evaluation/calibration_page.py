"""What `calibrate` found, as JSON, as a page and for a terminal."""

import dataclasses
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmix.evaluation.group_sections import between, percent
from convmix.evaluation.reliability import coverage_picture, reliability_picture
from convmix.metrics.calibration import Bin, Calibration, Choice, CoverageCurve
from convmix.plots.html_page import Page

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Calibrated:
    """A calibration that was written into a model directory, and what it was made from."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    calibration: Calibration
    previous: Calibration | None  # what the directory held before
    bins_before: tuple[Bin, ...] = field(repr=False)
    bins_after: tuple[Bin, ...] = field(repr=False)
    curve: CoverageCurve = field(repr=False)  # of the calibrated probabilities
    choices: tuple[Choice, ...] = field(repr=False)  # thresholds for SHOWN_ACCURACIES, as far as they are reached
    left_out: int  # images that the run was trained or chosen on, or is to be tested on
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that could not be read
    notes: tuple[str, ...]  # what the user should know, a line each
    output: Path  # the JSON file

    @property
    def page(self) -> Path:
        """The HTML page; its pictures are beside it."""
        return self.output.with_suffix(".html")

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds; of the curve a point for every percent of coverage."""
        ends = [int(np.flatnonzero(self.curve.coverage >= share / 100)[0]) for share in range(1, 101)]
        names = [f.name for f in dataclasses.fields(CoverageCurve)]
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "calibration": self.calibration.to_dict(),
            "previous": self.previous.to_dict() if self.previous else None,
            "bins_before": [dataclasses.asdict(b) for b in self.bins_before],
            "bins_after": [dataclasses.asdict(b) for b in self.bins_after],
            "curve": [{name: float(getattr(self.curve, name)[i]) for name in names} for i in dict.fromkeys(ends)],
            "choices": [dataclasses.asdict(c) for c in self.choices],
            "left_out": self.left_out,
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
        }


def build_page(result: Calibrated) -> Page:
    """What a person should look at: the probabilities before and after, and what answering fewer images brings."""
    c = result.calibration
    of = result.data if result.split == "all" else f"{result.data}, {result.split} split"
    page = Page(f"Calibration of {Path(result.run).name}", f"{c.n:,} images: {of}")
    for note in result.notes:
        page.note(note)
    if result.bad:
        page.note(f"{len(result.bad)} images could not be read and are not counted; the first: {': '.join(result.bad[0])}")
    page.section("What the probabilities are worth")
    page.text(
        "Of answers that are said to be right with a probability of 80 %, 80 % should be right. To come near that, the model's outputs are "
        f"divided by one number, the temperature; {c.temperature:.3f} fits best here. It changes how sure an answer is, never which it is."
    )
    rows = [
        ("calibration error", percent(c.ece_before), percent(c.ece_after)),
        ("loss", f"{c.nll_before:.4f} nats", f"{c.nll_after:.4f} nats"),
    ]
    page.table(("score", "before", "after"), rows, caption="On the images that the temperature was fitted on")
    page.figure(
        reliability_picture(result.bins_before, result.bins_after, title="how probable the answers are said to be, and how many are right"),
        name="reliability",
        alt="Reliability diagram before and after calibration",
        caption="Points below the dashed line: too sure; above it: not sure enough. Whiskers: 95 % intervals.",
    )
    page.section("When to say: not sure", _threshold_sentence(c))
    page.figure(
        coverage_picture(result.curve, threshold=c.threshold, title="fewer answers, more of them right"),
        name="coverage",
        alt="Accuracy of the answered images against their share, and both against the threshold",
    )
    if result.choices:
        header = ("accuracy wanted", "threshold", "answered", "right among them", "95 % interval")
        reached = [
            (percent(x.wanted), f"{x.threshold:.4f}", percent(x.coverage), percent(x.accuracy), between(x.accuracy_interval))
            for x in result.choices
        ]
        page.table(header, reached, caption="What --accuracy would choose on these images; what is missing is not reached")
    return page


def _threshold_sentence(c: Calibration) -> str:
    if c.threshold is None:
        return "No threshold is set: every answer is sure. `convmix calibrate RUN --accuracy 0.95`, or --coverage, sets one."
    assert c.choice is not None  # calibrate made it
    return (
        f'Below a probability of {c.threshold:.4f} an answer is "not sure". Asked for was {c.choice.target} {percent(c.choice.wanted)}. '
        f"On these images {percent(c.choice.coverage)} are answered, {percent(c.choice.accuracy)} of them right "
        f"(95 % interval {between(c.choice.accuracy_interval)})."
    )


@singledispatch
def table(result: Any) -> "Group":
    """What a calibration says, for a terminal."""
    raise TypeError(f"no table of {type(result).__name__}")


@table.register(Calibrated)
def _(result: Calibrated) -> "Group":
    """The calibration for a terminal: what changed, the threshold, what the user should know, and the page's path."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    c = result.calibration
    of = result.data if result.split == "all" else f"{result.data}, {result.split} split"
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column(style="bold")
    summary.add_column()
    rows = [
        ("images", f"{c.n} ({of})"),
        ("temperature", f"{c.temperature:.3f}"),
        ("calibration error", f"{percent(c.ece_before)} before, {percent(c.ece_after)} after"),
        ("loss", f"{c.nll_before:.4f} nats before, {c.nll_after:.4f} after"),
        ("threshold", "none: every answer is sure" if c.threshold is None else f"{c.threshold:.4f}, not sure below it"),
    ]
    if c.choice:
        rows.append(("answered", f"{percent(c.choice.coverage)} of the images"))
        rows.append(("right among them", f"{percent(c.choice.accuracy)}, 95 % interval {between(c.choice.accuracy_interval)}"))
    for name, value in rows:
        summary.add_row(name, Text(value))
    lines = list(result.notes)
    if result.bad:
        lines.append(f"{len(result.bad)} images could not be read and are not counted; the first: {': '.join(result.bad[0])}")
    return Group(summary, *map(Text, lines), Text(f"page: {result.page}"))
