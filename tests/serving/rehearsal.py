"""The whole server but for the model: the workers do what the bytes of an image tell them to, so a test can say what happens when."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from convmix.serving.app import create_app
from convmix.serving.batching import Queue
from convmix.serving.connections import Crowd
from convmix.serving.hosts import Hosts
from convmix.serving.limits import RequestLimits
from convmix.serving.metrics import ServerMetrics
from convmix.serving.model_info import ModelFacts
from convmix.serving.worker_pool import WorkerPool
from tests.serving.live import Client
from tests.serving.obedient import make_obedient


@dataclass
class Rehearsal(Client):
    """A server in this process."""

    answers: WorkerPool


@contextlib.contextmanager
def rehearsal(
    limits: RequestLimits | None = None,
    *,
    workers: int = 1,
    key: str | None = None,
    origins: Sequence[str] = (),
    closed: Path | None = None,
    hosts: Hosts | None = None,
    most: int = 1000,
) -> Iterator[Rehearsal]:
    """A server on a free port, ready; while there is a file `closed`, no worker comes up."""
    limits, exposition = limits or RequestLimits(), ServerMetrics()
    queue = Queue(size=limits.queue, batch_size=limits.batch_size, wait_s=limits.batch_wait_ms / 1000)
    answers = WorkerPool(
        queue, partial(make_obedient, closed), size=workers, silent_s=limits.time_s, computed=exposition.computed, died=exposition.died
    )
    explanations = WorkerPool(Queue(size=8, batch_size=1, wait_s=0), make_obedient, size=1, silent_s=limits.time_s)
    exposition.watch(queued=lambda: len(queue), workers=lambda: len(answers.process_ids))
    facts = ModelFacts("rehearsal", "classify", ("ant", "bee"), (), {"name": "rehearsal"})
    app = create_app(
        facts, limits=limits, answers=answers, explanations=explanations, exposition=exposition,
        hosts=hosts or Hosts(("*",)), key=key, allow_origins=origins,
    )  # fmt: skip
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", http=Crowd(limits, exposition, most=most).protocol)  # type: ignore[arg-type]
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        answers.start()
        thread.start()
        try:
            answers.wait_until_ready()
            yield Rehearsal(f"http://127.0.0.1:{listener.getsockname()[1]}", answers)
        finally:
            server.should_exit = True
            thread.join()
            answers.close()
