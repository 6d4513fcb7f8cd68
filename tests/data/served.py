"""A web server on this machine that hands out shards, counts what it is asked for, and fails when told to."""

import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from written import encoded

from convmix.data.examples import Examples, Source
from tests.patience import until


@dataclass
class Web:
    """What the server does and what it has seen. A look is a request for the first byte alone, by which a file is asked about."""

    folder: Path
    ranges: bool = True
    asked: list[tuple[str, int, int]] = field(default_factory=list)  # name, first byte, bytes sent; 0 of a look
    heads: dict[str, str] = field(default_factory=dict)  # of the last request
    query: str = ""
    login: str = ""  # Authorization that is asked for
    status: int = 0  # every request for a shard's content gets this instead
    cut: int = 0  # so many answers break off in the middle
    hold: Callable[[], bool] | None = None  # while it says so, no shard is sent
    holds: int = 0  # how many were not sent at once for that
    broken: str = ""  # this file gets 503 always
    refused: int = 0  # so many requests for a shard's content get 503
    gone_with: Path | None = None  # once this file is there, every request for a shard's content gets 503
    versions: dict[str, str] = field(default_factory=dict)  # name -> ETag other than the usual one
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def fetched(self, name: str) -> int:
        """How often the content of a file was asked for from its beginning."""
        return sum(1 for of, first, sent in self.asked if of == name and first == 0 and sent)

    @property
    def sent(self) -> int:
        return sum(sent for name, _, sent in self.asked if name.endswith(".tar"))


@contextmanager
def serving(folder: Path, **how: object) -> Iterator[Web]:
    web = Web(folder, **how)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            _answer(self, web)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that have read enough hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, web: Web) -> None:
    parts = urlsplit(request.path)
    name = parts.path.lstrip("/")
    file = web.folder / name
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    is_look = wanted is not None and wanted.groups() == ("0", "0")
    with web.lock:
        web.heads, web.query = dict(request.headers.items()), parts.query
        refused = 503 if name == web.broken else 0 if is_look else web.status
        if not is_look and file.suffix == ".tar":
            refused = refused or (503 if web.refused or (web.gone_with and web.gone_with.is_file()) else 0)
            web.refused = max(web.refused - 1, 0)
    if web.login and request.headers.get("Authorization") != web.login:
        refused = 401
    if not file.is_file():
        refused = 404
    if refused:
        request.send_error(refused)
        return
    content = file.read_bytes()
    first, last = 0, len(content) - 1
    if web.ranges and wanted:
        first, last = int(wanted.group(1)), min(int(wanted.group(2)), last)
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
    else:
        request.send_response(200)
    body = content[first : last + 1]
    request.send_header("Content-Length", str(len(body)))
    request.send_header("ETag", web.versions.get(name, f'"{file.stat().st_mtime_ns}"'))
    request.end_headers()
    with web.lock:
        breaks_off = web.cut > 0 and not is_look and file.suffix == ".tar"
        web.cut -= breaks_off
        web.asked.append((name, first, 0 if is_look else len(body) // (2 if breaks_off else 1)))
    if not is_look and file.suffix == ".tar" and web.hold and web.hold():
        with web.lock:
            web.holds += 1
        until(lambda: not (web.hold and web.hold()))
    request.wfile.write(body[: len(body) // 2] if breaks_off else body)


def make_shards(folder: Path, *, shards: int = 6, images: int = 8) -> Path:
    rng = np.random.default_rng(1)
    for s in range(shards):
        with tarfile.open(folder / f"part-{s:03}.tar", "w") as archive:
            for i in range(images + s % 2):
                image = encoded(rng.integers(0, 256, (32, 32, 3), np.uint8))
                for suffix, value in (("png", image), ("cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{s}-{i:04}.{suffix}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))
    return folder


def all_of(web: Web) -> str:
    return f"{web.url}/part-{{000..005}}.tar"


def rows(source: Source) -> dict[str, list[tuple[str, int, bytes | str]]]:
    return {s: [(e.name(i), int(e.labels[i]), e.source(i)) for i in range(len(e))] for s, e in source.splits.items()}


def the_one(source: Source) -> Examples:
    [examples] = source.splits.values()
    return examples
