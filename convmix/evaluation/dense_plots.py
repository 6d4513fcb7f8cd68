"""Figures of an evaluation of objects or class maps: precision over recall, and a score by class. PNG, 900 pixels wide."""

from collections.abc import Mapping, Sequence

import numpy as np

from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, dress, png, shorten

MOST_CURVES = 8  # that can be told apart
MOST_BARS = 60
_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)
_LINES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = "os^DvP*X"


def precision_recall_picture(
    curves: Mapping[str, Mapping[str, Sequence[float]]], marks: Mapping[str, tuple[float, float]], *, title: str
) -> bytes:
    """A curve per class over recall, and a mark where its own threshold puts it: (recall, precision) of 0..1.

    Raises ValueError for none, or for more than can be told apart.
    """
    from matplotlib.figure import Figure

    if not 0 < len(curves) <= MOST_CURVES:
        raise ValueError(f"{len(curves)} curves, expected 1 to {MOST_CURVES}")
    figure = Figure(figsize=(WIDTH_IN, 5.2), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        recall, precision = np.array(curve["recall"]), np.array(curve["precision"])
        reached = precision > 0
        end = int(reached.sum())  # precision is 0 from the first recall on that is not reached
        colour, marker = _COLOURS[i], _MARKERS[i]
        x, y = np.append(recall[:end], recall[max(end - 1, 0)]), np.append(precision[:end], 0.0)
        handle = {"color": colour, "linestyle": _LINES[i % len(_LINES)], "linewidth": 1.8, "label": shorten(name, 24)}
        axes.plot(100 * x, 100 * y, clip_on=False, **handle)  # type: ignore[arg-type]
        if name in marks:
            at_recall, at_precision = marks[name]
            axes.plot(100 * at_recall, 100 * at_precision, marker=marker, color=colour, markersize=9, markeredgecolor="white", zorder=4)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    axes.set_xlabel("recall: objects that are found (%)")
    axes.set_ylabel("precision: answers that are right (%)")
    dress(axes, title)
    legend = axes.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(1, 1), handlelength=3)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png(figure)


def scores_picture(
    scores: Mapping[str, float], intervals: Mapping[str, Sequence[float] | None], *, overall: float, name: str, title: str
) -> bytes:
    """A bar per class from 0 to its score of 0..1, with its interval, beside the score of all; ValueError for none or too many."""
    from matplotlib.figure import Figure

    if not 0 < len(scores) <= MOST_BARS:
        raise ValueError(f"{len(scores)} classes, expected 1 to {MOST_BARS}")
    figure = Figure(figsize=(WIDTH_IN, 1.3 + 0.3 * len(scores)), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.axvline(100 * overall, color=GREY, linewidth=1, linestyle="--", zorder=3)
    for row, (label, value) in enumerate(scores.items()):
        axes.barh(row, 100 * value, height=0.62, color="#9cc4e0", zorder=2)
        interval = intervals.get(label)
        right = 100 * value
        if interval is not None:
            low, high = (100 * end for end in interval)
            axes.plot([low, high], [row, row], color=BLUE, linewidth=1.8, zorder=4)
            right = max(right, high)
        axes.text(
            right + 1.2,
            row,
            f"{100 * value:.1f}",
            va="center",
            fontsize=9,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    axes.set_yticks(range(len(scores)), [shorten(label, 30) for label in scores], fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(0, 107)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"{name} (%) with its 95 % interval; dashed: the mean over the classes, {100 * overall:.1f} %")
    dress(axes, title)
    return png(figure)
