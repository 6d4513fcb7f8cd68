"""Experiments of tiny trainings, which train in this process unless the process is the point."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from convmix.benchmarking import rounds
from convmix.comparison import runner, trainer
from convmix.comparison.trainer import Order, TrainingOutcome
from convmix.training.signals import StopRequests
from tests.blank_pictures import pictures, save_blank


class Here(trainer.Trainer):
    """Trains in this process, which has imported torch already; nobody looks at a training's own pictures."""

    def train(self, order: Order, requests: StopRequests) -> TrainingOutcome:
        with pictures(save_blank):
            return trainer._train(order)


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process for trainings: test_compare.py has what it is for."""
    monkeypatch.setattr(runner, "Trainer", Here)


class Turn(threading.Thread):
    """Stands for the process of a model that is measured, with an end of the pipe of its own, since the race closes what it passed on."""

    exitcode = None

    def __init__(self, *, target: Callable[..., None], args: tuple[Connection, Any, Any], daemon: bool) -> None:
        pipe, *rest = args
        super().__init__(target=target, args=(Connection(os.dup(pipe.fileno())), *rest), daemon=True)
        self.pid = os.getpid()


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast models are is not the point, nor that each has memory of its own; tests/benchmarking has what processes are for."""
    monkeypatch.setattr("convmix.comparison.measurement.ROUNDS", 2)
    monkeypatch.setattr("convmix.comparison.measurement.BATCH", 2)
    monkeypatch.setattr(rounds.multiprocessing, "get_context", lambda method: SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Turn))
