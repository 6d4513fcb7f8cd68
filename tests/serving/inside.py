"""`convmix.serve` inside the process of the tests, with threads in the place of worker processes: nothing is imported a second time.

For what a server answers; for how it starts, stops and loses workers see `live` and `rehearsal`.
"""

import contextlib
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
import torch
import uvicorn

from convmix.serving import server
from convmix.serving.limits import RequestLimits
from convmix.serving.worker_pool import WorkerPool
from tests.patience import PATIENCE_S
from tests.serving.live import Client


class Threads(WorkerPool):
    """Orders and replies go through pickle, as they do on their way to a process and back."""

    def _look_after(self) -> None:
        before = torch.get_num_threads()
        try:
            work = pickle.loads(pickle.dumps(self._make))()
            self._up.add(threading.get_ident())
            self._decided.set()
            while jobs := self.queue.take():
                replies = work(pickle.loads(pickle.dumps([job.order for job in jobs])))
                self._computed(len(jobs))
                for job, reply in zip(jobs, pickle.loads(pickle.dumps(replies)), strict=True):
                    job.reply.set_result(reply)
        except Exception as error:
            self._failure = repr(error)
            self._decided.set()
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def inside(run: Path, limits: RequestLimits | None = None) -> Iterator[Client]:
    """A server for `run` on a free port, ready."""
    places: Queue[str | BaseException] = Queue()
    made: list[uvicorn.Server] = []

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    def serve() -> None:
        try:
            server.serve(run, port=0, limits=limits or RequestLimits(time_s=PATIENCE_S), announce=places.put)
        except BaseException as error:
            places.put(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "WorkerPool", Threads)
        patch.setattr(uvicorn, "Server", Server)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        place = places.get(timeout=PATIENCE_S)
        if isinstance(place, BaseException):
            raise place
        try:
            yield Client(place)
        finally:
            made[0].should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive() and places.empty()
