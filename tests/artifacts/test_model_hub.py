"""Models go to a hub and come back the same; what tells of single images or of this machine stays."""

import base64
import errno
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors.torch import load_file

from convmix.artifacts import hub
from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.errors import ConfigError, RunError, WriteError
from tests.tiny_run import make_run, write_image

COMMIT = "a" * 40


class FakeHub(ThreadingHTTPServer):
    """The part of the Hub that pushing and pulling speak to; keeps the files of one repository and every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.refuse_with: int | None = None


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def _say(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()] if b"\n" in body or body[:1] == b"{" else []
        self.server.requests.append((self.command, self.path, lines))
        if self.server.refuse_with:
            self._say(self.server.refuse_with, {"error": "not you"})
        elif self.path == "/api/repos/create":
            self._say(200, {"url": f"http://127.0.0.1:{self.server.server_port}/ada/ants", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            self._say(200, {"files": files})
        elif "/commit/" in self.path:
            for line in lines:
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._say(200, {"commitUrl": f"http://127.0.0.1/ada/ants/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            self._say(404, {})

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, None))
        path = self.path.split("?")[0]
        if self.server.refuse_with:
            self._say(self.server.refuse_with, {"error": "not you"})
        elif path.startswith("/api/models/ada/ants/tree/"):
            self._say(200, [{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in self.server.files.items()])
        elif path.startswith("/api/models/ada/ants"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._say(
                200, {"id": "ada/ants", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "downloads": 0, "likes": 0}
            )
        elif "/resolve/" in path and (name := path.rpartition("/")[2]) in self.server.files:
            self._say(200, self.server.files[name], ETag=f'"{name}"', X_Repo_Commit=COMMIT)
        else:
            self._say(200 if path == "/" else 404, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub()
    thread = threading.Thread(target=fake.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{fake.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Artifact:
    made = make_run(tmp_path / "home" / "ada" / "ants")
    info = json.loads((made.path / "convmix.json").read_text())
    info["data"]["spec"] = str(tmp_path / "home" / "ada" / "photos")
    info["data"]["notes"] = [f"left out: {tmp_path}/home/ada/photos/x.jpg"]
    (made.path / "convmix.json").write_text(json.dumps(info))
    (made.path / "splits.csv").write_text("split,name,digest,label\n")
    return load_artifact(made.path)


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def check_pulled(run: Artifact, pulled: Path, image: Path) -> None:
    from convmix.inference.prediction import predict

    assert sorted(p.name for p in pulled.iterdir()) == ["README.md", "config.json", "convmix.json", "model.safetensors"]
    assert same_weights(run.path, pulled)
    assert predict(run, [image], optimize="never") == predict(pulled, [image], optimize="never")


def test_a_model_comes_back_from_the_hub_as_it_was_pushed(run: Artifact, server: FakeHub, tmp_path: Path) -> None:
    address = hub.push(run.path, "ada/ants", private=False)
    assert address == f"http://127.0.0.1:{server.server_port}/ada/ants"
    assert sorted(server.files) == ["README.md", "config.json", "convmix.json", "model.safetensors"]
    [created] = [lines for method, path, lines in server.requests if path == "/api/repos/create"]
    assert created[0]["name"] == "ants" and created[0]["organization"] == "ada"
    everything = b"".join(server.files.values())
    assert str(tmp_path).encode() not in everything and b"home/ada" not in everything
    assert json.loads(server.files["convmix.json"])["data"]["spec"] == "photos"
    pulled = hub.pull("ada/ants", out=tmp_path / "pulled")
    check_pulled(run, pulled, write_image(tmp_path / "a.png", 1))


def test_timm_reads_what_was_pushed(run: Artifact, server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm asks the Hub through huggingface_hub; its files come from the recorded requests."""
    import timm
    from timm.models import _hub

    hub.push(run.path, "ada/ants")

    def download(repo_id: str, filename: str, **_: object) -> str:
        assert repo_id == "ada/ants"
        file = tmp_path / "cache" / filename
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(server.files[filename])
        return str(file)

    monkeypatch.setattr(_hub, "hf_hub_download", download)
    images = torch.rand(2, *run.preprocess.shape)
    theirs = timm.create_model("hf-hub:ada/ants", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(theirs(images), run.model(images))


def test_a_folder_stands_in_for_the_hub(run: Artifact, tmp_path: Path) -> None:
    assert hub.push(run.path, str(tmp_path / "shelf")) == str(tmp_path / "shelf")
    pulled = hub.pull(str(tmp_path / "shelf"), out=tmp_path / "pulled")
    check_pulled(run, pulled, write_image(tmp_path / "a.png", 1))
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="other things"):
        hub.push(run.path, str(tmp_path / "busy"))
    assert [p.name for p in (tmp_path / "busy").iterdir()] == ["thesis.tex"]


