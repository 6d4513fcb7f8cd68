"""Pictures of comparisons (accuracy against every cost) and of ablations (differences to the base). PNG, 900 pixels wide."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convmix.comparison.effect import Ablation, Effect
from convmix.comparison.interval import Mean
from convmix.comparison.pareto import COSTS, CandidateScore, Comparison, Cost, fronts
from convmix.models import catalog
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, dress, png, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 38  # of a name in a legend
_PAPER = {"better": "paper: better", "worse": "paper: worse", "same": "paper: the same", "": ""}


def fronts_picture(comparison: Comparison) -> bytes | None:
    """A panel per cost, a numbered point per contender; those on the Pareto front are filled and joined. None without results.

    Upright lines are the intervals over the seeds.
    """
    from matplotlib.figure import Figure

    scores = [s for s in sorted(comparison.scores, key=lambda s: -s.accuracy.value if s.accuracy else 1.0) if s.accuracy]
    if not scores:
        return None
    figure = Figure(figsize=(WIDTH_IN, 7.4), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    *panels, legend = figure.subplots(3, 2).flat
    best = fronts(scores)
    for axes, cost in zip(panels, COSTS, strict=True):
        _panel(axes, scores, cost, best[cost.name])
    legend.axis("off")
    legend.set_title("filled and joined: nobody is better in both", loc="left", fontsize=9.5)
    for row, s in enumerate(scores):
        y = 1 - (row + 0.7) / max(9, len(scores) + 0.5)
        ours = _is_ours(s)
        legend.plot(0.035, y, marker="o" if ours else "s", markersize=13, color=BLUE if ours else ORANGE, markerfacecolor="white")
        legend.text(0.035, y, str(row + 1), ha="center", va="center", fontsize=8)
        legend.text(0.09, y, shorten(s.contender.name, LETTERS), va="center", fontsize=9, parse_math=False)
    legend.set_xlim(0, 1)
    legend.set_ylim(0, 1)
    title = f"test {comparison.title} (%), mean of {len(comparison.seeds)} seeds; round: convmix, square: timm"
    figure.suptitle(f"{shorten(comparison.data, LETTERS)}: {title}", fontsize=10.5)
    return png(figure)


def _panel(axes: "Axes", scores: Sequence[CandidateScore], cost: Cost, front: frozenset[str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    points = [(i, s, value, s.accuracy) for i, s in enumerate(scores) if (value := cost.value(s)) is not None and s.accuracy]
    for i, s, value, accuracy in points:
        colour = BLUE if _is_ours(s) else ORANGE
        best = s.contender.name in front
        if accuracy.low is not None and accuracy.high is not None:
            axes.plot([value, value], [100 * accuracy.low, 100 * accuracy.high], color=colour, linewidth=1)
        axes.plot(
            value, 100 * accuracy.value, marker="o" if _is_ours(s) else "s", markersize=13, color=colour,
            markerfacecolor=colour if best else "white", zorder=3,
        )  # fmt: skip
        axes.text(
            value,
            100 * accuracy.value,
            str(i + 1),
            ha="center",
            va="center_baseline",
            fontsize=8,
            color="white" if best else "black",
            zorder=4,
        )
    joined = sorted((value, 100 * accuracy.value) for _, s, value, accuracy in points if s.contender.name in front)
    axes.plot([x for x, _ in joined], [y for _, y in joined], color=GREY, linewidth=1, linestyle="--", zorder=1)
    values = [value for _, _, value, _ in points]
    if values and min(values) > 0:
        axes.set_xscale("log")
        few = max(values) / min(values) < 50
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter(lambda x, _: _tick(x))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12)
    axes.margins(y=0.14)
    if not points:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", fontsize=9, color=GREY)
    axes.set_title(cost.title + (", more is better" if cost.more_is_better else ""), loc="left", fontsize=9.5)
    axes.tick_params(labelsize=8.5)
    dress(axes)


def effects_picture(ablation: Ablation) -> bytes | None:
    """A row per variation: the difference to the base with its interval, and beside it what the paper found. None without results."""
    from matplotlib.figure import Figure

    effects = [e for e in ablation.effects if e.difference]
    if not effects:
        return None
    figure = Figure(figsize=(WIDTH_IN, 1.3 + 0.34 * len(effects)), dpi=DPI)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for row, effect in enumerate(effects):
        assert effect.difference is not None
        _bar(axes, row, effect.difference)
        if row and effects[row - 1].variation.axis != effect.variation.axis:
            axes.axhline(row - 0.5, color="#bbbbbb", linewidth=0.6)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(effects)), [shorten(e.variation.contender.name, LETTERS) for e in effects], fontsize=9)
    axes.set_ylim(len(effects) - 0.5, -0.5)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks(range(len(effects)), [_finding(e) for e in effects], fontsize=9)
    for label, e in zip(right.get_yticklabels(), effects, strict=True):
        label.set_color(ORANGE if e.verdict.startswith("fails") else "black")
    right.tick_params(length=0)
    for side in ("top", "right", "left"):
        right.spines[side].set_visible(False)
    axes.set_xlabel(
        f"difference of test {ablation.title} to the base, percentage points (lines: 95 %, paired by seed; filled: without zero)"
    )
    seeds = len(ablation.seeds)
    base = ablation.base.contender.note or "the base"
    dress(axes, f"{shorten(ablation.data, LETTERS)}: one change at a time of {base}, {seeds} seed{'s' * (seeds > 1)}")
    return png(figure)


def _bar(axes: "Axes", row: int, difference: Mean) -> None:
    colour = BLUE if difference.value >= 0 else ORANGE
    if difference.low is not None and difference.high is not None:
        axes.plot([100 * difference.low, 100 * difference.high], [row, row], color=colour, linewidth=1.6)
    axes.plot(
        100 * difference.value, row, marker=">" if difference.value >= 0 else "<", markersize=8, color=colour,
        markerfacecolor=colour if difference.excludes_zero else "white",
    )  # fmt: skip


def _finding(effect: Effect) -> str:
    said = _PAPER[effect.variation.expected] + ("" if effect.variation.is_sure else "?")
    return f"{said}, {effect.verdict}" if effect.verdict else said


def _is_ours(score: CandidateScore) -> bool:
    return catalog.find(str(score.contender.settings.get("model"))) is not None


def _tick(x: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:g} {unit}"
    return f"{x:g}"
