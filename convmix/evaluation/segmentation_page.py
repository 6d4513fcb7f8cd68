"""The page and the table of an evaluation of class maps: from the scores to the classes that are confused and the images to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convmix.data.targets import IGNORE
from convmix.evaluation.confusion_plots import MOST_CLASSES, confusion_picture
from convmix.evaluation.dense_page import (
    MOST_LISTED,
    Row,
    begin_page,
    class_table,
    end_page,
    gallery,
    share,
    summary_table,
    with_interval,
    worst_and_typical,
)
from convmix.evaluation.dense_plots import MOST_BARS, scores_picture
from convmix.evaluation.dense_result import MapsEvaluation
from convmix.evaluation.group_sections import between
from convmix.plots import overlay
from convmix.plots.html_page import Page

if TYPE_CHECKING:
    from rich.console import Group

_SCORES = {
    "miou": "mIoU, mean over the classes",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy over the classes",
    "frequency_weighted_iou": "IoU, weighted by the classes' pixels",
}
_MOST_CONFUSIONS = 10
_WRONG, _RIGHT, _UNSCORED = (213, 94, 0), 0.35, (128, 128, 128)  # the colour of an error, how much of the image stays, not scored


@dataclass(frozen=True)
class Example:
    """One scored image."""

    pixels: np.ndarray  # H,W,3 uint8
    truth: np.ndarray  # H,W classes, IGNORE where nothing is scored
    said: np.ndarray  # H,W classes


def score_rows(e: MapsEvaluation) -> list[Row]:
    """Name, value and 95 % interval of every score of the whole."""
    m, rows = e.metrics, []
    for key, name in _SCORES.items():
        interval = m.get(f"{key}_interval")
        rows.append((name, share(m[key]), "–" if interval is None else between(interval)))
    return rows


def write_page(e: MapsEvaluation, example: Callable[[int], Example]) -> list[Path]:
    """Write the HTML file and its figures beside the JSON file; all that was written."""
    page = begin_page(e, score_rows(e), caption=f"{e.metrics['pixels']:,} pixels. Intervals: bootstrap over the images.")
    _classes(page, e)
    _confusions(page, e)
    _images(page, e, example)
    return end_page(page, e)


def table(e: MapsEvaluation) -> "Group":
    """The scores, the classes (the worst ones first where they are many), what else is remarkable, and the page's path."""
    from rich.console import Group
    from rich.text import Text

    rows, left = _class_rows(e)
    per_class = class_table(_HEADER, rows)
    lines = [f"{left} more classes with a better IoU are in {e.output}"] if left else []
    return Group(summary_table(e, score_rows(e)), "", per_class, "", *map(Text, [*lines, *e.remarks(), f"page: {e.page}"]))


_HEADER = ("class", "IoU (95 % interval)", "accuracy", "of the pixels", "images")


def _worst_first(e: MapsEvaluation) -> list[str]:
    """The classes that have an IoU, the worst ones first."""
    scores = e.metrics["per_class"]
    return sorted((name for name in scores if scores[name]["iou"] is not None), key=lambda name: (scores[name]["iou"], name))


def _class_rows(e: MapsEvaluation) -> tuple[list[tuple[object, ...]], int]:
    """A row per class that is in the truth or in an answer, and how many more there are, of a better IoU."""
    scores, names = e.metrics["per_class"], _worst_first(e)
    listed = names[:MOST_LISTED] if len(names) > MOST_LISTED else [name for name in scores if name in set(names)]
    rows: list[tuple[object, ...]] = []
    for name in listed:
        s = scores[name]
        rows.append((name, with_interval(s["iou"], s["iou_interval"]), share(s["accuracy"]), share(s["share"]), s["images"]))
    return rows, len(names) - len(listed)


def _classes(page: Page, e: MapsEvaluation) -> None:
    rows, left = _class_rows(e)
    many = f"The {len(rows)} with the lowest IoU of {len(rows) + left}; the JSON file holds all. " if left else ""
    page.section("Classes", f"{many}IoU: pixels that truth and answer share, of those that either has. Accuracy: of the true pixels.")
    page.table(_HEADER, rows)
    worst = _worst_first(e)[:MOST_BARS]
    scores = {name: e.metrics["per_class"][name]["iou"] for name in worst}
    intervals = {name: e.metrics["per_class"][name]["iou_interval"] for name in worst}
    picture = scores_picture(scores, intervals, overall=e.metrics["miou"], name="IoU", title="IoU by class, the worst first")
    page.figure(picture, name="classes", alt="IoU of every class with its interval; the table above holds the numbers")


def _confusions(page: Page, e: MapsEvaluation) -> None:
    labels, counts = list(e.metrics["per_class"]), np.asarray(e.metrics["confusion"])
    present = np.flatnonzero(counts.sum(0) + counts.sum(1))
    page.section("Confusions", "Of the pixels of a class, how many per cent are taken for which.")
    if len(present) <= MOST_CLASSES:
        shown = counts[np.ix_(present, present)]
        title = "per cent of the pixels of a true class"
        page.figure(
            confusion_picture(shown, [labels[i] for i in present], title=title, in_percent=True),
            name="confusion",
            alt="Confusion matrix; the JSON file holds the numbers",
        )
    wrong = counts * ~np.eye(len(labels), dtype=bool)
    pairs = [divmod(int(at), len(labels)) for at in np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]]
    rows = [
        (labels[true], labels[said], share(wrong[true, said] / counts.sum()), share(wrong[true, said] / counts[true].sum()))
        for true, said in pairs
        if wrong[true, said]
    ]
    if rows:
        page.table(("is", "taken for", "of all pixels", "of the class"), rows, caption=f"The {len(rows)} confusions of the most pixels")
    else:
        page.text("Nothing is confused: every pixel is right.")


def _images(page: Page, e: MapsEvaluation, example: Callable[[int], Example]) -> None:
    worst, typical = worst_and_typical([image.miou for image in e.images])
    labels = tuple(e.metrics["per_class"])
    for name, title, about, chosen in (
        ("worst", "Worst images", "The lowest mean IoU over the classes of an image: where to look first, at the labels too.", worst),
        ("typical", "Typical images", "Images about the median of their mean IoUs.", typical),
    ):
        if not chosen:
            continue
        page.section(title, f"{about} Errors are orange; grey is not scored.")
        rows = []
        for i in chosen:
            one, image = example(i), e.images[i]
            truth, said = (overlay.draw_map(one.pixels, classes, labels) for classes in (one.truth, one.said))
            scores = f"{image.name}: mIoU {share(image.miou)}, pixel accuracy {share(image.pixel_accuracy)}"
            rows += [(scores, [one.pixels, errors_drawn(one)]), ("", [truth, said])]  # two by two: legends of four beside are too small
        titles = ("the image, and the truth beneath", "the errors, and what is said beneath")
        picture = gallery(rows, titles, title=title)
        page.figure(picture, name=name, alt=f"{title}: image, errors, truth, and what the model says")


def errors_drawn(one: Example) -> np.ndarray:
    """The image, faint and grey, with wrong pixels orange and unscored ones flat grey: H,W,3 uint8."""
    grey = one.pixels.mean(2, keepdims=True).repeat(3, 2)
    drawn = 255 - (255 - grey) * _RIGHT
    drawn[one.truth != one.said] = _WRONG
    drawn[one.truth == IGNORE] = _UNSCORED
    return drawn.astype(np.uint8)
