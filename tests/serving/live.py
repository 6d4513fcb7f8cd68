"""A server as users start it, in a process of its own, and clients for it."""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.patience import PATIENCE_S

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the error."""
        assert set(self.json) == {"error"} and set(self.json["error"]) == {"code", "message", "image"}, self.body
        return str(self.json["error"]["code"])


@dataclass
class Client:
    """Who asks a running server."""

    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def request(
        self, path: str, body: bytes | None = None, *, kind: str = "", method: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Any request; errors are replies too."""
        all_headers = dict(headers or {}) | ({"Content-Type": kind} if kind else {})
        request = urllib.request.Request(self.address + path, body, all_headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request(path, headers=headers)

    def post_json(self, path: str, value: Any) -> Reply:
        return self.request(path, json.dumps(value).encode(), kind="application/json")

    def predict(self, *images: bytes, **fields: object) -> Reply:
        """A form with these images and fields."""
        return self.form("/v1/predict", "images", images, fields)

    def form(self, path: str, name: str, files: tuple[bytes, ...], fields: Mapping[str, object]) -> Reply:
        kind, body = as_form(name, files, fields)
        return self.request(path, body, kind=kind)

    def predict_json(self, *images: bytes, **fields: object) -> Reply:
        return self.post_json("/v1/predict", {"images": [{"data": base64.b64encode(data).decode()} for data in images], **fields})

    def metric(self, name: str) -> float:
        """The sum over the labels of a series at /metrics."""
        lines = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics").body.decode(), re.MULTILINE)
        return sum(map(float, lines))


@dataclass
class Live(Client):
    """A server in a process of its own."""

    process: "subprocess.Popen[str]"
    log: Path  # what it has written to standard error

    def workers(self) -> list[psutil.Process]:
        """The processes that compute; multiprocessing's own are left out."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [c for c in children if "spawn_main" in " ".join(c.cmdline())]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


def as_form(name: str, files: tuple[bytes, ...], fields: Mapping[str, object]) -> tuple[str, bytes]:
    """The content type and the body of a form."""
    boundary = "convmix-boundary-7f3a"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    for i, data in enumerate(files):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{i}.png"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


@contextlib.contextmanager
def live(run: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Live]:
    """`convmix serve RUN` on a free port, ready; killed at the end where it still runs."""
    command = [sys.executable, "-m", "convmix", "serve", str(run), "--port", "0", *options]
    env = {**os.environ, **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:  # no pipe: a full one would stop the server
            process = subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line.startswith("http://"), f"no address: {line}{log.read_text()}"
            yield Live(line.strip(), process, log)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()
            process.stdout.close()
