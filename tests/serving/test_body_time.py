"""How long a body may take: from its first byte to its last, however it comes. The ASGI application alone, without a socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.types import Message, Receive, Scope, Send

from convmix.serving.hosts import Hosts
from convmix.serving.limits import RequestLimits
from convmix.serving.metrics import ServerMetrics
from convmix.serving.middleware import RequestMiddleware

LIMIT_S = 1.0  # the least that may be asked for
Body = Callable[[], AsyncIterator[bytes]]


async def at_once() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x"


async def late() -> AsyncIterator[bytes]:
    """All of it, ten times too late."""
    await asyncio.sleep(10 * LIMIT_S)
    yield b"x"


async def trickling() -> AsyncIterator[bytes]:
    """Never silent for long, and ten times too late at its end."""
    for _ in range(100):
        await asyncio.sleep(LIMIT_S / 10)
        yield b"x"


async def while_the_server_is_busy() -> AsyncIterator[bytes]:
    """It arrives in time, but the process computes for others until its time is over."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(LIMIT_S / 10, time.sleep, 1.5 * LIMIT_S)
    loop.call_later(LIMIT_S / 5, arrived.set)
    await arrived.wait()
    yield b"x"


def answer_to(body: Body) -> tuple[int, int]:
    """The status that a client with this body has from an application that reads to the end, and how many bytes were taken of it."""
    taken: list[bytes] = []
    statuses: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            taken.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def asked() -> None:
        parts = body()
        ready: list[asyncio.Task[bytes | None]] = []  # what has arrived is not lost where nobody waits for it any more

        async def part() -> bytes | None:
            return await anext(parts, None)

        async def receive() -> Message:
            ready[:] = ready or [asyncio.ensure_future(part())]
            arrived = await asyncio.shield(ready[0])
            ready.clear()
            return {"type": "http.request", "body": arrived or b"", "more_body": arrived is not None}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        server = RequestMiddleware(
            application, limits=RequestLimits(time_s=LIMIT_S), exposition=ServerMetrics(), hosts=Hosts(("*",)), key=None,
            protected=(), routes=(),
        )  # fmt: skip
        await server({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)

    with ThreadPoolExecutor(1) as thread:  # a browser driven by another test leaves this one with a running loop
        thread.submit(asyncio.run, asked()).result()
    [status] = statuses
    return status, len(b"".join(taken))


def test_a_body_in_time_is_read_whole() -> None:
    assert answer_to(at_once) == (200, 100)


@pytest.mark.slow
def test_a_body_that_is_there_is_taken_however_late_the_server_looks() -> None:
    assert answer_to(while_the_server_is_busy) == (200, 1)


@pytest.mark.parametrize(("body", "most"), [(late, 0), (trickling, 10)])
def test_a_body_has_the_limit_as_a_whole_not_for_every_part(body: Body, most: int) -> None:
    status, taken = answer_to(body)
    assert status == 408 and taken <= most
