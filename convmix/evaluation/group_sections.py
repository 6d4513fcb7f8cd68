"""The sections about groups of images and about damaged ones, which the pages of all tasks have."""

from collections.abc import Sequence

from convmix.evaluation import confusion_plots
from convmix.evaluation.corruption import STRENGTHS
from convmix.evaluation.robustness import Damage
from convmix.evaluation.slices import Slice
from convmix.metrics.resampling import Score
from convmix.plots.html_page import Page


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def between(interval: Sequence[float] | None, form: str = "%") -> str:
    """An interval in words; a dash where there is none."""
    if interval is None:
        return "–"
    return f"{percent(interval[0])} to {percent(interval[1])}" if form == "%" else f"{interval[0]:.4f} to {interval[1]:.4f}"


def slice_section(page: Page, found: Sequence[Slice], whole: Score, *, score: str) -> None:
    """score: what it is called."""
    others = [s for s in found if s.by != "class"]
    page.section("Slices", f"The {score} over images that have something in common. Worse: below that of all images by more than chance.")
    if not others:
        page.text("All images are alike in size, aspect and brightness.")
        return
    for by in dict.fromkeys(s.by for s in others):
        rows = [(s.value, s.n, percent(s.score), between(s.interval), "worse" if s.worse else "") for s in others if s.by == by]
        page.table((by, "images", score, "95 % interval", ""), rows)
    listed = others[: confusion_plots.MOST_ROWS]
    page.figure(
        confusion_plots.accuracies_picture(listed, overall=whole.value, title=f"{score} by slice (images)", score=score),
        name="slices",
        alt=f"The {score} of every slice with its interval; the tables above hold the numbers",
    )


def robustness_section(page: Page, found: Sequence[Damage], whole: Score, *, score: str) -> None:
    """score: what it is called."""
    page.section("Robustness", "The same images, damaged before the model's own preprocessing.")
    page.figure(
        confusion_plots.robustness_picture(found, whole=whole, score=score),
        name="robustness",
        alt=f"The {score} against the strength of each damage; the table below holds the numbers",
    )
    words = dict(zip(STRENGTHS, ("weak", "medium", "strong"), strict=True))
    rows = [(d.kind, words[d.strength], d.means, percent(d.score), between(d.interval)) for d in found]
    page.table(("damage", "strength", "which is", score, "95 % interval"), rows)


def robustness_remarks(found: Sequence[Damage]) -> list[str]:
    """What hurts most, in a line."""
    if not found:
        return []
    worst = min(found, key=lambda d: d.score)
    return [f"most hurt by {worst.kind} ({worst.means}): {percent(worst.score)}, 95 % interval {between(worst.interval)}"]
