"""What was exported is what runs: a changed byte is found, unless one asks not to look."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.runtime import digests
from convmix.artifacts.runtime.digests import SUMS, check_digests, write_digests
from convmix.errors import RunError
from convmix.exporting.export import export, is_ours
from tests.command_line import Command
from tests.made_once import MadeOnce
from tests.tiny_run import make_run, write_image

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test asks for, the next one looks again."""
    monkeypatch.delenv(digests.SKIP_VARIABLE, raising=False)
    yield
    os.environ.pop(digests.SKIP_VARIABLE, None)


@pytest.fixture
def exported(made_once: MadeOnce, tmp_path: Path) -> Path:
    """A copy of an export to ONNX."""

    def make(place: Path) -> None:
        run = make_run(place / "run")
        export(run, "onnx", bake="none", output=place / "onnx")

    return shutil.copytree(made_once("digests", make) / "onnx", tmp_path / "onnx")


def flip(file: Path) -> None:
    """A bit in the middle of the weights, which no parser minds."""
    content = bytearray(file.read_bytes())
    weights = content.index(b"\xbd", len(content) // 4)  # an exponent of a small negative float
    content[weights - 2] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
def test_a_changed_weight_is_found(exported: Path, command: Command, tmp_path: Path) -> None:
    assert load_artifact(exported).engine == "onnx"
    flip(exported / "model.onnx")
    for path in (exported, exported / "model.onnx"):
        with pytest.raises(RunError, match=r"model\.onnx was changed since it was exported.*--no-verify"):
            load_artifact(path)
    image = write_image(tmp_path / "a.png", 1)
    refused = command("predict", exported, image)
    assert refused.code == 2 and "was changed since" in refused.err
    assert command("predict", exported, image, "--no-verify").code == 0


@pytest.mark.slow
def test_a_changed_description_is_found(exported: Path) -> None:
    (exported / "model.json").write_bytes((exported / "model.json").read_bytes() + b" ")
    with pytest.raises(RunError, match=r"model\.json was changed"):
        load_artifact(exported)


def test_other_programs_check_the_list_too(exported: Path) -> None:
    assert is_ours(SUMS)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=exported, check=True, capture_output=True)
    assert {line.split("  ")[1] for line in (exported / SUMS).read_text().splitlines()} == {"model.onnx", "model.json", "predict.py"}


def test_what_does_not_decide_an_answer_may_change(exported: Path) -> None:
    (exported / "predict.py").write_text("# mine")
    assert load_artifact(exported).labels
    (exported / SUMS).unlink()  # an export of an older version
    flip(exported / "model.onnx")
    assert load_artifact(exported).labels


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no digest", b"0" * 64 + b"  ../../etc/passwd\n"])
def test_a_list_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SUMS).write_bytes(content)
    with pytest.raises(RunError, match=r"cannot be read|is not a list of digests"):
        check_digests(tmp_path, tmp_path / "model.onnx")


def test_a_file_that_is_not_listed_is_no_part_of_an_export(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("a")
    (tmp_path / "model.bin").write_text("b")
    (tmp_path / SUMS).write_bytes(write_digests(tmp_path))
    check_digests(tmp_path, tmp_path / "model.xml")
    with pytest.raises(RunError, match="is not in"):
        check_digests(tmp_path, tmp_path / "model.pt2")
    (tmp_path / "model.bin").write_text("c")
    with pytest.raises(RunError, match=r"model\.bin was changed"):
        check_digests(tmp_path, tmp_path / "model.xml")
