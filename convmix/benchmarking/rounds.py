"""The race: every contender waits in its own process, and all take turns, so that a slow minute of the machine hits everyone.

Work -> processes -> rounds of one turn each -> Result
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from convmix.benchmarking.disturbance import Load, load_between, read_counters
from convmix.benchmarking.process import Ready, choose, serve
from convmix.benchmarking.work import Implementation, Work
from convmix.speed.backends import EnginePlan
from convmix.system.surroundings import without_main


@dataclass(frozen=True)
class Lane:
    """What one contender did; `failed` says why it did not take part."""

    contender: Implementation
    plan: str = ""
    start_s: float | None = None
    ms: tuple[float, ...] = ()  # per batch, one value per round
    memory_mib: float | None = None
    difference: float | None = None  # largest |output - official's| / largest |official's|; training: of the first loss
    failed: str | None = None


@dataclass(frozen=True)
class Result:
    """A race; lanes in the order of the contenders."""

    work: Work
    lanes: tuple[Lane, ...]
    load: Load | None = None  # of other programs, while the rounds ran; None where it is not known


@dataclass
class _Runner:
    """A contender's process, seen from the race."""

    contender: Implementation
    process: Any
    pipe: Connection
    ready: Ready | None = None
    failed: str | None = None
    ms: list[float] = field(default_factory=list)
    memory_mib: float | None = None

    def answer(self, word: str) -> Any:
        """What the process says to a word; None, and the reason kept, where it is no more."""
        try:
            self.pipe.send(word)
            return self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join(timeout=10)
            code = self.process.exitcode
            self.failed = f"its process ended with exit code {code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
            return None


def race(work: Work, contenders: list[Implementation], *, rounds: int, say: Callable[[str], None]) -> Result:
    """Build one after the other, then `rounds` turns each; a contender that fails or ends is left out with its reason."""
    runners, load = _take_turns([(work, contender) for contender in contenders], rounds=rounds, say=say)
    official = next((r.ready.first for r in runners if r.ready and r.contender.role == "official"), None)
    return Result(work, tuple(_lane(runner, official) for runner in runners), load)


def race_models(works: list[Work], plan: EnginePlan, *, rounds: int, say: Callable[[str], None]) -> tuple[Lane, ...]:
    """A race between different models that all run by the same plan, one lane per work; `say` is told as in `race`."""
    runners, _ = _take_turns([(work, Implementation(work.model, "ours", plan)) for work in works], rounds=rounds, say=say)
    return tuple(_lane(runner, None) for runner in runners)


def _take_turns(
    entries: list[tuple[Work, Implementation]], *, rounds: int, say: Callable[[str], None]
) -> tuple[list[_Runner], Load | None]:
    """What every contender did, whose process has ended, and what else the machine did meanwhile."""
    with contextlib.ExitStack() as stack:
        runners = []
        for work, contender in entries:
            runner = stack.enter_context(_started(work, _decided(work, contender)))
            runners.append(runner)
            _build(runner)
            say(f"  {runner.contender.name}: " + (runner.failed or f"ready after {runner.ready.start_s:.0f} s"))  # type: ignore[union-attr]
        processes = [os.getpid(), *(runner.process.pid for runner in runners if runner.failed is None)]
        before = read_counters(processes)
        for _ in range(rounds):
            for runner in runners:
                if runner.failed is None and (ms := runner.answer("run")) is not None:
                    runner.ms.append(ms)
        load = load_between(before, read_counters(processes), threads=max(work.threads for work, _ in entries))
        for runner in runners:
            if runner.failed is None:
                runner.memory_mib = runner.answer("memory")
        return runners, load


def _decided(work: Work, contender: Implementation) -> Implementation:
    """With the plan that convmix chooses, where none is given; found in a process that ends before anything is measured."""
    if contender.plan is not None or work.kind == "training":
        return contender
    with _started(work, contender) as chooser:
        plan = chooser.answer("choose")
    return dataclasses.replace(contender, plan=plan) if isinstance(plan, EnginePlan) else contender


def _build(runner: _Runner) -> None:
    """Wait until it is ready: nobody else computes meanwhile."""
    answer = runner.answer("build")
    if isinstance(answer, Ready):
        runner.ready = answer
    elif runner.failed is None:
        runner.failed = str(answer)


def _lane(runner: _Runner, official: np.ndarray | None) -> Lane:
    if runner.failed is not None or runner.ready is None:
        return Lane(runner.contender, failed=runner.failed or "it never started")
    difference = None
    if official is not None:
        difference = float(np.abs(runner.ready.first - official).max() / np.abs(official).max())
    return Lane(runner.contender, runner.ready.plan, runner.ready.start_s, tuple(runner.ms), runner.memory_mib, difference)


@contextlib.contextmanager
def _started(work: Work, contender: Implementation) -> Iterator[_Runner]:
    """A process that is ended, kindly or not, when the race is over."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that are not there
    here, there = context.Pipe()
    process = context.Process(target=_process, args=(there, work, contender), daemon=False)
    with without_main():
        process.start()
    there.close()
    try:
        yield _Runner(contender, process, here)
    finally:
        with contextlib.suppress(OSError):
            here.send("stop")
        process.join(timeout=5)
        if process.is_alive():
            process.kill()
            process.join()
        here.close()


def _process(pipe: Connection, work: Work, contender: Implementation) -> None:
    """Imports are done at once, building when asked; an interrupted race ends its processes without a word."""
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        (choose if pipe.recv() == "choose" else serve)(pipe, work, contender)
