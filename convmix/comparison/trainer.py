"""A process that trains one trial after the other, so that a crash or a lack of memory ends a trial and not the experiment.

    parent -> Pipe -> serve(): Order -> TrainingOutcome

One process for all trials, since importing torch and timm takes as long as a small training; a new one where it died.
It is no member of the terminal's process group: Ctrl-C reaches the parent, which asks it once to stop, save and answer. Arguments
are pickled, never put together to a command line.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from convmix.errors import ConfigError, ConvmixError, DataError, RunError, first_line
from convmix.system.surroundings import without_main
from convmix.training.signals import Interrupted, StopRequests

POLL_S = 0.2


@dataclass(frozen=True)
class Order:
    """The arguments of one training."""

    data: str
    recipe: str | None
    settings: Mapping[str, Any]
    out: Path
    resume: bool
    device: str | None


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of an order."""

    kind: Literal["done", "failed", "mistake", "stopped"]  # mistake: of data or settings, so that no other order can do better
    reason: str = ""


class Trainer:
    """The process, as a context: started with the first order, ended with the block."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def train(self, order: Order, requests: StopRequests) -> TrainingOutcome:
        """Do it; a signal that `requests` has received is passed on, and the answer is then "stopped"."""
        if self._process is None:
            self._start()
        assert self._pipe is not None
        passed_on = False
        try:
            self._pipe.send(order)
            while not self._pipe.poll(POLL_S):
                if requests.received and not passed_on:
                    self._process.terminate()
                    passed_on = True
            return self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(timeout=10)
            code = self._process.exitcode
            self._end()
            if requests.received:
                return TrainingOutcome("stopped", "before it had anything to save")
            return TrainingOutcome(
                "failed", f"its process ended with exit code {code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
            )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads that are not there
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there,), daemon=False)  # daemons may not have data workers
        with without_main():
            self._process.start()
        there.close()

    def _end(self) -> None:
        if self._process is None:
            return
        assert self._pipe is not None
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process = self._pipe = None


def serve(pipe: Connection) -> None:
    """The process: trains what it is told until it is told None, or until the parent is gone."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (order := pipe.recv()) is not None:
            pipe.send(_train(order))


def _train(order: Order) -> TrainingOutcome:
    from rich.console import Console

    from convmix.training.session import train_session

    try:
        train_session(
            order.data, recipe=order.recipe, overrides=dict(order.settings), out=order.out, resume=order.resume,
            console=Console(quiet=True), device=order.device,
        )  # fmt: skip
    except Interrupted as stop:
        return TrainingOutcome("stopped", str(stop))
    except (DataError, ConfigError, RunError) as error:
        return TrainingOutcome("mistake", str(error))
    except ConvmixError as error:
        return TrainingOutcome("failed", str(error))
    except Exception as error:  # a model of timm may raise anything; the others go on without it
        return TrainingOutcome("failed", f"{type(error).__name__}: {first_line(error)}")
    return TrainingOutcome("done")


def _end_with_parent() -> None:
    """A parent that was killed is not survived: the next one resumes from the last state, and two must not write it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
