"""The page and the table of an evaluation of objects: from the scores to what goes wrong and the images where most does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.data.targets import Objects
from convmix.evaluation.dense_page import (
    MOST_LISTED,
    Originals,
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
from convmix.evaluation.dense_plots import MOST_CURVES, precision_recall_picture
from convmix.evaluation.dense_result import ObjectsEvaluation
from convmix.evaluation.group_sections import between
from convmix.evaluation.prediction_errors import KINDS, MISSED, RIGHT
from convmix.evaluation.reliability import reliability_picture
from convmix.plots import overlay
from convmix.plots.html_page import Page
from convmix.results import Boxes

if TYPE_CHECKING:
    from rich.console import Group

Curves = Mapping[str, Mapping[str, Sequence[float]]]
_SCORES = {
    "ap": "AP, mean over IoU .50 to .95",
    "ap50": "AP50, at IoU .50",
    "ap75": "AP75, at IoU .75",
    "ap_small": "AP of small objects, under 32x32 pixels",
    "ap_medium": "AP of medium objects",
    "ap_large": "AP of large objects, over 96x96 pixels",
    "ar100": "AR, of at most 100 answers per image",
}


def score_rows(e: ObjectsEvaluation) -> list[Row]:
    """Name, value and 95 % interval of every score of the whole, those of the outlines first; a size that no object has is left out."""
    m = e.metrics
    families = (("mask_", "outlines: "), ("", "boxes: ")) if e.by_outline else (("", ""),)
    rows = []
    for prefix, said in families:
        for key, name in _SCORES.items():
            if m[prefix + key] is not None:
                interval = m[f"{prefix}{key}_interval"]
                rows.append((said + name, share(m[prefix + key]), "–" if interval is None else between(interval)))
    return rows


def write_page(e: ObjectsEvaluation, curves: Curves, shown: Sequence[Boxes], truths: Sequence[Objects], originals: Originals) -> list[Path]:
    """Write the HTML file and its figures beside the JSON file; all that was written."""
    caption = f"{e.metrics['objects']:,} objects, COCO's scores. Intervals: bootstrap over the images."
    page = begin_page(e, score_rows(e), caption=caption)
    _classes(page, e)
    _curves(page, e, curves)
    _reliability(page, e)
    _mistakes(page, e)
    _images(page, e, shown, truths, originals)
    return end_page(page, e)


def table(e: ObjectsEvaluation) -> "Group":
    """The scores, the classes (the worst ones first where they are many), what else is remarkable, and the page's path."""
    from rich.console import Group
    from rich.text import Text

    rows, left = _class_rows(e)
    per_class = class_table(_class_header(e), rows)
    total = {kind: sum(counts[kind] for counts in e.mistakes.values()) for kind in (RIGHT, *KINDS, MISSED)}
    said = ", ".join(f"{n} {kind}" for kind, n in total.items())
    lines = [f"{left} more classes with a better AP50 are in {e.output}"] if left else []
    lines += [f"answers at each class's threshold: {said}", *e.remarks(), f"page: {e.page}"]
    return Group(summary_table(e, score_rows(e)), "", per_class, "", *map(Text, lines))


def _class_header(e: ObjectsEvaluation) -> tuple[str, ...]:
    said = "mask " if e.by_outline else ""
    return ("class", f"{said}AP50 (95 % interval)", f"{said}AP", "precision", "recall", "F1", "threshold", "objects")


def _class_rows(e: ObjectsEvaluation) -> tuple[list[tuple[object, ...]], int]:
    """A row per class that has objects, and how many more there are, of a better AP50."""
    p = "mask_" if e.by_outline else ""
    scores: dict[str, dict[str, Any]] = {name: s for name, s in e.metrics["per_class"].items() if s["objects"]}
    many = len(scores) > MOST_LISTED
    names = sorted(scores, key=lambda name: (scores[name][f"{p}ap50"], name))[:MOST_LISTED] if many else list(scores)
    rows: list[tuple[object, ...]] = []
    for name in names:
        s = scores[name]
        threshold = s[f"{p}threshold"]
        cells = [share(s[p + key]) for key in ("ap", "precision", "recall", "f1")]
        ap50 = with_interval(s[f"{p}ap50"], s[f"{p}ap50_interval"])
        rows.append((name, ap50, *cells, "–" if threshold is None else f"{threshold:.3f}", s["objects"]))
    return rows, len(scores) - len(rows)


