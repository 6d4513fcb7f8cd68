"""Published weights are fetched once, from the Hub or the authors' own place, and being offline is one quick line."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from convmix.errors import ModelError, WeightsError
from convmix.models import published_files
from convmix.models.convmixer import ConvMixer
from convmix.models.published import PUBLISHED, Published
from convmix.models.weights import load_pretrained

State = dict[str, Tensor]


def small(act: str = "gelu", **changed: int) -> ConvMixer:
    sizes = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2, "num_classes": 4} | changed
    return ConvMixer(act=act, **sizes).eval()  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves tmp_path/served on a free loopback port, with what the Hub's client asks of an answer."""
    root = tmp_path / "served"
    root.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = root / Path(self.path.split("?")[0]).name
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + (100 if "cut" in file.name else 0)))
            told = b"other" if (root / "changed since").is_file() else content
            self.send_header("ETag", f'"{hashlib.sha256(told).hexdigest()}"')  # what the Hub has of large files
            self.send_header("X-Repo-Commit", "a" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def unreachable() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


def publish(monkeypatch: pytest.MonkeyPatch, *, hub_id: str | None = None, url: str = "", activation: str = "gelu") -> None:
    monkeypatch.setitem(PUBLISHED, "tiny", Published(hub_id, url, activation, 1.0, None, "nobody", 1.0))


def test_weights_at_a_url_are_fetched_once(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, model = small(), small()
    torch.save(original.state_dict(), tmp_path / "served/tiny.pth")
    publish(monkeypatch, url=f"{server}/tiny.pth")
    report = load_pretrained(model, "tiny")
    assert torch.equal(model.head.weight, original.head.weight)
    assert report.origin == f"{server}/tiny.pth"
    (tmp_path / "served/tiny.pth").unlink()
    load_pretrained(small(), "tiny")


def test_weights_on_the_hub_are_fetched_once(tmp_path: Path, server: str, unreachable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, model = small(), small()
    save_file(original.state_dict(), tmp_path / "served/model.safetensors")
    publish(monkeypatch, hub_id="someone/tiny")
    monkeypatch.setattr(published_files, "HUB_ENDPOINT", server)
    assert load_pretrained(model, "tiny").origin == "someone/tiny"
    assert torch.equal(model.head.weight, original.head.weight)
    monkeypatch.setattr(published_files, "HUB_ENDPOINT", unreachable)
    load_pretrained(small(), "tiny")


def test_published_relu_weights_are_refused_by_a_gelu_model(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(small("relu").state_dict(), tmp_path / "served/tiny.pth")
    publish(monkeypatch, url=f"{server}/tiny.pth", activation="relu")
    with pytest.raises(WeightsError, match="trained with RELU"):
        load_pretrained(small("gelu"), "tiny")


@pytest.mark.parametrize("place", ["hub", "url"])
def test_offline_is_one_quick_line_that_says_how_to_give_a_file(place: str, unreachable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, hub_id="someone/tiny" if place == "hub" else None, url=f"{unreachable}/tiny.pth")
    monkeypatch.setattr(published_files, "HUB_ENDPOINT", unreachable)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)  # between two tries; a port that nobody listens at refuses at once
    with pytest.raises(WeightsError, match=r"tiny could not be fetched from .*--weights FILE") as error:
        load_pretrained(small(), "tiny")
    assert sum(waits) < 5
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.pth", "cut.pth"])
def test_a_refused_or_broken_download_leaves_nothing_behind(
    tmp_path: Path, server: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small().state_dict(), tmp_path / "served/cut.pth")
    publish(monkeypatch, url=f"{server}/{name}")
    with pytest.raises(WeightsError, match="could not be fetched"):
        load_pretrained(small(), "tiny")
    assert not list((tmp_path / "torch").rglob("*.*"))


def test_a_name_without_published_weights_lists_those_that_have() -> None:
    with pytest.raises(ModelError, match=r"convmixer_256_8 has no published weights.*convmixer_768_32.*convmlp_s"):
        load_pretrained(small(), "convmixer_256_8")
