"""What a trial of engines found: frozen results, as JSON values and as a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convmix.speed.backends import EnginePlan

if TYPE_CHECKING:
    from rich.console import Group

Sizes = tuple[int, int, int]  # images per batch, height, width


@dataclass(frozen=True)
class EngineTrial:
    """One plan that was tried; what was not measured is None."""

    plan: EnginePlan
    rejected: str | None = None  # why it cannot be taken, or why it was not measured to the end
    start_s: float | None = None  # to build it, its compilation included
    median_ms: float | None = None  # per batch
    spread_ms: float | None = None  # between the first and the third quartile
    difference: float | None = None  # largest |output - original's| / largest |original's|
    changed: tuple[int, int] | None = None  # answers to the checked images that are others than the original's, and of how many
    score: float | None = None  # the task's own on the checked images, 0..1, where their truth is known
    score_interval: tuple[float, float] | None = None  # 95 %, where the score has one without much work


@dataclass(frozen=True)
class Report:
    """A finished trial."""

    sizes: Sizes
    precision: str  # exact, bf16 or int8: what was allowed
    machine: Mapping[str, Any]  # of hardware.describe_machine, with the versions of the engines
    checked: int  # images; 0: random noise was compared instead
    trials: tuple[EngineTrial, ...]  # the first is the original: eager, float32
    plan: EnginePlan  # the fastest that passed
    restart_s: float  # to have it ready the next time
    score: str = "accuracy"  # what the trials' score is, for people

    @property
    def original(self) -> EngineTrial:
        return self.trials[0]

    @property
    def chosen(self) -> EngineTrial:
        return next(trial for trial in self.trials if trial.plan == self.plan)

    @property
    def speedup(self) -> float:
        """How many times faster than the original."""
        assert self.original.median_ms is not None
        assert self.chosen.median_ms is not None
        return self.original.median_ms / self.chosen.median_ms

    def saved_s(self, num_images: int) -> float:
        """What a job of so many images gains over the fastest eager plan."""
        eager = [trial.median_ms for trial in self.trials if trial.plan.backend == "eager" and trial.median_ms and not trial.plan.folded]
        assert self.chosen.median_ms is not None
        return (min(eager) - self.chosen.median_ms) / 1000 * num_images / self.sizes[0]

    def images_per_s(self, trial: EngineTrial) -> float | None:
        return None if trial.median_ms is None else 1000 * self.sizes[0] / trial.median_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Report":
        """Raises KeyError, TypeError, ValueError or ConfigError for anything that `to_dict` did not write."""
        trials = tuple(_trial(trial) for trial in values["trials"])
        batch, height, width = values["sizes"]
        report = cls(**{**values, "sizes": (batch, height, width), "trials": trials, "plan": EnginePlan(**values["plan"])})
        if not any(trial.plan == report.plan and trial.median_ms for trial in trials):
            raise ValueError(f"the plan {report.plan} was not measured")
        return report


def _trial(values: Mapping[str, Any]) -> EngineTrial:
    pairs = {name: tuple(values[name]) for name in ("changed", "score_interval") if values[name] is not None}
    return EngineTrial(**{**values, **pairs, "plan": EnginePlan(**values["plan"])})


def table(report: Report) -> "Group":
    """The trial for a terminal: the plans, the fastest first, then why the others are out, then what was chosen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    measured = Table(box=None, header_style="bold", pad_edge=False)
    measured.add_column("")
    measured.add_column("plan")
    for title in ("ms per batch", "+-", "images/s", "difference", "other answers", report.score, "start s"):
        measured.add_column(title, justify="right")
    measured.add_column("")
    out = Table(box=None, header_style="bold", pad_edge=False)
    out.add_column("not measured")
    out.add_column("because", overflow="fold")
    for trial in sorted(report.trials, key=lambda t: t.median_ms or 0.0):
        if trial.median_ms is None:
            out.add_row(str(trial.plan), Text(trial.rejected or ""))
            continue
        spread = "" if trial.spread_ms is None else f"{trial.spread_ms / 2:.1f}"
        other = "" if trial.changed is None else "{} of {}".format(*trial.changed)
        score = "" if trial.score is None else f"{100 * trial.score:.2f} %"
        measured.add_row(
            "*" if trial.plan == report.plan else "",
            str(trial.plan),
            f"{trial.median_ms:.1f}",
            spread,
            f"{report.images_per_s(trial):.1f}",
            "" if trial.difference is None else f"{trial.difference:.1e}",
            other,
            score,
            "" if trial.start_s is None else f"{trial.start_s:.1f}",
            Text(trial.rejected or ""),
        )
    said = Text(f"\n{summary(report)}")
    return Group(measured, "", out, said) if out.rows else Group(measured, said)


def summary(report: Report) -> str:
    """What was chosen and what it costs, in a sentence or two."""
    batch, height, width = report.sizes
    rate = report.images_per_s(report.chosen)
    text = f"{report.plan}: {rate:.1f} images/s, {report.speedup:.2f} times the original, for batches of {batch} at {height}x{width}"
    before, after, ends = report.original.score, report.chosen.score, report.chosen.score_interval
    if before is None or after is None:
        return text
    between = "" if ends is None else f"; 95 % interval {100 * ends[0]:.2f} to {100 * ends[1]:.2f} %"
    said = f"{report.score} {100 * after:.2f} % ({100 * (after - before):+.2f} points{between})"
    return f"{text}; {said} on {report.checked} validation images"
