"""The scores for a terminal: the summary, the classes, and where the rest is."""

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from convmix.evaluation import detection_page, labelled_page, segmentation_page, slices
from convmix.evaluation.classification_page import score_rows
from convmix.evaluation.classification_result import Evaluation
from convmix.evaluation.dense_result import LabelsEvaluation, MapsEvaluation, ObjectsEvaluation
from convmix.evaluation.group_sections import percent, robustness_remarks

if TYPE_CHECKING:
    from rich.console import Group

MAX_CLASSES_SHOWN = 30


@singledispatch
def table(evaluation: Any) -> "Group":
    """What an evaluation says, for a terminal."""
    raise TypeError(f"no table of {type(evaluation).__name__}")


table.register(ObjectsEvaluation, detection_page.table)
table.register(MapsEvaluation, segmentation_page.table)
table.register(LabelsEvaluation, labelled_page.table)


@table.register(Evaluation)
def _(evaluation: Evaluation) -> "Group":
    """The scores, then the classes (the worst ones first where they are many), then what else is remarkable, then the page's path."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    m = evaluation.metrics
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column(style="bold")
    summary.add_column()
    of = evaluation.data if evaluation.split == "all" else f"{evaluation.data}, {evaluation.split} split"
    summary.add_row("images", Text(f"{m['n']} ({of})"))
    for name, value, interval in score_rows(evaluation):
        summary.add_row(name, Text(value if interval == "–" else f"{value}, 95 % interval {interval}"))
    if (c := evaluation.certainty) and c.ece_after is not None:
        summary.add_row("calibration error", Text(f"{percent(c.ece_after)} ({percent(c.ece_before)} without the run's temperature)"))
    if c and c.fitted and c.fitted.threshold is not None and c.sure_accuracy is not None:
        summary.add_row("sure answers", Text(f"{percent(c.sure / m['n'])} of the images, {percent(c.sure_accuracy)} of them right"))
    scores = {name: s for name, s in m["per_class"].items() if s["support"]}
    many = len(scores) > MAX_CLASSES_SHOWN
    names = sorted(scores, key=lambda name: (scores[name]["f1"], name)) if many else list(scores)
    per_class = Table(box=None, header_style="bold", pad_edge=False)
    per_class.add_column("class", overflow="fold")
    for title in ("precision", "recall", "F1", "images"):
        per_class.add_column(title, justify="right")
    for name in names[:MAX_CLASSES_SHOWN]:
        s = scores[name]
        per_class.add_row(Text(name), percent(s["precision"]), percent(s["recall"]), percent(s["f1"]), str(s["support"]))
    lines = [f"{len(names) - MAX_CLASSES_SHOWN} more classes with a better F1 are in {evaluation.output}"] if many else []
    lines += _remarks(evaluation)
    return Group(summary, "", per_class, "", *map(Text, lines), Text(f"page: {evaluation.page}"))


def _remarks(e: Evaluation) -> list[str]:
    """What a person should know, a line each."""
    lines = list(e.notes)
    if e.against:
        lines += [e.against.sentence, *e.against.notes]
    lines += [*slices.remarks(e.slices), *robustness_remarks(e.robustness)]
    if e.bad:
        lines.append(f"{len(e.bad)} images could not be read and are not counted; the first: {': '.join(e.bad[0])}")
    return lines
