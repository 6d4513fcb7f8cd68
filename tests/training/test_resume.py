"""A training that was stopped anywhere ends with the very same bits as one that was not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convmix

SETTINGS = {
    "model": "convmixer_24_3_k5_p2", "size": 24, "batch_size": 8, "epochs": 6, "workers": 0, "save_every": 0.2,
    "hflip": 0.5, "scale": "0.5,1", "mixup": 0.4, "cutmix": 0.4, "erasing": 0.3, "ema_decay": 0.9, "dropout": 0.1,
    "clip_grad": 1.0, "precision": "fp32", "balanced": True,
}  # fmt: skip


def command(data: Path, out: Path, *more: str, **changed: object) -> list[str]:
    options = [f"--{k.replace('_', '-')}={v}" if v is not True else f"--{k}" for k, v in {**SETTINGS, **changed}.items()]
    return [sys.executable, "-m", "convmix", "train", str(data), "--out", str(out), *options, *more]


def same_bits(a: Path, b: Path) -> bool:
    names = ("model.safetensors", "state/last.safetensors")
    pairs = [(load_file(a / n), load_file(b / n)) for n in names]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(photos, out), check=True, capture_output=True)
    return out


def killed_after(process: subprocess.Popen[bytes], state: Path, seconds: float) -> bool:
    """Kill a training some time after it has written its next state; False where it was done before."""
    before = state.stat().st_mtime_ns if state.exists() else 0
    while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_resume_after_kill_equals_uninterrupted_run(photos: Path, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "run"
    state = out / "state" / "last.safetensors"
    moments = random.Random()  # any moment will do, so other ones each time
    longest_s = (0.2, 0.8, 0.8)  # the first is sure to come before the end
    kills = 0
    for limit in longest_s:
        process = subprocess.Popen(command(photos, out, *(["--resume"] if state.exists() else [])), stdout=subprocess.DEVNULL)
        kills += killed_after(process, state, moments.uniform(0, limit))
    assert kills
    subprocess.run(command(photos, out, "--resume"), check=True, capture_output=True)
    assert same_bits(out, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_save_and_print_the_command_that_resumes(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(command(photos, out, epochs=4000), stderr=subprocess.PIPE, text=True)
    while not (out / "curves.csv").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"resume with: convmix train {photos} --out {out} --resume" in errors
    assert "Traceback" not in errors
    assert load_file(out / "state" / "last.safetensors")


def test_a_stopped_step_loop_continues_inside_the_epoch(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convmix.training import loop

    convmix.train(photos, out=tmp_path / "whole", quiet=True, **{**SETTINGS, "epochs": 2})
    real, steps = loop.train_step, []

    def step_then_signal(t: loop.Training, batch: object) -> None:
        real(t, batch)
        steps.append(t.position.step)
        if t.position.step == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "train_step", step_then_signal)
    with pytest.raises(convmix.ConvmixError, match="stopped after step 4 of 12, state saved"):
        convmix.train(photos, out=tmp_path / "parts", quiet=True, **{**SETTINGS, "epochs": 2})
    monkeypatch.setattr(loop, "train_step", real)
    convmix.train(photos, out=tmp_path / "parts", quiet=True, resume=True)
    assert same_bits(tmp_path / "whole", tmp_path / "parts")


def test_changed_data_is_not_resumed(tmp_path: Path) -> None:
    from tests.conftest import make_photos

    data = make_photos(tmp_path / "photos", per_class=10)
    convmix.train(data, out=tmp_path / "run", quiet=True, **{**SETTINGS, "epochs": 1})
    (data / "class_0" / "000.png").unlink()
    with pytest.raises(convmix.ConvmixError, match="has changed since"):
        convmix.train(data, out=tmp_path / "run", quiet=True, resume=True)
