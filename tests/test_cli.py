"""The command line: a user's mistake is one line and exit code 2, and every setting is an option."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convmix.cli import main
from convmix.config import settings


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
        raise SystemExit(0)
    captured = capsys.readouterr()
    code = stop.value.code
    return code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "photos"], "trian"),
        (["train"], "DATA"),
        (["train", "digits", "--weigth-decay", "1"], "--weight-decay"),
        (["train", "digits", "--lr", "fast"], "optim.lr: 'fast' is not a number"),
        (["train", "digits", "--recipe", "digit"], "unknown recipe digit, did you mean digits?"),
        (["train", "digits", "--model", "convmixr_256_8"], "did you mean convmixer_256_8 or convmixer"),
        (["train", "nowhere/"], "nowhere"),
        (["evaluate", "nowhere"], "no such folder"),
        (["predict", "nowhere", "x.png"], "no such folder"),
        (["predict", "nowhere", "x.png", "--fromat", "csv"], "unknown option --fromat, did you mean --format?"),
        (["push", "nowhere", "ada/ants"], "no such folder"),
        (["pull", "ants"], "OWNER/NAME"),
        (["describe", "resnet19"], "did you mean"),
        (["describe", "resnet18", "--size", "big"], "size"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("error:")
    assert "Traceback" not in err + out


def test_every_setting_is_an_option_of_train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    missing = [s.name for s in settings() if f"--{s.name.replace('_', '-')}" not in out]
    assert not missing


def test_describe_as_json_and_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "describe", "convmixer_256_8", "--size", "32", "--num-classes", "10", "--json")
    described = json.loads(out)
    assert (described["parameters"], described["macs"]) == (594_186, 148_113_920)
    _, out, _ = run(capsys, "describe", "convmixer_768_32")
    assert "21,110,248" in out
    assert "published, not measured here" in out


def test_models_and_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "models", "convml*")
    assert out.split() == ["convmlp_t", "convmlp_s", "convmlp_m", "convmlp_l"]
    _, out, _ = run(capsys, "recipes")
    assert "convmixer_cifar10_200\n  from: locuslab/convmixer-cifar10" in out


@pytest.mark.slow
def test_train_evaluate_predict_from_a_terminal(photos: Path, tmp_path: Path) -> None:
    def convmix(*arguments: str, code: int = 0, stdin: str = "") -> str:
        command = [sys.executable, "-m", "convmix", *arguments]
        done = subprocess.run(command, cwd=tmp_path, input=stdin, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    options = ["--model", "convmixer_16_2_k3_p4", "--size", "24", "--batch-size", "12", "--epochs", "8", "--precision", "fp32"]
    out = convmix("train", str(photos), *options)
    assert "test accuracy" in out
    assert "95 % interval" in out
    assert "model directory: runs/photos" in out
    convmix("train", str(photos), *options[:6], "--epochs", "1")
    assert (tmp_path / "runs" / "photos-2" / "model.safetensors").exists()  # nothing is overwritten
    assert "macro F1" in convmix("evaluate", "runs/photos")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    lines = convmix("predict", "runs/photos", str(photos / "class_2" / "000.png"), "broken.jpg", "--format", "csv").splitlines()
    assert len(lines) == 3
    assert "class_2" in lines[1]
    assert "broken.jpg" in lines[2]
    convmix("predict", "runs/photos", "broken.jpg", "--format", "csv", code=1)  # nothing could be labelled
    listed = convmix("predict", "runs/photos", "-", "--format", "jsonl", stdin=f"{photos / 'class_0' / '001.png'}\n")
    assert json.loads(listed)["label"] == "class_0"
