"""Published files are found in the caches, sized before they are fetched, resumed where they broke off, and checked by their hash."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from convmix.errors import WeightsError
from convmix.models import published_files
from convmix.models.published_files import Place, cached, fetch, place_of, why_out_of_reach

CONTENT = bytes(range(256)) * 800  # 200 kB


class Server(ThreadingHTTPServer):
    """Gives CONTENT under any name, in parts too; the first `cuts` answers with a body end in the middle."""

    cuts = 0
    asked: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            named = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            assert named
            start, end = int(named[1]), int(named[2]) + 1
            body = CONTENT[start:end]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"one"')
            self.end_headers()
            if len(body) > 1:
                http.asked.append(named[0])
                if http.cuts:
                    http.cuts -= 1
                    body = body[: len(body) // 2]
                    self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = Server(("127.0.0.1", 0), Handler)
    http.asked = []
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


def place(server: Server, name: str = "w.pth") -> Place:
    return Place("tiny", None, f"http://127.0.0.1:{server.server_port}/{name}")


def test_the_size_is_said_before_the_file_is_fetched_once(server: Server) -> None:
    said: list[str] = []
    where = place(server)
    assert cached(where) is None
    assert why_out_of_reach(where) == ""
    file = fetch(where, say=said.append)
    assert file.read_bytes() == CONTENT
    assert said == [f"fetching the weights of tiny: 0 MB from {where.url}, once"]
    assert cached(where) == file
    fetch(where, say=said.append)
    assert (len(said), len(server.asked)) == (1, 1)
    assert [p.name for p in file.parent.iterdir()] == ["w.pth"]


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server) -> None:
    server.cuts = 1
    where = place(server)
    with pytest.raises(WeightsError, match=r"tiny could not be fetched from .*w\.pth .*too early.*--weights FILE"):
        fetch(where)
    assert cached(where) is None
    assert fetch(where).read_bytes() == CONTENT
    assert server.asked == [f"bytes=0-{len(CONTENT) - 1}", f"bytes={len(CONTENT) // 2}-{len(CONTENT) - 1}"]


def test_a_file_of_another_hash_is_thrown_away(server: Server) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert fetch(place(server, f"w-{right}.pth")).read_bytes() == CONTENT
    wrong = place(server, "w-0123abcd.pth")
    with pytest.raises(WeightsError, match=r"SHA-256 is .* published as 0123abcd"):
        fetch(wrong)
    assert cached(wrong) is None


def test_out_of_reach_is_said_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}"
    monkeypatch.setattr(published_files, "HUB_ENDPOINT", dead)
    for where in (Place("tiny", "someone/tiny", ""), Place("tiny", None, f"{dead}/w.pth")):
        assert why_out_of_reach(where).startswith("it cannot be fetched (")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_out_of_reach(Place("tiny", "someone/tiny", "")) == "HF_HUB_OFFLINE is set"
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        fetch(Place("tiny", None, f"{dead}/w.pth"))


def test_every_kind_of_name_says_where_its_weights_are() -> None:
    ours, theirs = place_of("convmlp_s"), place_of("tf_efficientnet_lite0")
    assert ours is not None
    assert ours.url.endswith("convmlp_s_imagenet.pth")
    assert theirs is not None
    assert theirs.hub_id == "timm/tf_efficientnet_lite0.in1k"
    assert place_of("convmixer_256_8") is None
    assert place_of("no_such_model") is None
    assert place_of("local-dir:somewhere") is None
