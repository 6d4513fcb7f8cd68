"""What every request passes before a route sees it: host name, key, the body's bytes and time; and what every answer carries.

Plain ASGI, so that a body is counted while it arrives, whether or not it says its length.
"""

import asyncio
import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convmix.serving.hosts import Hosts
from convmix.serving.limits import RequestLimits
from convmix.serving.metrics import ServerMetrics
from convmix.serving.problem import Problem

# The page's own files and pictures that it made or was given; nothing from elsewhere, and nothing inline.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
_LAST_LOOKS = 5  # turns of the event loop: from the socket to who waits for the part
_CLOSE = {"connection": "close"}  # what is left of the body is not read


def as_response(problem: Problem) -> JSONResponse:
    """The refusal as it goes out."""
    return JSONResponse(problem.to_dict(), problem.status, headers=problem.headers)


class RequestMiddleware:
    """Keeps `limits` for an application that answers to `hosts`; `protected`: beginnings of paths that need `key`, where there is one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: RequestLimits,
        exposition: ServerMetrics,
        hosts: Hosts,
        key: str | None,
        protected: Collection[str],
        routes: Collection[str],
    ) -> None:
        self._hosts = hosts
        self._app, self._limits, self._exposition, self._key = app, limits, exposition, key
        self._protected, self._routes = tuple(protected), frozenset(routes)
        self._held = 0  # bytes of all bodies that are being read or answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        body = _Body(receive, self)
        try:
            self._check_host(Headers(scope=scope).get("host"))
            self._check_key(scope)
            body.check_length(Headers(scope=scope))
            await self._app(scope, body.receive, answer)
        except Problem as problem:  # of the two checks; what the body raises is answered by the application
            self._exposition.failed(problem.code)
            await as_response(problem)(scope, receive, answer)
        finally:
            self._held -= body.bytes
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._exposition.answered(route, status, time.perf_counter() - began)

    def _check_host(self, name: str | None) -> None:
        if not self._hosts.answers(name):
            words = f"this server does not answer to {(name or '')[:100]!r}; start it with --allow-host NAME, or with a key"
            raise Problem("wrong_host", words, headers=_CLOSE)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or scope["method"] == "OPTIONS" or not scope["path"].startswith(self._protected):
            return
        headers = Headers(scope=scope)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = headers.get("x-api-key", "")
        if not hmac.compare_digest(given.strip().encode(), self._key.encode()):
            words = "this needs the header Authorization: Bearer KEY, or X-API-Key: KEY, with the server's key"
            raise Problem("unauthorized", words, headers={"www-authenticate": "Bearer"} | _CLOSE)

    def hold(self, size: int) -> None:
        """Count bytes that have arrived; Problem where all bodies together are too much for the memory set aside."""
        self._held += size
        if self._held > self._limits.held_bytes:
            raise Problem("queue_full", "too many bytes are being received; try again", headers={"retry-after": "1"} | _CLOSE)

    @property
    def limits(self) -> RequestLimits:
        return self._limits


class _Body:
    """The body of one request, cut at the limits of bytes and time."""

    def __init__(self, receive: Receive, admission: RequestMiddleware) -> None:
        self._receive, self._admission, self._limits = receive, admission, admission.limits
        self._until: float | None = None
        self._is_whole = False
        self.bytes = 0

    def check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Problem("length_required", "content-length is not a number", headers=_CLOSE)
        if len(length) > 18 or int(length) > self._limits.request_bytes:
            self._refuse()

    async def receive(self) -> Message:
        if self._is_whole:  # a disconnection is all that can come
            return await self._receive()
        now = time.monotonic()
        self._until = self._until or now + self._limits.time_s
        message = await self._in_time(max(self._until - now, 0))
        self._is_whole = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.bytes += size
        self._admission.hold(size)
        if self.bytes > self._limits.request_bytes:
            self._refuse()
        return message

    async def _in_time(self, seconds: float) -> Message:
        """The next part; one that is there when its time is over was in time: it is the server that has been busy with others."""
        part = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait({part}, timeout=seconds)
            for _ in range(_LAST_LOOKS):
                if part.done():
                    return part.result()
                await asyncio.sleep(0)
        finally:
            part.cancel()
        raise Problem("too_slow", f"the body did not arrive within {self._limits.time_s:g} s", headers=_CLOSE)

    def _refuse(self) -> None:
        raise Problem("request_too_large", f"a body may have {self._limits.request_bytes:,} bytes", headers=_CLOSE)
