"""How far a job is, on standard error: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_EVERY_S = 30.0


class Progress:
    """parts: all of the job; done: those that were there at the beginning."""

    def __init__(self, parts: int, *, done: int, quiet: bool) -> None:
        self.parts, self.done, self.quiet = parts, done, quiet
        self.rows = self.bad = 0
        self.started = self.said = time.monotonic()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        console = Console(stderr=True)
        if not quiet and console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("parts  {task.fields[speed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=parts, completed=done, speed="starting")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        elif not self.quiet:
            print(f"{self.done} of {self.parts} parts are done; starting", file=sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, rows: int, bad: int) -> None:
        """One more part, with so many rows."""
        self.done += 1
        self.rows += rows
        self.bad += bad
        if self._bar:
            self._bar.update(self._task, completed=self.done, speed=self._speed())
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if not self.quiet and self._bar is None and now - self.said >= _EVERY_S:
            self.said = now
            print(f"{self.done} of {self.parts} parts, {self._speed()}", file=sys.stderr)

    def _speed(self) -> str:
        elapsed_s = max(time.monotonic() - self.started, 1e-9)
        return f"{self.rows:,} images, {self.rows / elapsed_s:,.0f} a second" + (f", {self.bad:,} bad" if self.bad else "")
