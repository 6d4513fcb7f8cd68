"""The page of an evaluation: what a person should look at, from the scores to single images."""

from pathlib import Path

import numpy as np

from convmix.data.preprocessing import Preprocess
from convmix.evaluation import confusion_plots, gallery
from convmix.evaluation.classification_result import Certainty, Evaluation
from convmix.evaluation.gallery import Album
from convmix.evaluation.group_sections import between, percent, robustness_section, slice_section
from convmix.evaluation.model_outputs import Answers
from convmix.evaluation.reliability import coverage_picture, reliability_picture
from convmix.evaluation.selection import Selection
from convmix.metrics.calibration import coverage_curve
from convmix.metrics.resampling import Score
from convmix.plots.html_page import Page

MOST_LISTED = 30  # classes or confusions in one table
MOST_BESIDE_PICTURE = 10  # confusions, where the matrix is drawn


def write_page(evaluation: Evaluation, answers: Answers, selection: Selection, preprocess: Preprocess) -> list[Path]:
    """Write the HTML file and its figures beside the JSON file; all that was written."""
    e, n = evaluation, evaluation.metrics["n"]
    of = e.data if e.split == "all" else f"{e.data}, {e.split} split"
    page = Page(f"Evaluation of {Path(e.run).name}", f"{n:,} images: {of}")
    album = Album(selection.examples, answers, preprocess)
    _scores(page, e)
    if e.against:
        _against(page, e)
    _classes(page, e)
    _confusions(page, e, answers, album)
    _errors(page, answers, album)
    if e.certainty:
        _certainty(page, e.certainty, answers)
    whole = Score(e.metrics["accuracy"], e.metrics["accuracy_interval"])
    slice_section(page, e.slices, whole, score="accuracy")
    if e.robustness:
        robustness_section(page, e.robustness, whole, score="accuracy")
    return page.write(e.page)


