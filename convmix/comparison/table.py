"""Comparisons and ablations as rows of text: the same for a terminal and for the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convmix.comparison.effect import Ablation, Effect
from convmix.comparison.interval import Mean
from convmix.comparison.pareto import CandidateScore, Comparison, fronts

if TYPE_CHECKING:
    from rich.console import Group

NONE = "–"
_CONTENDERS = (
    "over seeds, 95 %", "over images, 95 %", "parameters", "multiply-adds", "images/s", "MiB", "training", "epochs",
)  # fmt: skip
_CHANGES = ("difference", "95 %", "paper", "here", "multiply-adds", "parameters", "training")
MARK = " *"  # on the Pareto front of accuracy and this


def contender_header(comparison: Comparison) -> tuple[str, ...]:
    """What `contender_rows` has in its cells."""
    return "", f"{comparison.title} %", *_CONTENDERS


def contender_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One per contender, the most accurate first, those without a result last; cells as in `contender_header`, MARK on the fronts."""
    best = fronts(comparison.scores)

    def cost(s: CandidateScore, name: str, text: str) -> str:
        return text + (MARK if s.contender.name in best[name] else "")

    return [
        (
            s.contender.name,
            percent(s.accuracy.value) if s.accuracy else NONE,
            interval(s.accuracy, 1, signed=False),
            f"{percent(s.sampling[0])} to {percent(s.sampling[1])}" if s.sampling else NONE,
            cost(s, "parameters", count(s.parameters)),
            cost(s, "macs", count(s.macs)),
            cost(s, "throughput", f"{s.speed.images_per_s:.0f}" if s.speed.images_per_s else NONE),
            cost(s, "memory", f"{s.speed.memory_mib:.0f}" if s.speed.memory_mib is not None else NONE),
            cost(s, "time", seconds(s.train_s)),
            f"{s.epochs:.3g}" if s.epochs is not None else NONE,
        )
        for s in sorted(comparison.scores, key=lambda s: -s.accuracy.value if s.accuracy else 1.0)
    ]


def change_header(ablation: Ablation) -> tuple[str, ...]:
    """What `change_rows` has in its cells."""
    return "change", f"{ablation.title} %", *_CHANGES


def change_rows(ablation: Ablation) -> list[tuple[str, ...]]:
    """The base, then one per variation in the order of the grid; cells as in `change_header`."""
    b = ablation.base
    accuracy = percent(b.accuracy.value) if b.accuracy else NONE
    base = (f"base, {b.contender.note}", accuracy, "", "", "", "", count(b.macs), count(b.parameters), seconds(b.train_s))
    return [base, *(_change_row(effect) for effect in ablation.effects)]


def _change_row(e: Effect) -> tuple[str, ...]:
    s = e.score
    return (
        e.variation.contender.name,
        percent(s.accuracy.value) if s.accuracy else NONE,
        f"{100 * e.difference.value:+.1f}" if e.difference else NONE,
        interval(e.difference, 1, signed=True),
        e.variation.expected + ("" if e.variation.is_sure else "?"),
        e.verdict,
        count(s.macs),
        count(s.parameters),
        seconds(s.train_s),
    )


def failures(scores: tuple[CandidateScore, ...]) -> list[str]:
    """A line per contender and reason."""
    lines = []
    for s in scores:
        for reason in dict.fromkeys(s.failures.values()):
            seeds = [str(seed) for seed, why in s.failures.items() if why == reason]
            lines.append(f"{s.contender.name}, seed {', '.join(seeds)}: {reason}")
        if s.speed.failed:
            lines.append(f"{s.contender.name}, measuring inference: {s.speed.failed}")
    return lines


def comparison_table(comparison: Comparison) -> "Group":
    """For a terminal: without the interval over images, parameters and epochs, which the page has."""
    rows = [(name, _with(accuracy, over_seeds), *costs) for name, accuracy, over_seeds, _, _, *costs, _ in contender_rows(comparison)]
    lines = [f"{MARK.strip()} nobody is better in both this and {comparison.title}", *failures(comparison.scores)]
    return _shown(("", f"{comparison.title} % (95 %)", "MACs", "images/s", "MiB", "training"), rows, lines, comparison.page)


def ablation_table(ablation: Ablation) -> "Group":
    """For a terminal: without what the changes cost, which the page has."""
    rows = [
        (name, _with(difference, interval), paper, here) for name, _, difference, interval, paper, here, *_ in change_rows(ablation)[1:]
    ]
    base = ablation.base
    accuracy = f"{ablation.title} {percent(base.accuracy.value)} %" if base.accuracy else "not trained"
    lines = [f"base: {base.contender.note}, {accuracy}", ablation.summary(), *ablation.notes]
    lines += failures((base, *(e.score for e in ablation.effects)))
    return _shown(("change", "difference (95 %)", "paper", "here"), rows, lines, ablation.page)


def _with(value: str, interval: str) -> str:
    return value if interval == NONE else f"{value} ({interval})"


def _shown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], lines: Sequence[str], page: Path | None) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for i, title in enumerate(header):
        words = i == 0 or title in ("paper", "here")
        shown.add_column(title, justify="left" if words else "right", overflow="fold", no_wrap=not words, min_width=12 if words else None)
    for row in rows:
        shown.add_row(*map(Text, row))
    return Group(shown, "", *(Text(line) for line in (*lines, f"page: {page}")))


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def interval(mean: Mean | None, digits: int, *, signed: bool) -> str:
    """'81.2 to 83.4', in percent; one seed has none."""
    if mean is None or mean.low is None or mean.high is None:
        return NONE
    low, high = (f"{100 * end:{'+' if signed else ''}.{digits}f}" for end in (mean.low, mean.high))
    return f"{low} to {high}"


def count(number: int | None) -> str:
    """594186 -> 0.594 M."""
    if number is None:
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size / 10:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.3g} s" if value < 100 else f"{value / 60:.3g} min"
