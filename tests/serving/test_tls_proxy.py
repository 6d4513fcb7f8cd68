"""TLS in front of the server, by the nginx configuration that docs/how_to/serve.md gives."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from convmix.serving.hosts import Hosts
from convmix.serving.limits import MIB, RequestLimits
from tests.patience import PATIENCE_S, until
from tests.serving.live import as_form
from tests.serving.rehearsal import rehearsal

pytestmark = [
    pytest.mark.skipif(shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None, reason="nginx is not installed"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed"),
]
NAME = "models.example.org"
GUIDE = Path(__file__).resolve().parents[2] / "docs/how_to/serve.md"


@dataclass
class Proxy:
    """nginx on two sockets of a folder."""

    folder: Path

    def ask(self, method: str, path: str, body: bytes = b"", *, tls: bool = True, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(str(self.folder / ("https" if tls else "http")))
        if tls:
            client = ssl.create_default_context(cafile=str(self.folder / "pem")).wrap_socket(client, server_hostname=NAME)
        connection = http.client.HTTPConnection(NAME)
        connection.sock = client
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply, reply.read()
        finally:
            connection.close()


def _configuration(folder: Path, port: int) -> str:
    """The guide's text, on sockets and files of this folder; the rest is what a distribution has in nginx.conf."""
    text = GUIDE.read_text().split("```nginx\n")[1].split("```")[0]
    for theirs, ours in {
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "listen 443 ssl": f"listen unix:{folder}/https ssl",
        "listen 80": f"listen unix:{folder}/http",
        f"/etc/ssl/private/{NAME}.": f"{folder}/",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    own = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    about = f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/log;\nworker_processes 1;\nevents {{}}\n"
    return f"{about}http {{\naccess_log off;\n{own}{text}}}\n"


@pytest.fixture
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, int]]:
    """nginx with a certificate of its own, in front of a port where nobody listens yet."""
    folder = tmp_path_factory.mktemp("p")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={NAME}",
    ]
    more = ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(folder / "key"), "-out", str(folder / "pem")]
    subprocess.run([*command, *more], check=True, capture_output=True)
    with rehearsal(RequestLimits(time_s=PATIENCE_S), hosts=Hosts((NAME,)), origins=(), key="a key") as server:
        (folder / "conf").write_text(_configuration(folder, server.port))
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program
        nginx = subprocess.Popen([program, "-e", str(folder / "log"), "-c", str(folder / "conf")], stderr=subprocess.DEVNULL)
        try:
            until((folder / "https").exists, while_runs=nginx)
            yield Proxy(folder), server.port
        finally:
            nginx.terminate()
            nginx.wait(PATIENCE_S)


def test_the_guides_proxy_ends_tls_and_passes_on_what_the_server_says(proxy: tuple[Proxy, int]) -> None:
    front, _ = proxy
    kind, body = as_form("images", (b"a",), {})
    reply, said = front.ask("POST", "/v1/predict", body, Content_Type=kind, Authorization="Bearer a key", Origin=f"https://{NAME}")
    assert reply.status == 200 and "predictions" in json.loads(said)
    assert "max-age" in str(reply.headers["Strict-Transport-Security"])
    assert front.ask("GET", "/ready")[0].status == 200
    reply, said = front.ask("POST", "/v1/predict", body, Content_Type=kind)
    assert reply.status == 401 and json.loads(said)["error"]["code"] == "unauthorized"
    reply, said = front.ask("POST", "/v1/predict", Content_Type=kind, Content_Length=str(65 * MIB))
    assert reply.status == 413 and "proxy" in json.loads(said)["error"]["message"]
    reply, _ = front.ask("GET", "/page?x=1", tls=False)
    assert (reply.status, reply.headers["Location"]) == (301, f"https://{NAME}/page?x=1")


def test_where_no_server_answers_the_proxy_says_so_in_json(proxy: tuple[Proxy, int]) -> None:
    front, port = proxy
    conf = front.folder / "conf"
    assert f"127.0.0.1:{port}" in conf.read_text()
    conf.write_text(conf.read_text().replace(f"127.0.0.1:{port}", f"unix:{front.folder}/nobody"))
    os.kill(int((front.folder / "pid").read_text()), 1)  # read it again
    replies: list[tuple[http.client.HTTPResponse, bytes]] = []

    def is_read() -> bool:
        replies.append(front.ask("GET", "/ready"))
        return replies[-1][0].status == 503

    until(is_read)  # for a moment a process with the old text still answers
    reply, said = replies[-1]
    assert json.loads(said)["error"]["code"] == "not_ready" and reply.headers["Retry-After"] == "5"
