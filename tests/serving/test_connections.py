"""Clients that connect and ask nothing, send no HTTP, or come under a foreign name cost the server little and others nothing."""

import contextlib
import logging
import resource
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convmix.errors import ConfigError
from convmix.serving import connections
from convmix.serving.connections import Sparing, connections_possible
from convmix.serving.hosts import Hosts, allowed_hosts
from convmix.serving.limits import RequestLimits
from tests.patience import PATIENCE_S, until
from tests.serving.live import Client, Reply
from tests.serving.rehearsal import rehearsal


@contextlib.contextmanager
def connected(server: Client, number: int, *, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many clients that have sent `said` and wait."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(number):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
            client.sendall(said)
            clients.append(client)
        yield clients


def told(client: socket.socket) -> Reply:
    """What the client is told before its connection is closed."""
    with client.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split()[1]), headers, body)


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_who_asks_for_nothing_is_sent_away(said: bytes) -> None:
    with rehearsal(RequestLimits(head_s=0.5)) as server, connected(server, 3, said=said) as clients:
        began = time.monotonic()
        replies = [told(client) for client in clients]
        assert time.monotonic() - began < 50
    assert {(reply.status, reply.code) for reply in replies} == {(408, "too_slow")}


def test_the_second_request_of_a_connection_has_a_deadline_too() -> None:
    asked = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with rehearsal(RequestLimits(head_s=0.5, idle_s=PATIENCE_S)) as server, connected(server, 1, said=asked) as [client]:
        assert b" 200 " in client.recv(65536).split(b"\r\n")[0]
        assert select.select([client], [], [], 1.0)[0] in ([], [client])  # the body may come apart from its head
        client.sendall(b"GET /hea")
        assert b"too_slow" in told(client).body or b"408" in told(client).body


@pytest.mark.slow
def test_an_idle_connection_is_closed() -> None:
    asked = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with rehearsal(RequestLimits(idle_s=0.2)) as server, connected(server, 1, said=asked) as [client]:
        assert told(client).json == {"status": "ok"}  # which ends when the connection does


def test_half_open_connections_make_room_for_requests() -> None:
    with rehearsal(RequestLimits(head_s=PATIENCE_S), most=4) as server, connected(server, 12) as clients:
        assert server.get("/health").status == 200
        assert server.predict(b"a").status == 200
        refused = told(clients[0])  # perhaps its head was on its way: it may come back
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "too_many_connections", "1")
        assert server.metric("convmix_errors_total") >= 8


def test_beyond_the_cap_there_is_an_answer(tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "go.begun"
    limits = RequestLimits(batch_size=1, time_s=PATIENCE_S)
    with rehearsal(limits, most=2) as server, ThreadPoolExecutor(2) as clients:
        busy = [clients.submit(server.predict, f"hold {go}".encode())]
        until(begun.exists)
        busy.append(clients.submit(server.predict, b"a"))
        until(lambda: len(server.answers.queue) == 1)
        with connected(server, 1) as [late]:
            reply = told(late)
        go.touch()
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "too_many_connections", "1")
        assert [client.result().status for client in busy] == [200, 200]


def test_what_is_no_http_is_refused_in_json() -> None:
    with rehearsal() as server, connected(server, 1, said=b"\x16\x03\x01 hello\r\n\r\n") as [client]:
        reply = told(client)
    assert (reply.status, reply.code, reply.headers["content-type"]) == (400, "bad_request", "application/json")


def test_a_message_of_one_kind_is_written_a_few_times_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    sparing = Sparing()

    def write(text: str) -> str | None:
        record = logging.LogRecord("uvicorn.error", logging.WARNING, "f", 1, text, None, None)
        return record.getMessage() if sparing.filter(record) else None

    assert sum(write("Invalid HTTP request received.") is not None for _ in range(1000)) == 10
    assert write("another") == "another"
    now[0] = 61.0
    assert (
        write("Invalid HTTP request received.") == "Invalid HTTP request received. (and 990 more like it since the last that was written)"
    )


def test_no_more_connections_than_file_handles() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connections_possible(10, workers=1) == 10
    assert connections_possible(10**9, workers=1) < 10**9
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("host", "options", "answered", "refused"),
    [
        ("127.0.0.1", {}, ("localhost:8000", "127.0.0.1", "[::1]:9", "LOCALHOST.", "127.3.2.1:1", None),
         ("evil.example", "10.0.0.1", "a.b:8000", "")),
        ("0.0.0.0", {}, ("192.168.1.7:8000", "[fe80::1]", "localhost"), ("evil.example:8000", "127.0.0.1.evil.example")),
        ("models.example", {}, ("models.example:80", "10.0.0.1"), ("evil.example",)),
        ("127.0.0.1", {"allow_hosts": ["Models.example"]}, ("models.example", "localhost"), ("x.models.example",)),
        ("127.0.0.1", {"has_key": True}, ("anything.example",), ()),
        ("127.0.0.1", {"has_key": True, "allow_hosts": ["a.example"]}, ("a.example",), ("b.example",)),
        ("127.0.0.1", {"allow_hosts": ["*"]}, ("b.example",), ()),
    ],
)  # fmt: skip
def test_which_names_are_answered(
    host: str, options: dict[str, object], answered: tuple[str | None, ...], refused: tuple[str, ...]
) -> None:
    loopback = host.startswith("127")
    hosts = allowed_hosts(host, is_loopback=loopback, **({"allow_hosts": (), "has_key": False} | options))  # type: ignore[arg-type]
    assert [name for name in answered if not hosts.answers(name)] == []
    assert [name for name in refused if hosts.answers(name)] == []


def test_a_name_that_was_rebound_is_refused_everywhere() -> None:
    with rehearsal(hosts=Hosts()) as server:
        for path in ("/", "/health", "/v1/model", "/page/app.js", "/nowhere"):
            reply = server.get(path, Host="evil.example:8000")
            assert (reply.status, reply.code) == (421, "wrong_host")
            assert "--allow-host" in reply.json["error"]["message"]
        assert server.get("/health").status == 200
        assert server.get("/health", Host="localhost:1").status == 200


def test_a_name_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"allow-host: 'https://a\.example' is not a host name"):
        Hosts(("https://a.example",))
