"""A training directory belongs to one training at a time, which notices its removal, and clears up after those that were killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import convmix
from convmix.data.loaders import Batch
from convmix.errors import RunError, TrainingError
from convmix.system.locking import locked
from convmix.training import loop, session
from tests.conftest import REPO
from tests.made_once import MadeOnce
from tests.trained_runs import CLASSIFIER, classifier

SETTINGS: dict[str, Any] = {**CLASSIFIER, "epochs": 2, "save_every": 0, "tune": "never"}


@pytest.fixture
def finished(photos: Path, tmp_path: Path, made_once: MadeOnce) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(classifier(made_once, photos), tmp_path / "run")


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"autoresume": True}])
def test_a_directory_in_use_is_refused_before_the_data_is_read(
    photos: Path, finished: Path, how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "new_job", None)  # neither is come to
    monkeypatch.setattr(session, "resumed_job", None)
    with locked(finished), pytest.raises(RunError, match="in use by"):
        convmix.train(photos, out=finished, quiet=True, **({} if how.get("resume") else SETTINGS), **how)


def at_step(step: int, do: Callable[[loop.Training], object]) -> Callable[[loop.Training, Batch], None]:
    real = loop.train_step

    def train_step(t: loop.Training, batch: Batch) -> None:
        if t.position.step == step:
            do(t)
        real(t, batch)

    return train_step


@pytest.mark.parametrize("what", ["folder", "folder, made again", "contents"])
def test_a_directory_removed_in_the_middle_ends_the_training_in_words(
    photos: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(t: loop.Training) -> None:
        if what == "contents":
            shutil.rmtree(t.job.out / "state")
            return
        shutil.move(t.job.out, tmp_path / "away")  # and not away for good, so that its number is not given to another
        if what != "folder":
            t.job.out.mkdir()

    monkeypatch.setattr(loop, "train_step", at_step(3, remove))
    with pytest.raises(TrainingError, match="removed"):
        convmix.train(photos, out=tmp_path / "run", quiet=True, **SETTINGS)
    assert not (tmp_path / "run" / "convmix.json").exists() or what == "contents"


def test_weights_removed_before_the_end_are_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = session.fit

    def fit(t: loop.Training) -> None:
        real(t)
        (t.job.out / "model.safetensors").unlink()

    monkeypatch.setattr(session, "fit", fit)
    with pytest.raises(TrainingError, match=r"kept weights .* are gone"):
        convmix.train(photos, out=tmp_path / "run", quiet=True, **SETTINGS)


@pytest.mark.slow
def test_a_kill_before_the_first_file_is_whole_leaves_a_directory_that_starts(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    arguments = ["train", str(photos), "--out", str(out), "--device", "cpu", "--autoresume", *options]
    killed = [sys.executable, "-m", "tests.training.witness", "die-writing", "job.json", "1", *arguments]
    done = subprocess.run(killed, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [path.name for path in out.rglob("*") if path.is_file()]
    assert any(name.startswith(".job.json.") for name in left) and "job.json" not in left
    convmix.train(photos, out=out, quiet=True, autoresume=True, **SETTINGS)
    assert (out / "record.json").is_file()
    assert not [path for path in (out / "state").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_what_killed_saves_left_is_taken_away_and_nothing_else(photos: Path, finished: Path) -> None:
    state, old = finished / "state", time.time() - 3600
    gone = [
        state / ".last.safetensors.abcd_123",
        state / ".last.safetensors.abcd_123.unfinished",
        finished / ".model.safetensors.x1234567.unfinished",
    ]
    stay = [
        finished / ".settings.unfinished",
        finished / ".my.bookmarks",
        finished / ".README.md.y1234567.unfinished",
        finished / "notes.txt",
    ]
    for path in (*gone, *stay):
        path.write_text("x")
        if path.name != ".README.md.y1234567.unfinished":  # which `calibrate` may be about to put in its place
            os.utime(path, (old, old))
    convmix.train(photos, out=finished, quiet=True, resume=True)
    assert [path.name for path in gone if path.exists()] == []
    assert [path.name for path in stay if not path.exists()] == []


def test_an_epoch_is_reported_when_it_is_safe(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    real = loop.write_state

    def write_state(path: Path, state: Any) -> None:
        real(path, state)
        saved.append(len(state.meta["position"]["history"]))

    def epoch(self: object, row: dict[str, Any], history: list[dict[str, Any]], **_: object) -> None:
        assert saved[-1] == row["epoch"]

    monkeypatch.setattr(loop, "write_state", write_state)
    monkeypatch.setattr(loop.TrainingLog, "epoch", epoch)
    convmix.train(photos, out=tmp_path / "run", quiet=True, **SETTINGS)
    assert saved[-1] == 2
