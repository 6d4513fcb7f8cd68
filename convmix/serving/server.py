"""`convmix serve`: a model behind HTTP until it is told to stop.

LitServe 0.2.19 was tried first: 16 clients, two workers, batches of four, twice each way. SIGKILL of a worker left the four requests of
its batch without any answer (API servers as processes) or with a 500 (as threads), since what a dead worker held is not computed again.
SIGTERM ended it with -15 and left four or five processes behind: as processes they went on answering, as threads the requests were lost.
By its source it has no bound for its queue, batches requests and not their images, and describes no bodies in its OpenAPI document. What
was wanted of it, batches across requests, is `batching` and `workers`; FastAPI and uvicorn, on which it stands too, do the rest.
"""

import ipaddress
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convmix.artifacts.artifact import load_artifact
from convmix.errors import ConfigError, ConvmixError
from convmix.inference.batches import resolve
from convmix.serving.batching import Queue
from convmix.serving.hosts import allowed_hosts
from convmix.serving.limits import RequestLimits
from convmix.serving.worker_pool import WorkerPool

if TYPE_CHECKING:
    from fastapi import FastAPI

    from convmix.serving.connections import Crowd

KEY_VARIABLE = "CONVMIX_API_KEY"
_EXPLAIN_QUEUE = 8  # images that wait for an explanation
_BACKLOG = 2048  # connections that the system keeps until they are accepted
_GRACE_S = 5  # for clients to take their answers after the last request's time is over
_NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    limits: RequestLimits | None = None,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    api_key: str | None = None,
    allow_origins: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
    announce: Callable[[str], None] | None = None,
) -> None:
    """Answer HTTP requests about images until SIGTERM or Ctrl-C; what is accepted by then is still answered.

    run: a model directory or an exported model.
    host: the address to listen on; others than this machine reach the server only where it is not a loopback one.
    port: 0 takes a free one.
    workers: processes that compute, each with the model.
    limits: what a request may take, and how many may wait.
    device, precision, optimize: as for `convmix.predict`.
    api_key: what clients must show; None takes the environment's CONVMIX_API_KEY, and without it none is needed.
    allow_origins: other sites whose pages may use the server.
    allow_hosts: names that the header Host may say, "*" for all; without a key and without any, localhost and addresses alone.
    announce: told the address, http://HOST:PORT, when a worker can answer; None prints it.

    Workers import the program that calls this, so a script calls it below `if __name__ == "__main__":`. Raises RunError for a directory
    that holds no model, ConfigError for settings that do not exist, for a port that is taken and where the extra `serve` is missing.
    """
    _check_installed()
    limits = limits or RequestLimits()
    if workers < 1:
        raise ConfigError(f"workers: {workers} is too few, expected at least 1")
    key = checked_key(api_key if api_key is not None else os.environ.get(KEY_VARIABLE), KEY_VARIABLE if api_key is None else "api_key")
    hosts = allowed_hosts(host, allow_hosts=allow_hosts, has_key=key is not None, is_loopback=_is_loopback(host))
    resolve(device, precision)
    from convmix.serving.app import create_app
    from convmix.serving.connections import Crowd, connections_possible, warn_of_fewer
    from convmix.serving.explaining import Explaining
    from convmix.serving.metrics import ServerMetrics
    from convmix.serving.model_info import model_facts
    from convmix.serving.worker import PredictWorker, served_neighbours

    with _listen(host, port) as listener:
        place = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        artifact = load_artifact(run)
        known = served_neighbours(artifact, precision=precision, optimize=optimize)
        facts, batch_size = model_facts(artifact, limits, known=known), artifact.batch_size or limits.batch_size
        del artifact, known  # the workers have their own
        if key is None and not _is_loopback(host):
            print(f"warning: everyone who reaches {place} may use it; set {KEY_VARIABLE} to ask for a key", file=sys.stderr)
        exposition = ServerMetrics()
        answers = WorkerPool(
            Queue(size=limits.queue, batch_size=batch_size, wait_s=limits.batch_wait_ms / 1000),
            PredictWorker(str(run), device, precision, optimize, pixels=limits.pixels, batch_size=batch_size, workers=workers),
            size=workers, silent_s=limits.time_s, computed=exposition.computed, died=exposition.died,
        )  # fmt: skip
        explanations = WorkerPool(
            Queue(size=_EXPLAIN_QUEUE, batch_size=1, wait_s=0), Explaining(str(run), device, pixels=limits.pixels),
            size=1, silent_s=limits.time_s, died=exposition.died,
        )  # fmt: skip
        exposition.watch(queued=lambda: len(answers.queue), workers=lambda: len(answers.process_ids))
        app = create_app(
            facts, limits=limits, answers=answers, explanations=explanations, exposition=exposition,
            hosts=hosts, key=key, allow_origins=allow_origins,
        )  # fmt: skip
        possible = connections_possible(limits.connections, workers=workers + 1)
        warn_of_fewer(possible, limits.connections)
        crowd = Crowd(limits, exposition, most=possible)
        _run(app, listener, answers, explanations, crowd=crowd, announce=lambda: (announce or _print)(place))


def _run(
    app: "FastAPI", listener: socket.socket, answers: WorkerPool, explanations: WorkerPool, *, crowd: "Crowd", announce: Callable[[], None]
) -> None:
    """Serve until a signal, then until everything accepted is answered; raises ConvmixError where no worker can be made."""
    import uvicorn

    from convmix.serving.connections import Sparing

    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False, ws="none", http=crowd.protocol,  # type: ignore[arg-type]  # anything that makes a protocol
            timeout_keep_alive=crowd.limits.idle_s, timeout_graceful_shutdown=math.ceil(crowd.limits.time_s) + _GRACE_S,  # type: ignore[arg-type]  # of whole seconds nothing is asked
        )
    )  # fmt: skip
    failed: list[ConvmixError] = []
    sparing = Sparing()
    sparing.attach()

    def when_ready() -> None:
        try:
            answers.wait_until_ready()
        except ConvmixError as error:
            failed.append(error)
            server.should_exit = True
        else:
            if answers.is_ready:
                announce()

    threading.Thread(target=when_ready, daemon=True).start()
    answers.start()
    try:
        with _signals_end_here():
            server.run(sockets=[listener])
    finally:
        explanations.close()
        answers.close()
        sparing.detach()
    if failed:
        raise failed[0]


@contextmanager
def _signals_end_here() -> Iterator[None]:
    """uvicorn sends itself again the signal that stopped it; by then everything is answered, and the exit code is 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checked_key(key: str | None, name: str) -> str | None:
    """The key without the space around it; ConfigError, without repeating it, where it could not stand in a header."""
    if key is None:
        return None
    stripped = key.strip()
    if not stripped or not (stripped.isascii() and stripped.isprintable()):
        raise ConfigError(f"{name}: the API key is empty or holds characters beyond printable ASCII")
    return stripped


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"port: {port} is none, expected 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}; another --port may be free, 0 takes any") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _print(place: str) -> None:
    print(place, flush=True)


def _check_installed() -> None:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} is not installed, and a server is made of it; pip install 'convmix[serve]'")