def score_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval of every score of the whole."""
    m = evaluation.metrics
    rows = [("accuracy", percent(m["accuracy"]), between(m["accuracy_interval"]))]
    if len(m["per_class"]) > 5:
        rows.append(("top 5", percent(m["top5"]), between(m.get("top5_interval"))))
    rows.append(("loss", f"{m['loss']:.4f} nats", between(m.get("loss_interval"), "nats")))
    for key, name in (("balanced_accuracy", "balanced accuracy"), ("macro_precision", "macro precision"), ("macro_f1", "macro F1")):
        rows.append((name, percent(m[key]), between(m.get(f"{key}_interval"))))
    return rows


def _scores(page: Page, e: Evaluation) -> None:
    page.section("Scores")
    caption = "Intervals: Wilson's for shares of images, bootstrap for averages"
    page.table(("score", "value", "95 % interval"), score_rows(e), caption=caption)
    for note in e.notes:
        page.note(note)
    if e.bad:
        page.note(f"{len(e.bad)} images could not be read and are not counted; the first: {': '.join(e.bad[0])}")


def _against(page: Page, e: Evaluation) -> None:
    p = e.against
    assert p is not None
    page.section(f"Compared with {Path(p.rival).name}")
    page.note(p.sentence)
    low, high = (100 * end for end in p.difference_interval)
    rows = [
        ("accuracy of this run", percent(p.accuracy)),
        (f"accuracy of {p.rival}", percent(p.rival_accuracy)),
        ("difference", f"{100 * p.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"),
        ("right in this run alone", f"{p.only_run} images"),
        ("right in the other alone", f"{p.only_rival} images"),
        ("p, exact McNemar test", f"{p.p_value:.2g}"),
    ]
    page.table(("on the same images", ""), rows)
    for note in p.notes:
        page.note(note)


def _classes(page: Page, e: Evaluation) -> None:
    scores = {name: s for name, s in e.metrics["per_class"].items() if s["support"]}
    many = len(scores) > MOST_LISTED
    names = sorted(scores, key=lambda name: (scores[name]["f1"], name))[:MOST_LISTED] if many else list(scores)
    page.section("Classes", f"The {MOST_LISTED} with the lowest F1 of {len(scores)}; the JSON file holds all." if many else "")
    rows = []
    for name in names:
        s = scores[name]
        cells = []
        for key in ("precision", "recall", "f1"):
            low, high = (100 * end for end in s[f"{key}_interval"])
            cells.append(f"{percent(s[key])} ({low:.1f} to {high:.1f})")
        rows.append((name, *cells, s["support"]))
    page.table(("class", "precision (95 % interval)", "recall", "F1", "images"), rows)
    chosen = [s for s in e.slices if s.by == "class" and s.value in set(names)]
    if chosen:
        picture = confusion_plots.accuracies_picture(chosen, overall=e.metrics["accuracy"], title="recall by class (images)")
        page.figure(picture, name="classes", alt="Recall of every class with its interval; the table above holds the numbers")


def _confusions(page: Page, e: Evaluation, answers: Answers, album: Album) -> None:
    labels = answers.classes.labels
    page.section("Confusions")
    shown = np.unique(np.concatenate([answers.truth, answers.predicted]))
    pairs = gallery.confusions(answers)
    pictured = len(shown) <= confusion_plots.MOST_CLASSES
    if pictured:
        counts = np.asarray(e.metrics["confusion"])[np.ix_(shown, shown)]
        picture = confusion_plots.confusion_picture(
            counts, [labels[i] for i in shown], title="images by what they are and what the model says"
        )
        page.figure(picture, name="confusion", alt="Confusion matrix; the JSON file holds the numbers")
    if not pairs:
        page.text("Nothing is confused: every answer is right.")
        return
    of_class = np.bincount(answers.truth, minlength=len(labels))
    listed = pairs[: MOST_BESIDE_PICTURE if pictured else MOST_LISTED]
    rows = [(labels[p.truth], labels[p.said], p.n, percent(p.n / of_class[p.truth])) for p in listed]
    title = "" if len(pairs) == len(listed) else f"The {len(listed)} most frequent of {len(pairs)} confusions"
    page.table(("is", "taken for", "images", "of the class"), rows, caption=title)
    for pair in pairs[: gallery.PAIRS]:
        page.text(f"{labels[pair.truth]} taken for {labels[pair.said]}, {pair.n} of {of_class[pair.truth]} images:")
        page.gallery(album.thumbnails(gallery.examples_of(pair, answers)))


def _errors(page: Page, answers: Answers, album: Album) -> None:
    wrong = gallery.worst(answers)
    page.section("Worst errors", "Wrong answers of the highest probability: labels to check, or what the model has not understood.")
    if len(wrong):
        page.gallery(album.thumbnails(wrong))
    else:
        page.text("There are none.")
    page.section("Most and least certain", "The answers of the highest probability, right or wrong:")
    page.gallery(album.thumbnails(gallery.surest(answers)))
    page.text("And those of the lowest:")
    page.gallery(album.thumbnails(gallery.least_sure(answers)))


def _certainty(page: Page, c: Certainty, answers: Answers) -> None:
    about = "Of answers said to be 80 % probable, 80 % should be right. The expected calibration error is the mean distance from that."
    page.section("Calibration", about)
    fitted, n = c.fitted, len(answers.truth)
    rows = [("expected calibration error of the raw outputs", percent(c.ece_before))]
    if fitted and c.ece_after is not None:
        by = f"the run's temperature of {fitted.temperature:.3f}, fitted on {fitted.n} images of {fitted.split}"
        rows.append((f"with {by}", percent(c.ece_after)))
    if fitted and fitted.threshold is not None:
        rows.append((f"sure answers, of at least {100 * fitted.threshold:.1f} %", f"{c.sure} of {n} images, {percent(c.sure / n)}"))
        if c.sure_accuracy is not None:
            rows.append(("accuracy of the sure answers", f"{percent(c.sure_accuracy)}, 95 % interval {between(c.sure_interval)}"))
    page.table(("", ""), rows)
    if not fitted:
        page.note("The run has no calibration; convmix calibrate fits one.")
    page.figure(
        reliability_picture(c.bins_before, c.bins_after, title="how probable the answers are said to be, and how many are right"),
        name="reliability",
        alt="Reliability diagram: accuracy against confidence",
    )
    curve = coverage_curve(answers.probability, answers.correct)
    threshold = fitted.threshold if fitted else None
    page.figure(
        coverage_picture(curve, threshold=threshold, title="accuracy of the answers that are given, the surest first"),
        name="coverage",
        alt="Accuracy against the share of images that get an answer",
    )
