"""Cases carried out in a process beside, which may hang, crash or take all memory."""

import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from tests.campaign.forks import waited_s
from tests.campaign.record import GOOD, Outcome

_LIMIT_S = {"images": 180.0, "annotations": 60.0, "documents": 60.0, "kills": 3600.0, "faults": 180.0}
_MEMORY_MIB = 1024


class Cases:
    """A process that carries out cases of one part, started again after each that it does not survive."""

    def __init__(self, part: str, place: Path, *, seed: int) -> None:
        self._part, self._place, self._seed = part, place, seed
        self._process: Any = None

    def __enter__(self) -> "Cases":
        self._place.mkdir(parents=True, exist_ok=True)
        for left in self._place.glob("case-*"):  # of a campaign that was stopped
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def count(self, most: int) -> int:
        """How many cases there are, at most so many; some parts know it only when they are prepared."""
        module: Any = importlib.import_module(f"tests.campaign.{self._part}")
        if not hasattr(module, "count"):
            return most
        if self._process is None:
            self._start()
        return min(most, module.count(self._place / "prepared"))

    def case(self, number: int) -> Outcome:
        """Carry it out, and say what became of it."""
        if self._process is None:
            self._start()
        began = time.monotonic()
        self._pipe.send(number)
        said: tuple[str, str, int, int] | None
        try:
            module: Any = importlib.import_module(f"tests.campaign.{self._part}")
            limit_s = module.limit_s() if hasattr(module, "limit_s") else _LIMIT_S[self._part]
            waited = waited_s(self._process.pid)
            while not self._pipe.poll(1) and time.monotonic() - began - (waited_s(self._process.pid) - waited) < limit_s:
                pass
            said = self._pipe.recv() if self._pipe.poll() else None
            what = "hang"
        except (EOFError, OSError):
            self._process.join(10)
            said, what = None, f"crash ({self._process.exitcode})"
        seconds = time.monotonic() - began
        if said is None:
            self._end()
            return Outcome(self._part, number, what, seconds=seconds)
        what, words, cases, memory = said
        if memory > _MEMORY_MIB and what in GOOD:
            what = "memory"
        return Outcome(self._part, number, what, words, cases, seconds, memory)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_carry_out, args=(theirs, self._part, self._place, self._seed))
        module: Any = importlib.import_module(f"tests.campaign.{self._part}")
        with mock.patch.dict(os.environ, module.environment(self._place) if hasattr(module, "environment") else {}):
            self._process.start()
        theirs.close()
        self._pipe.recv()  # it is ready, and what all cases share is made

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _carry_out(pipe: Connection, part: str, place: Path, seed: int) -> None:
    module: Any = importlib.import_module(f"tests.campaign.{part}")
    shared = place / "prepared"
    if hasattr(module, "prepared") and not (place / "ready").exists():
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        module.prepared(shared)
        (place / "ready").touch()
    pipe.send(None)
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        folder = place / f"case-{number}"
        folder.mkdir()
        before = _peak_mib(reset=True)
        try:
            what, words, cases = module.attack(folder, random.Random(f"{seed}/{part}/{number}"))
        except Exception as error:  # everything but a sentence is a fault
            what, words, cases = "traceback", _where(error), 1
        shutil.rmtree(folder, ignore_errors=True)
        pipe.send((what, words, cases, max(0, _peak_mib() - before)))


def _where(error: Exception) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/convmix/" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {place}: {(str(error).splitlines() or [''])[0][:200]}"


def _peak_mib(*, reset: bool = False) -> int:
    """The most memory that this process had, since the last reset where the system can; what it has after one."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)
