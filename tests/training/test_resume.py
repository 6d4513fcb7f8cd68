"""A training that was stopped anywhere ends with the very same bits as one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import convmix
from convmix.training import loop
from tests.command_line import Command, Finished
from tests.conftest import REPO, make_photos
from tests.made_once import MadeOnce
from tests.patience import until

SETTINGS: dict[str, Any] = {
    "model": "convmixer_24_3_k5_p2", "size": 24, "batch_size": 8, "epochs": 2, "workers": 0, "save_every": 0,
    "hflip": 0.5, "scale": "0.5,1", "mixup": 0.4, "cutmix": 0.4, "erasing": 0.3, "ema_decay": 0.9, "dropout": 0.1,
    "clip_grad": 1.0, "precision": "fp32", "balanced": True,
}  # fmt: skip


def words(data: Path, out: Path, *more: str, **changed: object) -> list[str]:
    options = [f"--{k.replace('_', '-')}={v}" if v is not True else f"--{k}" for k, v in {**SETTINGS, **changed}.items()]
    return ["train", str(data), "--out", str(out), "--device", "cpu", *options, *more]


def same_bits(a: Path, b: Path) -> bool:
    names = ("model.safetensors", "state/last.safetensors")
    pairs = [(load_file(a / n), load_file(b / n)) for n in names]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


@pytest.fixture
def uninterrupted(photos: Path, made_once: MadeOnce) -> Path:
    """Twelve steps, six an epoch; read only."""
    return made_once("uninterrupted", lambda out: convmix.train(photos, out=out, quiet=True, device="cpu", **SETTINGS))


@pytest.mark.slow
def test_resume_after_kill_equals_uninterrupted_run(photos: Path, tmp_path: Path, uninterrupted: Path) -> None:
    """Killed while the state of a step is put in the place of the last one; resumed, and killed at the end of the epoch, when the kept
    weights are written and the state is not.
    """
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for moment, more in ((("last.safetensors", "5"), ()), (("last.safetensors", "3"), ("--resume",))):
        killed = [sys.executable, "-m", "tests.training.witness", "die-writing", *moment, *words(photos, out, *more)]
        done = subprocess.run(killed, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    convmix.train(photos, out=out, quiet=True, device="cpu", resume=True)
    assert same_bits(out, uninterrupted)


@pytest.mark.slow
def test_a_signal_from_outside_saves_and_prints_the_command_that_resumes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    endless = [sys.executable, "-m", "convmix", *words(photos, out, epochs=4000, save_every=1000, tune="never")]
    with subprocess.Popen(endless, stderr=subprocess.PIPE, text=True) as process:
        try:
            until((out / "curves.csv").exists, while_runs=process)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    check_stopped(Finished(process.returncode, "", errors), signal.SIGTERM, photos, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_save_and_print_the_command_that_resumes(
    command: Command, photos: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train_step

    def step_then_signal(t: loop.Training, batch: object) -> None:
        real(t, batch)  # type: ignore[arg-type]
        signal.raise_signal(number)

    monkeypatch.setattr(loop, "train_step", step_then_signal)
    out = tmp_path / "run"
    check_stopped(command(*words(photos, out, save_every=1000, tune="never")), number, photos, out)


def check_stopped(done: Finished, number: signal.Signals, data: Path, out: Path) -> None:
    assert done.code == 128 + number
    assert f"resume with: convmix train {data} --out {out} --resume" in done.err
    assert "Traceback" not in done.err
    assert load_file(out / "state" / "last.safetensors")


@pytest.mark.slow
def test_a_stopped_step_loop_continues_inside_the_epoch(
    photos: Path, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train_step

    def step_then_signal(t: loop.Training, batch: object) -> None:
        real(t, batch)  # type: ignore[arg-type]
        if t.position.step == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "train_step", step_then_signal)
    with pytest.raises(convmix.ConvmixError, match="stopped after step 4 of 12, state saved"):
        convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", **SETTINGS)
    monkeypatch.setattr(loop, "train_step", real)
    convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", resume=True)
    assert same_bits(uninterrupted, tmp_path / "parts")


def test_changed_data_is_not_resumed(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", per_class=10)
    convmix.train(data, out=tmp_path / "run", quiet=True, **{**SETTINGS, "epochs": 1})
    (data / "class_0" / "000.png").unlink()
    with pytest.raises(convmix.ConvmixError, match="has changed since"):
        convmix.train(data, out=tmp_path / "run", quiet=True, resume=True)
