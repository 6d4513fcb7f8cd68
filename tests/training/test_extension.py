"""A model directory is enough to go on with its training, and a larger number of epochs extends it."""

import json
from pathlib import Path
from typing import Any

import pytest

import convmix
from convmix.errors import ConfigError, RunError
from tests.command_line import Command

SETTINGS: dict[str, Any] = {
    "model": "convmixer_8_1_k3_p4", "size": 24, "batch_size": 16, "workers": 0, "precision": "fp32", "tune": "never", "schedule": "cosine",
    "warmup_epochs": 1, "lr": 0.01,
}  # fmt: skip


def curve(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "record.json").read_text())["curve"]


@pytest.mark.slow
def test_a_finished_run_is_extended_on_the_longer_schedule(photos: Path, tmp_path: Path, command: Command) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    convmix.train(photos, out=short, quiet=True, device="cpu", epochs=2, **SETTINGS)
    convmix.train(photos, out=long, quiet=True, device="cpu", epochs=4, **SETTINGS)
    first = curve(short)
    done = command("train", short, "--resume", "--epochs", 4, "--device", "cpu")
    assert done.code == 0, done.err
    assert "extended from 2 to 4 epochs" in done.out and "cosine schedule" in done.out
    extended = curve(short)
    assert [row["lr"] for row in extended[2:]] == [row["lr"] for row in curve(long)[2:]]
    assert [row["train_loss"] for row in extended[:2]] == [row["train_loss"] for row in first] and len(extended) == 4
    described = json.loads((short / "convmix.json").read_text())
    assert described["finished"] and described["training"]["epochs_done"] == described["run"]["schedule"]["epochs"] == 4
    again = command("train", short, "--resume", "--device", "cpu")  # over, with nothing said of an extension
    assert again.code == 0 and "extended" not in again.out and curve(short) == extended


def test_what_cannot_be_gone_on_with_says_so(made_once: Any, photos: Path, tmp_path: Path) -> None:
    from tests.trained_runs import classifier

    run = classifier(made_once, photos)
    with pytest.raises(RunError, match="is a training and no data set; add --resume"):
        convmix.train(run, quiet=True)
    with pytest.raises(RunError, match="leave --out out"):
        convmix.train(run, out=tmp_path / "elsewhere", resume=True, quiet=True)
    with pytest.raises(ConfigError, match=r"epochs: .* was begun with 8 epochs; more extend it, 7 is less"):
        convmix.train(run, resume=True, epochs=7, quiet=True)
    with pytest.raises(ConfigError, match=r"lr: .* keeps its settings"):
        convmix.train(run, resume=True, epochs=9, lr=0.5, quiet=True)
