"""What worker processes make, brought to the process that asked; a worker that brings nothing more ends the wait.

worker: item -> Parcel, its tensors in shared memory, or in its bytes where there is no room -> queue -> trainer: open -> item

Docker gives a container 64 MB of shared memory: two batches of large images. torch would put tensors there in a thread of the worker,
whose error nobody hears, and the trainer would wait for ever; here they are put there before the queue is asked.
"""

import math
import mmap
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, get_worker_info

from convmix.errors import DataError
from convmix.system.surroundings import without_main

LOOK_S = 5  # between two looks at workers that send nothing
SILENT_S = 300.0  # after which workers that have not finished a single image count as stuck


class Parcel:
    """One pickled item; the tensors of a `shared` one lie in memory that both processes have."""

    def __init__(self, item: Any) -> None:
        try:
            self.data = bytes(ForkingPickler.dumps(item))
        except (RuntimeError, OSError):  # no room in /dev/shm, or no file handles left
            self.data = pickle.dumps(item, protocol=5)

    def open(self) -> Any:
        """The item; once only, since shared memory is handed over."""
        return pickle.loads(self.data)  # made by our own worker

    def pin_memory(self) -> Any:
        """For torch's loader on machines with a GPU."""
        item = self.open()
        return item.pin_memory() if hasattr(item, "pin_memory") else item


class Pulse:
    """Counts the images that each of `workers` forked processes has finished; with 0 nothing is known, as of processes not forked."""

    def __init__(self, workers: int) -> None:
        self._done = np.frombuffer(mmap.mmap(-1, 8 * workers), np.int64) if workers else np.zeros(0, np.int64)

    def beat(self) -> None:
        """To be called by a worker."""
        worker = get_worker_info()
        if worker is not None and worker.id < len(self._done):
            self._done[worker.id] += 1

    @property
    def count(self) -> int:
        """Images that all of them have finished."""
        return int(self._done.sum())

    @property
    def may_pause_s(self) -> float:
        """How long the count may stand still."""
        return SILENT_S if len(self._done) else math.inf


def delivered(loader: "DataLoader[Any]", pulse: Pulse) -> Iterator[Any]:
    """What `loader` gives, parcels opened.

    Raises DataError where a worker process has ended, or none has finished an image for SILENT_S seconds. In the end no worker is left.
    """
    try:
        with warnings.catch_warnings(), without_main():
            # Python 3.12 warns of fork beside threads; torch's idle ones are never used by a worker, which runs on one thread
            warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)  # more than cores, as asked
            batches: Any = iter(loader)
    except OSError as error:
        raise DataError(f"processes that read images cannot be started: {error.strerror}; --workers 0 reads without") from None
    workers: list[BaseProcess] = list(getattr(batches, "_workers", ()))
    if not workers:
        yield from batches
        return
    _leave_deaths_to_us(batches)
    watch = _Watch(batches, workers, pulse)
    watch.start()
    in_order = False
    try:
        while (item := watch.next()) is not None:
            yield item
        in_order = True
    except GeneratorExit:
        in_order = True
        raise
    finally:
        watch.over.set()
        watch.join(LOOK_S)
        if not in_order:
            _kill(workers)
        del batches, watch  # torch asks its workers to leave and waits a few seconds
        _kill(workers)  # who did not hear it: stopped, or waiting for a disk


class _Watch(threading.Thread):
    """Ends the workers where the wait for them has no end; then whoever waits is woken by their deaths.

    A wait inside the system cannot be given a limit: for the rest of a message, or for a stopped worker to hand over shared memory.
    """

    def __init__(self, batches: Any, workers: list[BaseProcess], pulse: Pulse) -> None:
        super().__init__(name="watch over workers", daemon=True)
        self.over = threading.Event()
        self._batches, self._workers, self._pulse = batches, workers, pulse
        self._waits_since: float | None = None
        self._why = ""  # the wait was ended

    def next(self) -> Any:
        """The next item, opened; None at the end."""
        self._waits_since = time.monotonic()
        try:
            item = next(self._batches, None)
            return item.open() if isinstance(item, Parcel) else item
        except (RuntimeError, OSError, EOFError) as error:
            is_a_bug = isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error)
            dead = None if is_a_bug else _dead(self._workers)
            if self._why:
                raise DataError(self._why) from None
            if dead:
                raise DataError(f"a process that reads images {_how_it_ended(dead)}") from None
            raise
        finally:
            self._waits_since = None

    def run(self) -> None:
        count, since = -1, 0.0
        while not self.over.wait(min(LOOK_S, SILENT_S / 4)):
            now, waits_since = time.monotonic(), self._waits_since
            if self._pulse.count != count or waits_since is None:
                count, since = self._pulse.count, now
            if waits_since is None or now - waits_since < LOOK_S:
                continue
            if dead := next((worker for worker in self._workers if worker.exitcode is not None), None):
                self._why = f"a process that reads images {_how_it_ended(dead)}"
            elif now - max(since, waits_since) > self._pulse.may_pause_s:
                self._why = (
                    f"the processes that read images have not finished one for {SILENT_S:.0f} s: they are stopped, or their disk does not "
                    "answer"
                )
            if self._why:
                _kill(self._workers)
                self._batches._worker_result_queue._writer.close()  # ours, which would keep a message open that nobody ends
                return


def _dead(workers: list[BaseProcess]) -> BaseProcess | None:
    """One that has ended, or is about to: what it held open is closed a moment before."""
    end = time.monotonic() + LOOK_S
    while not (dead := [worker for worker in workers if worker.exitcode is not None]) and time.monotonic() < end:
        time.sleep(0.01)
    return dead[0] if dead else None


def _how_it_ended(worker: BaseProcess) -> str:
    code = worker.exitcode or 0
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    short = "; the system ends processes like that where memory is short, and fewer --workers need less" if -code == 9 else ""
    return f"was ended by {name}{short}"


def _leave_deaths_to_us(batches: Any) -> None:
    """torch would raise in whatever the main thread does when a worker dies; the wait sees it too, where it can be said."""
    if getattr(batches, "_worker_pids_set", False):
        from torch.utils.data._utils.signal_handling import _remove_worker_pids

        _remove_worker_pids(id(batches))
        batches._worker_pids_set = False


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        with suppress(ValueError):  # closed already
            if worker.is_alive():
                worker.kill()
                worker.join(LOOK_S)