def test_a_disk_that_fills_while_a_model_is_pushed_again_leaves_its_files_whole(
    run: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(hub.push(run.path, str(tmp_path / "shelf")))
    before = (place / "model.safetensors").read_bytes()

    def half(source: BinaryIO, target: BinaryIO) -> None:
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub.shutil, "copyfileobj", half)
    with pytest.raises(WriteError, match="No space left on device; what was there before is kept"):
        hub.push(run.path, str(place))
    assert (place / "model.safetensors").read_bytes() == before


def test_what_a_killed_push_left_is_in_nobodys_way(run: Artifact, tmp_path: Path) -> None:
    place = Path(hub.push(run.path, str(tmp_path / "shelf")))
    left = place / ".model.safetensors.abcd1234.unfinished"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    hub.push(run.path, str(place))
    assert not left.exists()


@pytest.mark.parametrize(("status", "words"), [(401, "HF_TOKEN"), (403, "may not write"), (500, "could not be pushed")])
def test_a_refusal_of_the_hub_is_one_line(run: Artifact, server: FakeHub, status: int, words: str) -> None:
    server.refuse_with = status
    with pytest.raises(RunError, match=words) as error:
        hub.push(run.path, "ada/ants")
    assert "\n" not in str(error.value) and "hf_secret" not in str(error.value)


def test_what_cannot_be_pulled_leaves_nothing(run: Artifact, server: FakeHub, tmp_path: Path) -> None:
    hub.push(run.path, "ada/ants")
    whole = dict(server.files)
    server.files["model.safetensors"] = whole["model.safetensors"][:100]
    with pytest.raises(RunError, match=r"model\.safetensors"):
        hub.pull("ada/ants", out=tmp_path / "a")
    del server.files["convmix.json"]
    with pytest.raises(RunError, match="not pushed by convmix"):
        hub.pull("ada/ants", out=tmp_path / "b")
    server.refuse_with = 404
    with pytest.raises(RunError, match="ada/ants could not be pulled"):
        hub.pull("ada/ants", out=tmp_path / "c")
    assert not [p.name for p in tmp_path.iterdir() if p.name[0] in ".abc"]


def test_mistakes_are_said_before_anything_is_sent(run: Artifact, server: FakeHub, tmp_path: Path) -> None:
    for name in ("ants", "a/b/c", "ada/an ts", "ada/--x"):
        with pytest.raises(ConfigError, match="OWNER/NAME"):
            hub.push(run.path, name)
    with pytest.raises(RunError, match="exists already"):
        hub.pull("ada/ants", out=run.path)
    with pytest.raises(RunError, match="not a folder"):
        hub.pull(str(tmp_path / "nowhere"), out=tmp_path / "x")
    with pytest.raises(RunError, match="not a model directory"):
        hub.push(tmp_path, "ada/ants")
    assert server.requests == []


def test_offline_is_said_at_once(run: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"could not be pushed to http://127\.0\.0\.1:9"):
        hub.push(run.path, "ada/ants")
