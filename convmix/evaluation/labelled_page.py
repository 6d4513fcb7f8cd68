"""The page and the table of an evaluation where images have several labels: from the scores to the labels and the images to look at."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from convmix.data.examples import Examples
from convmix.data.formats import printable
from convmix.data.preprocessing import Preprocess
from convmix.evaluation.dense_page import MOST_LISTED, Row, begin_page, class_table, end_page, share, summary_table, with_interval
from convmix.evaluation.dense_plots import MOST_BARS, scores_picture
from convmix.evaluation.dense_result import LabelsEvaluation
from convmix.evaluation.gallery import encoded, is_small
from convmix.evaluation.group_sections import between
from convmix.evaluation.reliability import reliability_picture
from convmix.metrics.calibration import reliability
from convmix.plots.html_page import Page, Thumbnail
from convmix.tasks.label_metrics import Judged
from convmix.tasks.label_picture import caption

if TYPE_CHECKING:
    from rich.console import Group

_SHARES = {
    "map": "mean AP, over the labels",
    "macro_f1": "macro F1, mean over the labels",
    "micro_f1": "micro F1, all answers together",
    "sample_f1": "F1 of an image, mean over the images",
    "subset_accuracy": "images with every label right",
    "ranking_loss": "ranking loss: pairs of a true and a false label in the wrong order",
}
_HEADER = (
    "label",
    "AP (95 % interval)",
    "F1 (95 % interval)",
    "precision",
    "recall",
    "threshold",
    "images with it",
    "said of",
    "calibration error",
)
_WORST, _TYPICAL, _MOST_CONFUSIONS = 12, 6, 10


def score_rows(e: LabelsEvaluation) -> list[Row]:
    """Name, value and 95 % interval of every score of the whole."""
    m = e.metrics
    rows = [(name, share(m[key]), between(m.get(f"{key}_interval"))) for key, name in _SHARES.items()]
    loss = "–" if m["loss"] is None else f"{m['loss']:.4f} nats"
    return [*rows, ("loss, summed over the labels of an image", loss, between(m.get("loss_interval"), "nats"))]


def write_page(
    e: LabelsEvaluation, judged: Judged, examples: Examples, places: Sequence[int], preprocess: Preprocess
) -> list[Path]:  # fmt: skip
    """Write the HTML file and its figures beside the JSON file; all that was written.

    places: positions of the scored images in `examples`.
    """
    unknown = f" {e.metrics['unknown']:,} of which nobody knows are left out." if e.metrics["unknown"] else ""
    page = begin_page(e, score_rows(e), caption=f"{e.metrics['known']:,} known labels.{unknown} Intervals: bootstrap over the images.")
    _labels(page, e)
    _calibration(page, judged)
    _confusions(page, e)
    _images(page, e, judged, examples, places, preprocess)
    return end_page(page, e)


def table(e: LabelsEvaluation) -> "Group":
    """The scores, the labels (the worst ones first where they are many), what else is remarkable, and the page's path."""
    from rich.console import Group
    from rich.text import Text

    rows, left = _label_rows(e)
    lines = [f"{left} more labels with a better AP are in {e.output}"] if left else []
    per_label = class_table(_HEADER[:6], [row[:6] for row in rows])
    return Group(summary_table(e, score_rows(e)), "", per_label, "", *map(Text, [*lines, *e.remarks(), f"page: {e.page}"]))


def _worst_first(e: LabelsEvaluation) -> list[str]:
    scores = e.metrics["per_class"]
    return sorted((name for name in scores if scores[name]["ap"] is not None), key=lambda name: (scores[name]["ap"], name))


def _label_rows(e: LabelsEvaluation) -> tuple[list[tuple[object, ...]], int]:
    """A row per label of which something is known, and how many more there are, of a better AP."""
    scores = e.metrics["per_class"]
    known = [name for name in scores if scores[name]["known"]]
    worst = _worst_first(e)
    listed = known if len(known) <= MOST_LISTED else worst[:MOST_LISTED]
    rows: list[tuple[object, ...]] = []
    for name in listed:
        s = scores[name]
        rows.append((
            name, with_interval(s["ap"], s.get("ap_interval")), with_interval(s["f1"], s.get("f1_interval")), share(s["precision"]),
            share(s["recall"]), f"{s['threshold']:.3f}", s["support"], s["said"], share(s["calibration_error"]),
        ))  # fmt: skip
    return rows, len(known) - len(listed)


def _labels(page: Page, e: LabelsEvaluation) -> None:
    rows, left = _label_rows(e)
    many = f"The {len(rows)} with the lowest AP of {len(rows) + left}; the JSON file holds all. " if left else ""
    page.section("Labels", f"{many}AP does not depend on the threshold; F1, precision and recall are those at it.")
    page.table(_HEADER, rows)
    worst = _worst_first(e)[:MOST_BARS]
    if worst:
        scores = {name: e.metrics["per_class"][name]["ap"] for name in worst}
        intervals = {name: e.metrics["per_class"][name].get("ap_interval") for name in worst}
        picture = scores_picture(scores, intervals, overall=e.metrics["map"], name="AP", title="AP by label, the worst first")
        page.figure(picture, name="labels", alt="AP of every label with its interval; the table above holds the numbers")


def _calibration(page: Page, judged: Judged) -> None:
    bins = reliability(judged.probabilities[judged.known], judged.true[judged.known].astype(float))
    page.section(
        "Calibration", "Of all labels said with a probability, how many are there: on the dashed line a probability means what it says."
    )
    picture = reliability_picture(bins, None, title="labels that are there, by their probability")
    page.figure(
        picture, name="calibration", alt="Share of true labels against their probability; the table of labels holds the error of each"
    )


def _confusions(page: Page, e: LabelsEvaluation) -> None:
    if e.confusions:
        page.section("One label in place of another", "In how many images the first is missed and the second said, wrongly.")
        page.table(("missed", "said instead", "images"), e.confusions[:_MOST_CONFUSIONS])


def _images(
    page: Page, e: LabelsEvaluation, judged: Judged, examples: Examples, places: Sequence[int], preprocess: Preprocess
) -> None:  # fmt: skip
    order = [int(i) for i in np.argsort(-np.nan_to_num(judged.loss, nan=-1.0), kind="stable") if not np.isnan(judged.loss[i])]
    worst, rest = order[:_WORST], order[_WORST:]
    middle = rest[max(len(rest) // 2 - _TYPICAL // 2, 0) :][:_TYPICAL]
    for title, about, chosen in (
        ("Worst images", "The largest loss: where to look first, at the labels too.", worst),
        ("Typical images", "About the median of their losses.", middle),
    ):
        if chosen:
            page.section(title, about)
            page.gallery([_thumbnail(e, judged, i, examples, places[i], preprocess) for i in chosen])


def _thumbnail(e: LabelsEvaluation, judged: Judged, i: int, examples: Examples, place: int, preprocess: Preprocess) -> Thumbnail:
    image = e.images[i]
    columns = {label: c for c, label in enumerate(e.metrics["per_class"])}
    said = sorted(((label, float(judged.probabilities[i, columns[label]])) for label in image.said), key=lambda pair: -pair[1])
    lines = [*caption(said, image.truth, image.unknown), PurePosixPath(printable(image.name)).name]
    return Thumbnail(encoded(examples, place, preprocess), "\n".join(lines), small=is_small(preprocess))
