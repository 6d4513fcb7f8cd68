"""The command line: a user's mistake is one line and exit code 2, and every setting is an option."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convmix import api, cli
from convmix.cli import main
from convmix.config import settings
from tests.command_line import Command
from tests.made_once import MadeOnce
from tests.trained_runs import classifier


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
        raise SystemExit(0)
    captured = capsys.readouterr()
    code = stop.value.code
    return code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err


@pytest.mark.slow
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


def test_the_help_of_train_shows_what_is_used_most_and_all_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, some, _ = run(capsys, "train", "--help")
    assert code == 0 and "--epochs INT" in some and "--erasing" not in some
    code, every, _ = run(capsys, "train", "--help-all")
    missing = [s.name for s in settings() if f"--{s.name.replace('_', '-')}" not in every]
    assert code == 0 and not missing
    hidden = sum(f"--{s.name.replace('_', '-')} " not in some for s in settings() if s.type is not bool)
    assert 0 < hidden <= int(re.search(r"--help-all shows (\d+) more options", some)[1])  # type: ignore[index]


def test_the_help_says_types_choices_and_what_holds_without_an_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    import pydantic  # noqa: F401 - which cyclopts asks to validate values where somebody has imported it

    _, out, _ = run(capsys, "train", "--help-all")
    lines = " ".join(line.strip("│ ") for line in out.splitlines())
    assert re.search(r"--fit CHOICE .*?choices: crop, letterbox, stretch", lines)
    assert re.search(r"--epochs INT +passes over the training images \[default: recipe\]", lines)
    assert re.search(r"--size N,N ", lines) and re.search(r"--mean N,N,\.\.\. ", lines)
    assert re.search(r"--val-fraction FLOAT [^-]*?\[default: 0\.1\]", lines)


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
def test_train_evaluate_predict_from_a_terminal(
    command: Command, made_once: MadeOnce, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "convmixer_16_2_k3_p4", "--size", "24", "--batch-size", "12", "--epochs", "1", "--precision", "fp32"]
    done = command("train", photos, *options)
    assert done.code == 0
    for said in ("test accuracy", "95 % interval", "model directory: runs/photos"):
        assert said in done.out
    assert command("train", photos, *options).code == 0
    assert (tmp_path / "runs" / "photos-2" / "model.safetensors").exists()  # nothing is overwritten
    assert "macro F1" in command("evaluate", "runs/photos").out
    run = classifier(made_once, photos)  # sure of these pictures: probabilities over 0.9 with each of ten seeds
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = command("predict", run, photos / "class_2" / "000.png", "broken.jpg", "--format", "csv")
    lines = done.out.splitlines()
    assert (done.code, len(lines)) == (0, 3)
    assert "class_2" in lines[1]
    assert "broken.jpg" in lines[2]
    assert command("predict", run, "broken.jpg", "--format", "csv").code == 1  # nothing could be labelled


@pytest.mark.slow
def test_a_process_reads_names_from_a_pipe_and_writes_rows_to_one(made_once: MadeOnce, photos: Path, tmp_path: Path) -> None:
    names = [photos / "class_0" / "001.png", photos / "class_1" / "002.png"]
    arguments = [sys.executable, "-m", "convmix", "predict", str(classifier(made_once, photos)), "-", "--format", "jsonl"]
    done = subprocess.run(arguments, cwd=tmp_path, input="".join(f"{n}\n" for n in names), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["name"], row["label"]) for row in rows] == [(str(names[0]), "class_0"), (str(names[1]), "class_1")]


def test_a_process_ends_with_the_exit_code(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "convmix", "trian"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error:")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 12582912 bytes"
        ),
        RuntimeError("std::bad_alloc"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_ends_is_one_sentence(command: Command, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "train", full)
    done = command("train", "digits")
    assert done.code == 2
    assert done.err.count("\n") == 1 and "memory that this process may take is used up" in done.err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EIO, "Input/output error", "photos/a.png"), "error: photos/a.png: Input/output error\n"),
        (OSError(errno.EIO, "Input/output error"), "error: the system refused to read or to write: [Errno 5] Input/output error\n"),
        (TimeoutError("timed out"), "error: the system refused to read or to write: timed out\n"),
    ],
)
def test_a_failing_disk_is_one_sentence(command: Command, error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "train", failing)
    done = command("train", "digits")
    assert (done.code, done.err) == (2, sentence)


def test_the_sentence_about_memory_needs_none(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(api, "train", full)
    monkeypatch.setattr(cli.Console, "print", full)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "digits"])
    assert end.value.code == 2 and "memory that this process may take is used up" in capfd.readouterr().err


def test_other_errors_of_these_kinds_are_not_hidden(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(api, "train", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        command("train", "digits")
