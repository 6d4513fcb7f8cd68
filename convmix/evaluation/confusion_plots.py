"""Figures of an evaluation: the confusion matrix, accuracies with their intervals, accuracy against damage. PNG, 900 pixels wide."""

from collections.abc import Sequence

import numpy as np

from convmix.evaluation.robustness import Damage
from convmix.evaluation.slices import Slice
from convmix.metrics.resampling import Score
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, dress, png, shorten

MOST_CLASSES = 30  # of a confusion matrix whose numbers can be read
MOST_ROWS = 60  # of accuracies in one picture
_LONGEST_LABEL = 24
_LINES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "D", ":"), (GREY, "v", (0, (5, 1))))


def confusion_picture(counts: np.ndarray, labels: Sequence[str], *, title: str, in_percent: bool = False) -> bytes:
    """k,k counts, rows being the truth: right answers blue, wrong ones orange, darker the larger their share of the true class.

    in_percent: write that share instead of the count, which may be millions of pixels; shares that round to 0 are left out.

    Raises ValueError for more classes than can be read.
    """
    from matplotlib.figure import Figure

    k = len(labels)
    if not 1 <= k <= MOST_CLASSES or counts.shape != (k, k):
        raise ValueError(f"counts are {counts.shape} for {k} classes, expected k,k and at most {MOST_CLASSES}")
    cell_in = min(0.8, 6.6 / k)
    figure = Figure(figsize=(WIDTH_IN, cell_in * k + 2.4), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    shown = shares >= 0.005 if in_percent else counts > 0
    diagonal = np.eye(k, dtype=bool)
    for hidden, colours in ((~diagonal, "Blues"), (diagonal, "Oranges")):
        axes.imshow(np.ma.array(shares, mask=hidden | ~shown), cmap=colours, vmin=0, vmax=1)
    size = 11 if k <= 6 else 9 if k <= 12 else 7 if k <= 20 else 6
    for row, column in zip(*np.nonzero(shown), strict=True):
        ink = "white" if shares[row, column] > 0.55 else "black"
        said = f"{100 * shares[row, column]:.0f}" if in_percent else _short_count(counts[row, column], k)
        axes.text(column, row, said, ha="center", va="center", fontsize=size, color=ink)
    names = [shorten(label, _LONGEST_LABEL) for label in labels]
    label_size = 10 if k <= 12 else 8
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if k > 4 or max(map(len, names)) > 8 else {}
    axes.set_xticks(range(k), names, fontsize=label_size, parse_math=False, **turned)  # type: ignore[arg-type]
    axes.set_yticks(range(k), names, fontsize=label_size, parse_math=False)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d7d7d7", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("what the model says")
    axes.set_ylabel("what it is")
    axes.set_title(title, loc="left", fontsize=10.5)
    return png(figure)


def accuracies_picture(slices: Sequence[Slice], *, overall: float, title: str, score: str = "accuracy") -> bytes:
    """A row per slice: its score and 95 % interval beside the score of all images; ValueError for none or too many."""
    from matplotlib.figure import Figure

    if not 0 < len(slices) <= MOST_ROWS:
        raise ValueError(f"{len(slices)} slices, expected 1 to {MOST_ROWS}")
    figure = Figure(figsize=(WIDTH_IN, 1.2 + 0.27 * len(slices)), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.axvline(100 * overall, color=GREY, linewidth=1, linestyle="--", zorder=1)
    for row, s in enumerate(slices):
        low, high = (100 * end for end in s.interval or (s.score, s.score))
        colour = ORANGE if s.worse else BLUE
        axes.plot([low, high], [row, row], color=colour, linewidth=1.6, zorder=2)
        axes.plot(100 * s.score, row, marker="s" if s.worse else "o", color=colour, markersize=6, zorder=3)
    names = [shorten(s.value if s.by == "class" else f"{s.by}: {s.value}", 40) for s in slices]
    axes.set_yticks(range(len(slices)), [f"{name}  ({s.n:,})" for name, s in zip(names, slices, strict=True)], fontsize=9, parse_math=False)
    for label, s in zip(axes.get_yticklabels(), slices, strict=True):
        label.set_fontweight("bold" if s.worse else "normal")
    axes.set_ylim(len(slices) - 0.4, -0.6)
    axes.set_xlim(max(min(100 * (s.interval or (s.score,))[0] for s in slices) - 3, -1), 101)
    axes.set_xlabel(f"{score} (%) with its 95 % interval; dashed: all images, {100 * overall:.1f} %; squares: worse than that")
    dress(axes, title)
    return png(figure)


def robustness_picture(damages: Sequence[Damage], *, whole: Score, score: str = "accuracy") -> bytes:
    """The score against the strength of each kind of damage, with 95 % intervals; strength 0 is the undamaged images."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(d.kind for d in damages))
    if not kinds or len(kinds) > len(_LINES):
        raise ValueError(f"{len(kinds)} kinds of damage, expected 1 to {len(_LINES)}")
    figure = Figure(figsize=(WIDTH_IN, 4.4), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for i, (kind, (colour, marker, line)) in enumerate(zip(kinds, _LINES, strict=False)):
        points = [(0, *_ends(whole)), *((d.strength, *_ends(Score(d.score, d.interval))) for d in damages if d.kind == kind)]
        strength, share, low, high = (np.array(column, dtype=float) for column in zip(*points, strict=True))
        x = strength + 0.05 * (i - (len(kinds) - 1) / 2) * (strength > 0)  # beside one another, so that no interval hides another
        whiskers = 100 * np.stack([share - low, high - share]).clip(0)  # below, above
        axes.errorbar(x, 100 * share, whiskers, color=colour, marker=marker, linestyle=line, capsize=3, label=kind)
    axes.set_xticks(range(4), ["undamaged", "weak", "medium", "strong"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("strength of the damage")
    dress(axes, f"{score} (%) on the same images, damaged")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return png(figure)


def _ends(score: Score) -> tuple[float, float, float]:
    return (score.value, *(score.interval or (score.value, score.value)))


def _short_count(count: int, k: int) -> str:
    """So that it fits its cell: 12345 is 12k where there are many."""
    return f"{count / 1000:.0f}k" if count >= 1000 and k > 20 else str(count)
