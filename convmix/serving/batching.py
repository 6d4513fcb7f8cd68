"""Images that wait for a worker, put together across requests: a bounded queue that gives batches.

submit -> PendingImages (a future)  ...  take -> the next batch of them, after `wait_s` at most  ...  put_back after a worker died
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class Full(Exception):  # noqa: N818 - a state, not a mistake
    """No room for so many; `waiting` are there already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


@dataclass(eq=False)
class PendingImages:
    """One image on its way to a worker and back."""

    order: Any  # what the worker is given
    reply: "Future[Any]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    is_abandoned: bool = False  # nobody waits for the reply any more
    suspect: bool = False  # it was in a worker that died: it is computed again alone, so that only the culprit dies twice


class Queue:
    """First come, first served; every method may be called from any thread."""

    def __init__(self, *, size: int, batch_size: int, wait_s: float) -> None:
        self._size, self._batch_size, self._wait_s = size, batch_size, wait_s
        self._jobs: deque[PendingImages] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, orders: Sequence[Any]) -> list[PendingImages]:
        """A job for each, all or none; raises Full."""
        jobs = [PendingImages(order) for order in orders]
        with self._changed:
            if len(self._jobs) + len(jobs) > self._size:
                self._jobs = deque(job for job in self._jobs if not job.reply.cancelled())  # whoever gave up takes no room
            if len(self._jobs) + len(jobs) > self._size:
                raise Full(len(self._jobs))
            self._jobs.extend(jobs)
            self._changed.notify_all()
        return jobs

    def take(self) -> list[PendingImages]:
        """The next batch, each job running; blocks until there is one, and gives [] once the queue is closed and empty.

        A batch goes when it is full, or when its first image has waited long enough. A suspect goes alone.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                left_s = self._jobs[0].since + self._wait_s - time.monotonic()
                if left_s > 0 and len(self._jobs) < self._batch_size and not self._closed and not self._jobs[0].suspect:
                    self._changed.wait(left_s)
                    continue  # another worker may have taken them
                batch: list[PendingImages] = []
                while self._jobs and len(batch) < self._batch_size and not (batch and (self._jobs[0].suspect or batch[0].suspect)):
                    job = self._jobs.popleft()
                    if job.reply.running() or job.reply.set_running_or_notify_cancel():
                        batch.append(job)
                if batch:
                    return batch

    @staticmethod
    def abandon(jobs: Sequence[PendingImages]) -> None:
        """Nobody waits for these any more: those that no worker has yet are left out, and none is computed again."""
        for job in jobs:
            job.is_abandoned = True
            job.reply.cancel()

    def put_back(self, jobs: Sequence[PendingImages]) -> None:
        """Jobs whose worker died, to the front of the queue, whatever its size; they are suspects from now on."""
        with self._changed:
            for job in reversed(jobs):
                job.suspect = True
                self._jobs.appendleft(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Let `take` end where nothing is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
