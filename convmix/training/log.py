"""What a training tells people while it runs: a progress bar, a line per epoch, curves as table and picture, trackers."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from convmix.atomic import write_bytes, write_csv
from convmix.plots.curves import curves_picture

REDRAW_EVERY_S = 0.2
LINE_EVERY_S = 60.0
DRAW_EVERY_S = 5.0  # drawing the curves takes as long as a short epoch,
DRAW_SHARE = 0.02  # so it may take no more than this of the time until it is done again


def columns(score: str) -> tuple[str, ...]:
    """Those of curves.csv, for a task that is scored by `score`."""
    learned = ("train_loss", f"train_{score}", "val_loss", f"val_{score}")
    return ("epoch", "step", "lr", *learned, "images_per_s", "data_wait_share", "elapsed_s")


class TrainingLog:
    """Speaks on one process only; silent on the others and when told to be quiet."""

    def __init__(self, out: Path, console: Console, *, speaks: bool, score: str, score_title: str, tracker: Any = None) -> None:
        self.out, self.console, self.speaks, self.tracker = out, console, speaks, tracker
        self.score, self.score_title = score, score_title  # as in the history, and in words
        bar = "{task.completed}/{task.total} steps"
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(None), TextColumn(bar), TextColumn("{task.fields[numbers]}"),
            console=console, transient=True, disable=not (speaks and console.is_terminal),
        )  # fmt: skip
        self.bar: TaskID | None = None
        self.shown_at = time.monotonic()
        self.hinted = False
        self.draws_at = self.shown_at + DRAW_EVERY_S  # no sooner, unless the training ends: a short one is drawn once
        self.undrawn: list[dict[str, Any]] = []  # the history that curves.png does not show yet

    def __enter__(self) -> "TrainingLog":
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        self.draw()

    def say(self, text: str) -> None:
        if self.speaks:
            self.console.print(text, highlight=False, soft_wrap=True)

    def hint(self, text: str) -> None:
        """A note that is worth one line of a training, not one of every epoch."""
        if not self.hinted:
            self.hinted = True
            self.say(f"note: {text}")

    def step(
        self, *, epoch: int, epochs: int, step: int, total: int, loss: float, correct: float | None, images_per_s: float, left_s: float
    ) -> None:
        """Called after every step; redraws the bar a few times a second, or prints a line a minute where there is no terminal."""
        now = time.monotonic()
        if not self.speaks or now - self.shown_at < (LINE_EVERY_S if self.progress.disable else REDRAW_EVERY_S):
            return
        self.shown_at = now
        right = f"  {self.score_title} {correct:.1%}" if correct is not None else ""
        numbers = f"loss {loss:.3f}{right}  {images_per_s:.0f} images/s  {clock(left_s)} left"
        if self.progress.disable:
            self.say(f"epoch {epoch}/{epochs}  step {step}/{total}  {numbers}")
            return
        if self.bar is None:
            self.bar = self.progress.add_task("", total=total, numbers="")
        self.progress.update(self.bar, description=f"epoch {epoch}/{epochs}", completed=step, total=total, numbers=numbers)

    def epoch(self, row: dict[str, Any], history: list[dict[str, Any]], *, epochs: int, kept: bool) -> None:
        """A line for people, curves.csv and now and then curves.png for later, scalars for the tracker."""
        if not self.speaks:
            return
        right, val_loss, val = (row.get(name) for name in (f"train_{self.score}", "val_loss", f"val_{self.score}"))
        words = [f"{self.score_title} {right:.1%}"] if right is not None else []
        words += [f"val loss {val_loss:.3f}"] if val_loss is not None else []
        words += [f"{'' if val_loss is not None else 'val '}{self.score_title} {val:.2%}"] if val is not None else []
        star = "  kept" if kept else ""
        name = f"epoch {row['epoch']}/{epochs}" if row["epoch"] else "classifier"
        self.say(
            f"{name}  loss {row['train_loss']:.3f}  {'  '.join(words)}  {row['images_per_s']:.0f} images/s  {clock(row['elapsed_s'])}{star}"
        )
        names = columns(self.score)
        write_csv(self.out / "curves.csv", names, (["" if r.get(c) is None else r[c] for c in names] for r in history))
        self.undrawn = history
        if time.monotonic() >= self.draws_at:
            self.draw()
        if self.tracker is not None:
            self.tracker.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=row["step"])

    def fine_tuned(self, history: list[dict[str, Any]], *, kept_epoch: int | None) -> None:
        """What fine-tuning gave beside the classifier alone, which is row 0 of the history."""
        head, *later = (row[f"val_{self.score}"] for row in history)
        kept = "kept are the weights of " + (f"epoch {kept_epoch}" if kept_epoch else "the classifier alone")
        if head is None or not later:
            self.say(kept)
        else:
            self.say(
                f"{self.score_title} on the validation images: classifier alone {head:.2%}, fine-tuned at best {max(later):.2%}; {kept}"
            )

    def draw(self) -> None:
        """curves.png with all epochs so far; every few seconds during a training and at its end, however it ends."""
        if self.undrawn:
            began = time.monotonic()
            write_bytes(self.out / "curves.png", curves_picture(self.undrawn, score=self.score, score_title=self.score_title))
            ended = time.monotonic()
            self.undrawn, self.draws_at = [], ended + max(DRAW_EVERY_S, (ended - began) / DRAW_SHARE)


def clock(seconds: float) -> str:
    """'1:02:03' or '2:03'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def scan_progress(console: Console) -> Progress:
    """The bar of the pass over all images before training."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