def _classes(page: Page, e: ObjectsEvaluation) -> None:
    rows, left = _class_rows(e)
    many = f"The {len(rows)} with the lowest AP50 of {len(rows) + left}; the JSON file holds all. " if left else ""
    how = "Precision, recall and F1 are those at IoU .50 from the score on (threshold) where the F1 of the class is highest."
    page.section("Classes", many + how)
    page.table(_class_header(e), rows)


def _curves(page: Page, e: ObjectsEvaluation, curves: Curves) -> None:
    by_objects = sorted(curves, key=lambda name: -e.metrics["per_class"][name]["objects"])[:MOST_CURVES]
    if not by_objects:
        return
    p = "mask_" if e.by_outline else ""
    marks = {}
    for name in by_objects:
        s = e.metrics["per_class"][name]
        if s[f"{p}threshold"] is not None:
            marks[name] = (s[f"{p}recall"], s[f"{p}precision"])
    many = f"The {len(by_objects)} classes with the most objects of {len(curves)}. " if len(curves) > len(by_objects) else ""
    page.section("Precision and recall", f"{many}Along a curve less and less sure answers count; the mark is at the threshold above.")
    picture = precision_recall_picture({name: curves[name] for name in by_objects}, marks, title="precision against recall at IoU .50")
    page.figure(picture, name="precision-recall", alt="Precision against recall by class; the table above holds the marked points")


def _reliability(page: Page, e: ObjectsEvaluation) -> None:
    if not e.reliability or e.calibration_error is None:
        return
    how = "calibrated by `convmix calibrate`" if e.calibrated else "the network's own; `convmix calibrate` makes probabilities of them"
    page.section("Calibration", f"Of objects found with a score of 80 %, 80 % should be there, at IoU .50. The scores are {how}.")
    page.table(("", ""), [("expected calibration error", share(e.calibration_error))])
    page.figure(
        reliability_picture(e.reliability, None, title="scores of found objects, and how many are there"),
        name="reliability",
        alt="Share of right answers against their score",
    )


def _mistakes(page: Page, e: ObjectsEvaluation) -> None:
    page.section("What goes wrong", "The answers from each class's threshold on, and the objects that none of them is about.")
    total = {kind: sum(counts[kind] for counts in e.mistakes.values()) for kind in (RIGHT, *KINDS, MISSED)}
    answers, objects = sum(n for kind, n in total.items() if kind != MISSED), e.metrics["objects"]
    rows = [("right", total[RIGHT], share(total[RIGHT] / answers if answers else None), "a true object of the class, IoU at least .50")]
    rows += [(kind, total[kind], share(total[kind] / answers if answers else None), means) for kind, means in KINDS.items()]
    page.table(("answers", "count", "of the answers", "which is"), rows)
    page.table(
        ("objects", "count", "of the objects", "which is"),
        [(MISSED, total[MISSED], share(total[MISSED] / objects if objects else None), "no answer is about it")],
    )
    worst_first = sorted(e.mistakes, key=lambda name: -sum(n for kind, n in e.mistakes[name].items() if kind != RIGHT))[:MOST_LISTED]
    listed = [(name, *(e.mistakes[name][kind] for kind in (RIGHT, *KINDS, MISSED))) for name in worst_first]
    page.table(("class", RIGHT, *KINDS, MISSED), listed, caption="By class, the most mistakes first")
    sizes = [(s.size, s.objects, s.found, share(s.recall), between(s.interval)) for s in e.sizes]
    page.table(("size", "objects", "found", "recall", "95 % interval"), sizes, caption="Small: under 32x32 pixels; large: over 96x96")


def _images(page: Page, e: ObjectsEvaluation, shown: Sequence[Boxes], truths: Sequence[Objects], originals: Originals) -> None:
    worst, typical = worst_and_typical([image.f1 for image in e.images])
    labels = tuple(e.metrics["per_class"])
    for name, title, about, chosen in (
        ("worst", "Worst images", "The lowest F1 of all images: where to look first, at the labels too.", worst),
        ("typical", "Typical images", "Images about the median F1.", typical),
    ):
        if not chosen:
            continue
        page.section(title, about)
        rows = []
        for i in chosen:
            pixels, image = originals.pixels(i, truths[i].size), e.images[i]
            wrong = "".join(f"; {n} {kind}" for kind, n in (*image.mistakes.items(), (MISSED, image.missed)) if n)
            said = f"{image.name}: F1 {share(image.f1)}, {image.right} of {image.objects} objects right{wrong}"
            rows.append((said, [overlay.draw(pixels, overlay.truth_of(truths[i], labels)), overlay.draw(pixels, shown[i])]))
        page.figure(gallery(rows, ("truth", "found"), title=title), name=name, alt=f"{title}: the truth beside what was found")
