"""Pictures of how far probabilities can be trusted: the reliability diagram, and accuracy against coverage. PNG, 900 pixels wide."""

from collections.abc import Sequence

import numpy as np

from convmix.metrics.calibration import Bin, CoverageCurve
from convmix.metrics.classification import wilson_interval
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, dress, png

_UNSTEADY = 0.02  # coverage below which the accuracy is that of a handful; it does not decide how far the axis reaches


def reliability_picture(bins_before: Sequence[Bin], bins_after: Sequence[Bin] | None, *, title: str) -> bytes:
    """Accuracy against confidence with 95 % intervals, and where the images are; before and after calibration where there are both.

    A model on the dashed line says "80 %" of answers of which 80 % are right; below it, it is too sure. Raises ValueError without bins.
    """
    from matplotlib.figure import Figure

    sides = [(bins_before, "without calibration" if bins_after is None else "before calibration")]
    sides += [(bins_after, "after calibration")] if bins_after is not None else []
    if not all(bins for bins, _ in sides):
        raise ValueError("there are no bins to draw")
    figure = Figure(figsize=(WIDTH_IN, 5.4), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
    panels = figure.subplots(2, len(sides), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1])
    for (bins, name), (above, below) in zip(sides, panels.T, strict=True):
        n = np.array([b.n for b in bins])
        confidence, accuracy = (100 * np.array([getattr(b, side) for b in bins]) for side in ("confidence", "accuracy"))
        ends = 100 * np.array([wilson_interval(round(b.accuracy * b.n), b.n) for b in bins])  # m,2
        above.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="as it should be")
        whiskers = np.stack([accuracy - ends[:, 0], ends[:, 1] - accuracy]).clip(0)
        above.errorbar(confidence, accuracy, whiskers, color=BLUE, marker="o", markersize=5, capsize=3, linewidth=1.4, label="this model")
        error = float((n * np.abs(accuracy - confidence)).sum() / n.sum())
        dress(above, f"{name}: calibration error {error:.2f} %")
        centres, widths = (np.array([100 * f(b) for b in bins]) for f in (lambda b: (b.low + b.high) / 2, lambda b: b.high - b.low))
        below.bar(centres, 100 * n / n.sum(), widths, color=BLUE, edgecolor="white", linewidth=1)
        dress(below, "images (%)")
        below.set_xlabel("probability of the answer (%)")
    panels[0, 0].set_ylabel("right answers (%)")
    panels[0, 0].set(xlim=(0, 100), ylim=(0, 102))
    panels[0, 0].legend(frameon=False, loc="lower right", fontsize=9)
    return png(figure)


def coverage_picture(curve: CoverageCurve, *, threshold: float | None, title: str) -> bytes:
    """What is gained by answering fewer images, and the threshold (0..1) that does it; a threshold that is in use is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 4.2), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
    left, right = figure.subplots(1, 2)
    style = {"marker": "o", "markersize": 4} if len(curve.threshold) <= 40 else {}
    coverage, accuracy, confidence = 100 * curve.coverage, 100 * curve.accuracy, 100 * curve.threshold
    lowest = float(accuracy[curve.coverage >= _UNSTEADY].min())

    left.plot(coverage, accuracy, color=BLUE, **style)
    left.set(xlim=(0, 101), ylim=(lowest - 0.08 * (103 - lowest), 101), xlabel="answered images (%)")
    dress(left, "right among the answered (%)")
    right.plot(confidence, coverage, color=BLUE, label="answered images", **style)
    right.plot(confidence, accuracy, color=ORANGE, linestyle="--", label="right among them", **style)
    right.set(xlim=(0, 100.5), ylim=(-2, 102), xlabel="threshold: least probability of an answer (%)")
    dress(right, "share (%)")
    right.legend(frameon=False, loc="lower left", fontsize=9)
    if threshold is not None:
        answered = np.flatnonzero(curve.threshold >= threshold)
        right.axvline(100 * threshold, color=GREY, linestyle=":", linewidth=1.4)
        if len(answered):
            at = answered[-1]
            left.plot(coverage[at], accuracy[at], marker="D", markersize=9, markerfacecolor="none", markeredgewidth=1.8, color=ORANGE)
            text = f"threshold {threshold:.3f}:\n{coverage[at]:.1f} % answered,\n{accuracy[at]:.1f} % of them right"
            left.text(0.04, 0.06, text, transform=left.transAxes, fontsize=9.5, va="bottom")
    return png(figure)
