"""Every mistake of a client is a 4xx that says what it is."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from convmix.errors import ConfigError
from convmix.serving.limits import RequestLimits
from convmix.serving.server import checked_key
from tests.patience import PATIENCE_S, until
from tests.serving.live import Client, as_form
from tests.serving.rehearsal import rehearsal

KEY = "a key of some length"


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with rehearsal(RequestLimits(image_bytes=1000, request_bytes=5000, images=3, queue=8, time_s=PATIENCE_S)) as started:
        yield started


@pytest.fixture(scope="module")
def hasty_server() -> Iterator[Client]:
    """It gives a request one second to arrive and one to be answered; on a busy machine that may be too little for any."""
    with rehearsal(RequestLimits(time_s=1.0)) as started:
        yield started


@pytest.mark.parametrize(
    ("body", "code", "image"),
    [
        (b"{", "bad_request", None),
        (b"\xff\xfe", "bad_request", None),
        (b"[]", "invalid_field", None),
        (b"{}", "invalid_field", None),
        (b'{"images": []}', "no_images", None),
        (b'{"images": {}}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}], "tpo": 3}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}], "top": 0}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}], "top": true}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}], "threshold": 1.5}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}], "threshold": NaN}', "invalid_field", None),
        (b'{"images": [{"data": "aGk="}, {"data": 3}]}', "invalid_field", 1),
        (b'{"images": [{"data": "aGk="}, {"data": "a?"}]}', "bad_base64", 1),
        (b'{"images": [{"data": "\\u0101"}]}', "bad_base64", 0),
        (b'{"images": [{"data": ""}]}', "unreadable_image", 0),
        (b'{"images": [{"data": "aGk="}, {"data": "YmFk"}]}', "unreadable_image", 1),
        (json.dumps({"images": [{"data": "aGk="}] * 4}).encode(), "too_many_images", None),
        (json.dumps({"images": [{"data": "aGk="}, {"data": "aGlo" * 400}]}).encode(), "image_too_large", 1),
    ],
)
def test_bad_json_is_refused(server: Client, body: bytes, code: str, image: int | None) -> None:
    reply = server.request("/v1/predict", body, kind="application/json")
    assert (reply.code, reply.json["error"]["image"]) == (code, image)
    assert 400 <= reply.status < 500 and reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("name", "files", "fields", "code"),
    [
        ("images", (), {}, "no_images"),
        ("pictures", (b"a",), {}, "invalid_field"),
        ("images", (b"a",), {"tpo": 1}, "invalid_field"),
        ("images", (b"a",), {"top": "many"}, "invalid_field"),
        ("images", (b"a",), {"threshold": -0.1}, "invalid_field"),
        ("images", (b"a",), {"threshold": "nan"}, "invalid_field"),
        ("images", (b"a",), {"images": "text"}, "invalid_field"),
        ("images", (b"a", b""), {}, "unreadable_image"),
        ("images", (b"a", b"bad"), {}, "unreadable_image"),
        ("images", (b"a",) * 4, {}, "too_many_images"),
        ("images", (b"a",) * 9, {}, "too_many_images"),
        ("images", (b"a" * 1001,), {}, "image_too_large"),
        ("images", (b"a",), {"top": "1" * 4500}, "bad_request"),
    ],
)
def test_bad_forms_are_refused(server: Client, name: str, files: tuple[bytes, ...], fields: dict[str, object], code: str) -> None:
    assert server.form("/v1/predict", name, files, fields).code == code


def test_settings_in_forms_are_read(server: Client) -> None:
    assert server.predict(b"a", top="2", threshold="0.25").status == 200
    assert server.predict(b"a", top="", threshold="").status == 200


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("text/plain", b"a", "unsupported_content_type"),
        ("", None, "unsupported_content_type"),
        ("multipart/form-data", b"a", "bad_request"),
        ("multipart/form-data; boundary=x", b"--y", "bad_request"),
        ("multipart/form-data; boundary=x; charset=base64", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--',
         "no_images"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: a\r\n\r\nb\r\n--x--", "bad_request"),
    ],
)  # fmt: skip
def test_bad_content_types_are_refused(server: Client, kind: str, body: bytes | None, code: str) -> None:
    assert server.request("/v1/predict", body, kind=kind, method="POST").code == code


def test_unknown_routes_and_methods_are_said(server: Client) -> None:
    assert (reply := server.get("/v1/nothing")).status == 404 and reply.code == "not_found"
    assert server.get("/page/../../server.py").code == "not_found"
    assert server.get("/page/nothing.js").code == "not_found"
    reply = server.request("/v1/predict", method="DELETE")
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_a_model_without_explanations_says_so(server: Client) -> None:
    reply = server.form("/v1/explain", "image", (b"a",), {})
    assert (reply.status, reply.code) == (422, "cannot_explain")
    assert server.form("/v1/explain", "image", (b"a", b"a"), {}).code == "too_many_images"
    assert server.form("/v1/explain", "image", (b"a",), {"method": "magic"}).code == "invalid_field"


def test_a_body_is_cut_at_the_limit_whether_it_says_its_length_or_not(server: Client) -> None:
    assert server.request("/v1/predict", b" " * 5001, kind="application/json").code == "request_too_large"
    for head in (b"Content-Length: 9999999999999999999", b"Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + head + b"\r\n\r\n")
            if b"chunked" in head:
                connection.sendall((b"3e8\r\n" + b" " * 1000 + b"\r\n") * 6)  # and never the end
            answer = connection.recv(65536)
            assert b" 413 " in answer.split(b"\r\n")[0] and b"request_too_large" in answer + connection.recv(65536)


@contextmanager
def slow_client(server: Client) -> Iterator[socket.socket]:
    """Who has sent a request but for its end."""
    kind, body = as_form("images", (b"a",), {})
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as slow:
        slow.sendall(head.encode() + body[:10])
        yield slow


def test_a_slow_client_is_sent_away(hasty_server: Client) -> None:
    began = time.monotonic()
    with slow_client(hasty_server) as slow:
        assert b" 408 " in slow.recv(65536).split(b"\r\n")[0]
        assert 0.99 < time.monotonic() - began < 50  # the limit is one second; a busy machine may be late, not fifty times


def test_a_slow_client_holds_nobody_up(server: Client) -> None:
    with slow_client(server) as slow:
        assert server.predict(b"b").status == 200
        assert select.select([slow], [], [], 0)[0] == [], "it had its answer first"


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_a_504(hasty_server: Client) -> None:
    """The silent worker is ended, and another takes its place."""
    reply = hasty_server.predict(f"sleep {10 * PATIENCE_S}".encode())
    assert (reply.status, reply.code) == (504, "timeout")
    until(lambda: hasty_server.metric("convmix_worker_deaths_total") >= 1 and hasty_server.get("/ready").status == 200)
    until(lambda: hasty_server.predict(b"a").status == 200)


def test_a_bug_is_a_500_in_json_and_the_server_lives(server: Client) -> None:
    reply = server.predict(b"raise")
    assert (reply.status, reply.code) == (500, "internal")
    assert server.predict(b"a").status == 200


def test_the_key_is_asked_for_where_there_is_one() -> None:
    with rehearsal(key=KEY) as server:
        for path in ("/v1/predict", "/v1/explain", "/v1/model", "/metrics"):
            reply = server.get(path)
            assert (reply.status, reply.code) == (401, "unauthorized")
            assert KEY not in reply.body.decode()
        assert server.get("/v1/model", Authorization="Bearer " + KEY[:-1]).status == 401
        assert server.get("/v1/model", Authorization="Basic " + KEY).status == 401
        assert server.get("/v1/model", **{"X-API-Key": "\u00e9"}).status == 401
        assert server.get("/v1/model", Authorization="Bearer " + KEY).status == 200
        assert server.get("/v1/model", **{"X-API-Key": KEY}).status == 200
        assert server.get("/health").status == 200
        document = server.get("/openapi.json").json
        assert document["paths"]["/v1/predict"]["post"]["security"] and "401" in document["paths"]["/v1/predict"]["post"]["responses"]
        assert KEY not in json.dumps(document)


def test_a_key_that_no_header_can_hold_is_refused_without_being_said() -> None:
    assert checked_key(" abc\n", "x") == "abc"
    for key in ("", "\n", "sch\u00f6n", "a\tb"):
        with pytest.raises(ConfigError) as error:
            checked_key(key, "CONVMIX_API_KEY")
        assert "CONVMIX_API_KEY" in str(error.value) and (not key.strip() or key not in str(error.value))


def test_other_sites_are_let_in_by_name_only() -> None:
    with rehearsal(origins=["https://good.example"]) as server:
        assert server.get("/health", Origin="https://good.example").headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-origin" not in server.get("/health", Origin="https://bad.example").headers


@pytest.mark.parametrize(("name", "value"), [("images", 0), ("time_s", float("nan")), ("batch_wait_ms", -1), ("queue", 3)])
def test_limits_that_cannot_be_kept_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match="images" if name == "queue" else name):
        RequestLimits(**{name: value})  # type: ignore[arg-type]
