"""Connections before and between their requests: how many there may be, how long each may say nothing, and what each is told.

connected --(head_s)-> a request's head --(Admission, RequestLimits.time_s)-> its answer --(idle_s)-> the next head

uvicorn reads HTTP; it has no deadline for a head and refuses broken ones in plain text, which is what is added here.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from convmix.serving.limits import RequestLimits
from convmix.serving.metrics import ServerMetrics
from convmix.serving.problem import Problem

_RESERVED_HANDLES = 96  # for the library, the page's files and the log
_HANDLES_A_WORKER = 8
_LEAVE_S = 5.0  # beyond all limits of a request, for its answer to be taken
_MANY, _PERIOD_S = 10, 60.0  # messages of one kind that are written in so much time


class Crowd:
    """The connections of one server."""

    def __init__(self, limits: RequestLimits, exposition: ServerMetrics, *, most: int) -> None:
        self.limits, self.exposition, self.most = limits, exposition, most
        self.silent: dict[Connection, None] = {}  # those that have asked nothing yet, the longest waiting first

    def protocol(self, **settings: Any) -> "Connection":
        """What uvicorn makes for every connection."""
        return Connection(self, **settings)


class Connection(H11Protocol):
    """One client's, which is ended where it asks for nothing."""

    def __init__(self, crowd: Crowd, **settings: Any) -> None:
        super().__init__(**settings)
        self._crowd = crowd
        self._deadline: asyncio.TimerHandle | None = None
        self._waits = False  # for a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._crowd.most:
            longest = next(iter(self._crowd.silent), None)
            if longest is None:
                self._refuse(Problem("too_many_connections", "the server has all the connections it takes; try again"))
                return
            longest.make_room()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            if self._waits:
                self._wait_no_more()
                self._deadline = self.loop.call_later(2 * self._crowd.limits.time_s + _LEAVE_S, self._abort, self.cycle)
        elif not self._waits and not self.transport.is_closing():  # a head that comes in pieces
            self._wait_for_head()

    def on_response_complete(self) -> None:
        self._wait_no_more()
        super().on_response_complete()  # which waits idle_s for the next request

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused as everything else is."""
        self._refuse(Problem("bad_request", msg))

    def make_room(self) -> None:
        """Others need the place. Perhaps the head is on its way: its sender is told to come back, not that it was late."""
        self._refuse(
            Problem("too_many_connections", "the server has all the connections it takes, and this one had asked nothing yet; try again")
        )

    def too_late(self) -> None:
        """The head has not come."""
        self._refuse(Problem("too_slow", f"the head of the request did not arrive within {self._crowd.limits.head_s:g} s"))

    def _wait_for_head(self) -> None:
        self._wait_no_more()
        self._waits = True
        self._crowd.silent[self] = None
        self._deadline = self.loop.call_later(self._crowd.limits.head_s, self.too_late)

    def _wait_no_more(self) -> None:
        self._waits = False
        self._crowd.silent.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort(self, cycle: object) -> None:
        """Who does not take an answer within all times of a request holds its memory."""
        if self.cycle is cycle:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        self._wait_no_more()
        if self.transport.is_closing():
            return
        self._crowd.exposition.failed(problem.code)
        body = json.dumps(problem.to_dict()).encode()
        said = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        if problem.status == 503:
            said["retry-after"] = "1"
        head = h11.Response(status_code=problem.status, headers=list(said.items()))
        try:
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # in the middle of an answer
            pass
        self.transport.close()


def connections_possible(wanted: int, *, workers: int) -> int:
    """How many connections the process has file handles for, `wanted` at most; its limit is raised where the system lets it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = _RESERVED_HANDLES + _HANDLES_A_WORKER * workers
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted + reserved:
        raised = wanted + reserved if hard == unlimited else min(hard, wanted + reserved)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return wanted if soft == unlimited else min(wanted, max(1, soft - reserved))


class Sparing(logging.Filter):
    """Lets ten messages of a kind through a minute and then says how many it kept back: a client cannot fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # kind -> since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = (record.name, str(record.msg)[:100]), time.monotonic()
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= _PERIOD_S:
            if count > _MANY:
                record.msg = f"{str(record.msg).rstrip()} (and {count - _MANY} more like it since the last that was written)"
            since, count = now, 0
        if len(self._seen) > 1000:  # kinds are the program's own; more means that a message was made of what a client sent
            self._seen.clear()
        self._seen[kind] = (since, count + 1)
        return count < _MANY

    def attach(self) -> None:
        """To the loggers of what answers."""
        for name in ("uvicorn.error", "asyncio", "convmix.serving"):
            logging.getLogger(name).addFilter(self)

    def detach(self) -> None:
        for name in ("uvicorn.error", "asyncio", "convmix.serving"):
            logging.getLogger(name).removeFilter(self)


def warn_of_fewer(possible: int, wanted: int) -> None:
    """Said on standard error where the system allows fewer connections than were asked for."""
    if possible < wanted:
        words = f"warning: {possible} connections at once are possible here, not {wanted}: ulimit -n is too low"
        print(words, file=sys.stderr)
