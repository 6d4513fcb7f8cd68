"""A server under fire: clients that ask properly; around them rubbish, floods, half-open and slow connections, workers killed and stopped.

What is looked for: a proper request that is not answered while a worker is up, a refusal that is no JSON, memory that grows.
"""

import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tests.campaign.images import seeds
from tests.campaign.mutation import ODD_TEXTS, mutated
from tests.serving.live import Live, as_form, live
from tests.tiny_run import make_run, write_image

CLIENTS, HALF_OPEN, SLOW = 32, 40, 4
_GARBAGE = 0.1  # of what every client sends
_BUSY = ("queue_full", "not_ready", "too_many_connections")  # come back later: a client that does so has lost nothing
_GROWTH_MIB = 64  # of the process in front, from the first third of the time to the last


def minutes() -> float:
    return float(os.environ.get("CONVMIX_CAMPAIGN_MINUTES", "10"))


def limit_s() -> float:
    """In which a case has to end."""
    return 60 * minutes() + 300


@dataclass
class Fire:
    """What all threads share."""

    server: Live
    until: float
    good: list[bytes]
    formats: list[bytes]  # pictures in every format, to be damaged
    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)  # of proper requests, from the first attempt to the answer
    refusals: int = 0
    strikes: int = 0
    wrong: list[str] = field(default_factory=list)
    front_mib: list[float] = field(default_factory=list)

    @property
    def passed_s(self) -> float:
        return 60 * minutes() - (self.until - time.monotonic())

    @property
    def burns(self) -> bool:
        return time.monotonic() < self.until

    def fault(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of one server."""
    run = make_run(folder / "run").path
    good = [write_image(folder / f"{i}.png", i, size=(24, 31)).read_bytes() for i in range(8)]
    options = ("--workers", "2", "--head-s", "3", "--idle-s", "3", "--connections", "150", "--time-s", "30", "--queue", "128")
    with live(run, *options) as server:
        fire = Fire(server, time.monotonic() + 60 * minutes(), good, [content for _, content in seeds()])
        jobs: list[tuple[Callable[[Fire, random.Random], None], int]] = [
            (_client, CLIENTS), (_half_open, 1), (_slow, SLOW), (_flood, 1), (_strike, 1), (_watch, 1),
        ]  # fmt: skip
        threads = [threading.Thread(target=_kept(work), args=(fire, random.Random(rng.random()))) for work, n in jobs for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = server.stop()
        log = server.log.read_text()
    asked = len(fire.seconds)
    if fire.wrong or code != 0 or "Traceback" in log:
        return (
            "lost",
            f"{len(fire.wrong)} of {asked}: {'; '.join(fire.wrong[:3])} exit code {code} {log[-500:] if 'Traceback' in log else ''}",
            asked,
        )
    third = len(fire.front_mib) // 3
    grown = np.median(fire.front_mib[-third:]) - np.median(fire.front_mib[third // 2 : third + third // 2]) if third else 0.0
    said = (
        f"{asked:,} proper requests of {CLIENTS} clients in {minutes():g} min, p50 {1000 * np.quantile(fire.seconds, 0.5):.0f} ms, "
        f"p99 {1000 * np.quantile(fire.seconds, 0.99):.0f} ms, {fire.refusals:,} refusals, {fire.strikes} workers killed or stopped, "
        f"memory of the process in front {grown:+.0f} MiB"
    )
    return ("memory" if grown > _GROWTH_MIB else "answered"), said, asked


def _kept(work: Callable[[Fire, random.Random], None]) -> Callable[[Fire, random.Random], None]:
    def kept(fire: Fire, rng: random.Random) -> None:
        try:
            work(fire, rng)
        except Exception as error:
            fire.fault(f"{work.__name__}: {type(error).__name__}: {error}")

    return kept


def _ask(
    fire: Fire, path: str, body: bytes | None, headers: dict[str, str], *, method: str = "POST", timeout: float = 90
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", fire.server.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _code_of(fire: Fire, status: int, body: bytes) -> str:
    """The code of a refusal; one that is no JSON of the one form is a fault."""
    try:
        said = json.loads(body)
        assert set(said) == {"error"} and set(said["error"]) == {"code", "message", "image"}
    except (ValueError, AssertionError, TypeError):
        fire.fault(f"a refusal that is no JSON: {status} {body[:100]!r}")
        return "none"
    with fire.lock:
        fire.refusals += 1
    return str(said["error"]["code"])


def _client(fire: Fire, rng: random.Random) -> None:
    while fire.burns:
        if rng.random() < _GARBAGE:
            _garbage(fire, rng)
            continue
        images = tuple(rng.choices(fire.good, k=rng.randint(1, 3)))
        kind, body = as_form("images", images, {"top": 2})
        began = time.monotonic()
        while True:
            try:
                status, answer = _ask(fire, "/v1/predict", body, {"Content-Type": kind})
            except OSError as error:
                fire.fault(f"no answer: {type(error).__name__}: {error}")
                break
            if status == 200:
                with fire.lock:
                    fire.seconds.append(time.monotonic() - began)
                if len(json.loads(answer)["predictions"]) != len(images):
                    fire.fault("a row is missing")
                break
            code = _code_of(fire, status, answer)
            if code not in _BUSY or time.monotonic() - began > 120:
                fire.fault(f"a proper request is answered {status} {code} after {time.monotonic() - began:.0f} s, at {fire.passed_s:.0f} s")
                break
            time.sleep(rng.uniform(0.2, 1.0))


def _garbage(fire: Fire, rng: random.Random) -> None:
    """Whatever comes back, it is an answer or a refusal in JSON; or, for what is no HTTP at all, a closed connection."""
    what = rng.randrange(6)
    headers = {"Content-Type": "application/json"}
    method, path, body = "POST", "/v1/predict", rng.randbytes(rng.choice((0, 10, 2000)))
    if what == 0:
        kind, body = as_form("images", (mutated(rng.choice(fire.formats), rng),), {"top": rng.choice((-1, "many", 2))})
        headers = {"Content-Type": kind}
    elif what == 1:
        body = json.dumps({"images": [{"data": rng.choice(ODD_TEXTS), "name": rng.choice(ODD_TEXTS)}]}).encode()
    elif what == 2:
        headers = {"Content-Type": rng.choice(("", "multipart/form-data", "multipart/form-data; boundary=x", "text/html"))}
    elif what == 3:
        method, path = (
            rng.choice(("GET", "PUT", "DELETE", "BREW")),
            rng.choice(("/v1/predict", "/no/such", "/..%2f..%2fetc/passwd", "/v1/explain")),
        )
    elif what == 4:
        headers = headers | {"Host": rng.choice(("evil.example", "localhost:1", "x" * 500))}
    else:
        _no_http(fire, rng)
        return
    try:
        status, answer = _ask(fire, path, body, headers, method=method)
    except (OSError, http.client.HTTPException):
        return  # closed while the body was still being sent
    if status >= 400:
        _code_of(fire, status, answer)


def _no_http(fire: Fire, rng: random.Random) -> None:
    with socket.create_connection(("127.0.0.1", fire.server.port), 30) as client:
        try:
            client.sendall(rng.choice((rng.randbytes(300), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000)))
            said = client.recv(65536)
        except OSError:
            return
        head, _, body = said.partition(b"\r\n\r\n")
        if body and not head.startswith(b"HTTP/1.1 2"):
            _code_of(fire, int(head.split()[1]), body)


def _half_open(fire: Fire, rng: random.Random) -> None:
    """Connections that say nothing, or half of a head, opened again when they are closed."""
    held: list[socket.socket] = []
    while fire.burns:
        while len(held) < HALF_OPEN:
            try:
                client = socket.create_connection(("127.0.0.1", fire.server.port), 10)
                client.sendall(rng.choice((b"", b"POST /v1/predict HTTP/1.1\r\nHost: loc", b"G")))
                held.append(client)
            except OSError:
                break
        time.sleep(2)
        for client in held:
            client.close()
        held.clear()


def _slow(fire: Fire, rng: random.Random) -> None:
    """A proper request, a few bytes a second; cut off by the limit of time, or answered."""
    kind, body = as_form("images", (rng.choice(fire.good),), {})
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    while fire.burns:
        try:
            with socket.create_connection(("127.0.0.1", fire.server.port), 60) as client:
                client.sendall(head)
                for i in range(0, len(body), 40):
                    client.sendall(body[i : i + 40])
                    time.sleep(0.5)
                    if not fire.burns:
                        break
        except OSError:
            time.sleep(0.5)


def _flood(fire: Fire, rng: random.Random) -> None:
    """Now and then forty at once that want an explanation, and as many that send megabytes."""
    large = rng.randbytes(2**20)
    while fire.burns:
        time.sleep(rng.uniform(5, 10))
        explain, upload = as_form("image", (rng.choice(fire.good),), {}), as_form("images", (large,) * 4, {})
        wave = [
            threading.Thread(target=_drop, args=(fire, path, *form))
            for path, form in (("/v1/explain", explain), ("/v1/predict", upload))
            for _ in range(40)
        ]
        for thread in wave:
            thread.start()
        for thread in wave:
            thread.join()


def _drop(fire: Fire, path: str, kind: str, body: bytes) -> None:
    try:
        status, answer = _ask(fire, path, body, {"Content-Type": kind})
    except (OSError, http.client.HTTPException):
        return
    if status >= 400:
        _code_of(fire, status, answer)


def _strike(fire: Fire, rng: random.Random) -> None:
    """A worker is killed or stopped, as long as another one is up."""
    while fire.burns:
        time.sleep(rng.uniform(4, 8))
        try:
            if fire.server.metric("convmix_workers_ready") < 2:
                continue
            victim = rng.choice(fire.server.workers())
            victim.send_signal(rng.choice((signal.SIGKILL, signal.SIGSTOP)))
            fire.strikes += 1
        except (OSError, psutil.NoSuchProcess, IndexError):
            continue


def _watch(fire: Fire, _: random.Random) -> None:
    front = psutil.Process(fire.server.process.pid)
    while fire.burns:
        fire.front_mib.append(front.memory_info().rss / 2**20)
        time.sleep(0.5)
