"""`make check-published` on a server of this machine that speaks the Hub's protocol: right, changed, recorded, out of reach."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convmix.models import catalog, published_files
from convmix.models.published import Published
from tests.conftest import REPO
from tests.models.test_pretrained import own_caches, publish, server, small, unreachable  # noqa: F401

sys.path.insert(0, str(REPO / "benchmarks"))
import check_published

TINY = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2, "num_classes": 4}


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """One published set of weights, on the server, and a record of its own."""
    monkeypatch.setitem(catalog.NAMED, "tiny", catalog.Spec("convmixer", TINY))
    monkeypatch.setattr(published_files, "HUB_ENDPOINT", server)
    monkeypatch.setattr(check_published, "RECORD", tmp_path / "published.json")
    publish(monkeypatch, hub_id="someone/tiny")
    torch.manual_seed(0)
    save_file(small().state_dict(), tmp_path / "served/model.safetensors")
    return tmp_path


def test_what_is_right_is_said_and_recorded_and_a_change_is_noticed(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_published.main(["tiny", "--record"]) == 0
    said = capsys.readouterr().out
    digest = hashlib.sha256((tiny / "served/model.safetensors").read_bytes()).hexdigest()
    assert digest[:16] in said and "same" in said and "1 of 1 right" in said
    record = json.loads((tiny / "published.json").read_text())["tiny"]
    assert record["sha256"] == digest and len(record["logits"]) == 4 and record["top"] in range(4)
    assert check_published.main(["tiny"]) == 0
    for changed, complaint in (({"sha256": "0" * 64}, "recorded was 0000"), ({"logits": [9.0] * 4}, "other logits than recorded")):
        (tiny / "published.json").write_text(json.dumps({"tiny": record | changed}))
        capsys.readouterr()
        assert check_published.main(["tiny"]) == 1
        assert complaint in capsys.readouterr().out.replace("\n", " ")


def test_a_file_that_is_not_what_its_host_says_is_wrong_and_not_recorded(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tiny / "served/changed since").touch()
    assert check_published.main(["tiny", "--record"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "was published as" in said and "thrown away" in said and "wrong: tiny" in said, said
    assert json.loads((tiny / "published.json").read_text()) == {}


def test_out_of_reach_is_a_row_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    unreachable: str,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(monkeypatch, url=f"{unreachable}/tiny.pth")
    assert check_published.main(["tiny"]) == 1
    assert "could not be fetched" in capsys.readouterr().out and not check_published.RECORD.is_file()


def test_github_tells_the_hash_of_a_release(tiny: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(check_published, "GITHUB_API", server)
    (tiny / "served/v1.0").write_text(
        json.dumps({"assets": [{"name": "a.pth", "digest": "sha256:abc"}, {"name": "b.pth", "digest": None}]})
    )
    told = [Published(None, f"https://{place}", None, 1.0, None, "x", 1.0) for place in (
        "github.com/o/r/releases/download/v1.0/a.pth", "github.com/o/r/releases/download/v1.0/b.pth", "elsewhere.org/a.pth",
    )]  # fmt: skip
    assert [check_published._told_by_host(p) for p in told] == ["abc", "", ""]


def test_an_unknown_name_lists_those_that_have_weights(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        check_published.main(["tinny"])
    said = capsys.readouterr().err.replace("\n", " ")
    assert stop.value.code == 2 and "tinny has no published weights; those that have: convmixer_1536_20" in said
