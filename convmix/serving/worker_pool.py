"""Processes that turn orders into replies, and what happens when one of them dies.

    Queue  --take-->  batch  --pipe-->  worker process: make() once, then work(orders) -> replies  --pipe-->  every job's future

A thread of the front process looks after each worker. Where the process dies, by a signal or because it has not taken a batch and
answered it in time or is stopped, it is started again; the images that it held are computed once more, each alone, and the one that
ends a worker twice is given up. No image outside its hands notices.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from convmix.errors import ConvmixError
from convmix.serving.batching import PendingImages, Queue
from convmix.serving.problem import Problem

_LONGEST_PAUSE_S = 10.0  # between attempts to start a worker that does not come up
_START_S = 600.0  # for a worker to load the model, and to compile it on a slow machine
_LOOK_S, _STOPPED_LOOKS = 0.5, 3  # a worker that has a batch and is seen stopped so often in a row is killed
_LEAVE_S = 5.0  # for a worker to end after its pipe is closed
_log = logging.getLogger("convmix.serving")

Work = Callable[[Sequence[Any]], Sequence[Any]]  # orders -> a reply or a Problem for each, in their order


class WorkerPool:
    """`size` worker processes on one queue.

    make: builds what works, inside the worker; it and its product's orders and replies are pickled. silent_s: for a batch to be taken and
    answered; then the worker is killed, a stopped one much sooner. computed, died: called with the images of every finished batch, and
    for every worker that died.
    """

    def __init__(
        self,
        queue: Queue,
        make: Callable[[], Work],
        *,
        size: int,
        silent_s: float,
        computed: Callable[[int], None] = lambda images: None,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue, self._make, self._silent_s, self._computed, self._died = queue, make, silent_s, computed, died
        self._threads = [threading.Thread(target=self._look_after, name=f"worker {i}", daemon=True) for i in range(size)]
        self._up: set[int] = set()  # process ids of the workers that can answer
        self._lock = threading.Lock()
        self._started = False
        self._ending = threading.Event()
        self._decided = threading.Event()  # whether the first worker has come up, or never will
        self._failure: str | None = None

    def start(self) -> None:
        """Start the workers, once; returns before they can answer."""
        with self._lock:
            if self._started:
                return
            self._started = True
        for thread in self._threads:
            thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether at least one worker can answer: it has come up, and nobody has stopped it since."""
        return any(not _is_stopped(process_id) for process_id in tuple(self._up))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the workers that have come up."""
        return tuple(self._up)

    @property
    def is_decided(self) -> bool:
        """Whether a worker could answer at some time, or none can be made."""
        return self._decided.is_set()

    def wait_until_ready(self) -> None:
        """Block until a worker can answer or the pool is closed; raises ConvmixError where none can be made."""
        self._decided.wait()
        if self._failure:
            raise ConvmixError(self._failure)

    def close(self) -> None:
        """Let the workers finish what is queued, then end them."""
        self._ending.set()
        self._decided.set()
        self.queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _look_after(self) -> None:
        """One worker after another, until the pool is closed and nothing is queued."""
        context, pause_s = multiprocessing.get_context("spawn"), 0.1
        while not (self._ending.is_set() and not len(self.queue)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._make), name="convmix worker")
            process.start()
            theirs.close()  # so that the worker's death ends the pipe
            try:
                if self._has_come_up(ours):
                    pause_s = 0.1
                    self._up.add(process.pid or 0)
                    self._decided.set()
                    if self._serve(ours, process):
                        return
            except (EOFError, OSError):
                pass
            finally:
                self._up.discard(process.pid or 0)
                ours.close()
                process.join(_LEAVE_S)
                if process.is_alive():
                    process.kill()
                    process.join()
            if self._failure:
                return
            _log.warning("a worker died with exit code %s; starting another", process.exitcode)
            self._died()
            self._ending.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _has_come_up(self, connection: Connection) -> bool:
        if not connection.poll(_START_S):
            _log.error("a worker has not come up in %.0f s", _START_S)
            return False
        said = connection.recv()
        if said is None:
            return True
        if self._decided.is_set():  # it did come up before, so it may again
            _log.error("a worker cannot start: %s", said)
        else:
            self._failure = said
            self._decided.set()
        return False

    def _serve(self, connection: Connection, process: BaseProcess) -> bool:
        """Batches to the worker and replies back; True at the regular end, EOFError or OSError where it died or was silent and killed."""
        while jobs := self.queue.take():
            # Sending can wait as long as receiving, where the batch is larger than the pipe and nobody reads it; killing ends both.
            answered = threading.Event()
            threading.Thread(target=_watch, args=(process, answered, self._silent_s), name="watch over a batch", daemon=True).start()
            try:
                connection.send([job.order for job in jobs])
                replies = connection.recv()
            except (EOFError, OSError):
                self._lost(jobs)
                raise
            finally:
                answered.set()
            self._computed(len(jobs))
            for job, reply in zip(jobs, replies, strict=True):
                job.reply.set_result(reply)
        return True

    def _lost(self, jobs: Sequence[PendingImages]) -> None:
        """Jobs whose worker is gone: once more, or given up."""
        for job in jobs:
            if job.suspect:
                job.reply.set_result(Problem("no_answer", "the worker that computed this image ended without an answer, twice"))
        self.queue.put_back([job for job in jobs if not job.suspect and not job.is_abandoned])


def _watch(process: BaseProcess, answered: threading.Event, silent_s: float) -> None:
    """Kill the worker where its batch is not answered in time, and soon where it is stopped: whoever waits for it still has time then."""
    end, stopped = time.monotonic() + silent_s, 0
    while not answered.wait(max(0.0, min(_LOOK_S, end - time.monotonic()))):
        stopped = stopped + 1 if _is_stopped(process.pid or 0) else 0
        if stopped >= _STOPPED_LOOKS or time.monotonic() >= end:
            process.kill()
            return


def _is_stopped(process_id: int) -> bool:
    """Whether somebody has stopped the process, as far as the system tells."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"T", b"t")


def _work(connection: Connection, make: Callable[[], Work]) -> None:
    """The worker process: it ends when its pipe does, whatever signal the terminal or the supervisor sends to all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        try:
            work = make()
        except Exception as error:
            if not isinstance(error, ConvmixError):
                _log.exception("a worker cannot start")
            connection.send(str(error) if isinstance(error, ConvmixError) else f"a worker cannot start: {error!r}")
            return
        connection.send(None)
        while True:
            orders = connection.recv()
            connection.send(_replies(work, orders))
    except (EOFError, OSError):
        return


def _replies(work: Work, orders: Sequence[Any]) -> Sequence[Any]:
    try:
        return work(orders)
    except Exception:  # a bug, or a device out of memory: said, and the worker lives on
        _log.exception("a batch of %d cannot be computed", len(orders))
        return [Problem("internal", "the image could not be computed; the server's log says why")] * len(orders)
