"""How long the model waits for images is measured, kept over a resume and said; kept images change no weights."""

import csv
import io
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import convmix
from convmix.data import preprocessing
from convmix.data.augment import training_transform
from convmix.training import loop
from convmix.training.session import train_session

SETTINGS = {
    "model": "convmixer_16_2_k3_p4",
    "size": 24,
    "batch_size": 12,
    "precision": "fp32",
    "workers": 0,
    "hflip": 0.5,
    "scale": "0.5,1",
}
STEPS = 4  # 48 of the 60 photos are trained on


class Clock:
    """Stands for the loop's `time`; goes on only where a test says so, so that shares come out exactly."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@dataclass
class Pace:
    """What a batch and a step take in each epoch, in seconds by the loop's clock; the last entry stands for the rest."""

    batch_s: list[float] = field(default_factory=lambda: [0.0])
    step_s: list[float] = field(default_factory=lambda: [1.0])


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Pace:
    took, clock, epochs = Pace(), Clock(), []
    real_batches, real_step = loop.train_batches, loop.train_step

    def at(seconds: list[float]) -> float:
        return seconds[min(len(epochs), len(seconds)) - 1]

    def batches(*args: object, **options: object) -> Iterator[loop.Batch]:
        epochs.append(options["epoch"])
        for batch in real_batches(*args, **options):  # type: ignore[arg-type]
            clock.now += at(took.batch_s)
            yield batch

    def step(t: loop.Training, batch: loop.Batch) -> None:
        clock.now += at(took.step_s)
        real_step(t, batch)

    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "train_batches", batches)
    monkeypatch.setattr(loop, "train_step", step)
    return took


def train(photos: Path, out: Path, *, resume: bool = False, **settings: object) -> str:
    """What the training said."""
    said = io.StringIO()
    console = Console(file=said, width=300)
    overrides = {} if resume else {**SETTINGS, **settings}
    train_session(str(photos), recipe=None, overrides=overrides, out=out, resume=resume, console=console, device="cpu")
    return said.getvalue()


@pytest.mark.slow
def test_the_wait_is_measured_and_recorded(photos: Path, tmp_path: Path, pace: Pace) -> None:
    pace.batch_s = [3.0, 1.0, 0.25, 0.0]
    shares = [0.75, 0.5, 0.2, 0.0]
    train(photos, tmp_path / "run", epochs=4)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [row["data_wait_share"] for row in record["curve"]] == pytest.approx(shares)
    assert record["data_wait_s"] == pytest.approx(STEPS * 4.25)
    assert record["train_elapsed_s"] == pytest.approx(STEPS * (4.25 + 4))
    rows = list(csv.DictReader((tmp_path / "run" / "curves.csv").read_text().splitlines()))
    assert [float(row["data_wait_share"]) for row in rows] == pytest.approx(shares)


@pytest.mark.slow
def test_a_model_that_waits_much_is_said_once(photos: Path, tmp_path: Path, pace: Pace) -> None:
    pace.batch_s = [3.0]
    text = train(photos, tmp_path / "run", epochs=2)
    assert text.count("the model waits for images 75% of the time: give it more --workers") == 1
    text = train(photos, tmp_path / "not_kept", epochs=2, cache_gib=0)
    assert text.count("the model waits for images 75% of the time: keep the decoded images in memory with a larger --cache-gib") == 1


@pytest.mark.slow
def test_a_model_that_waits_little_says_nothing(photos: Path, tmp_path: Path, pace: Pace) -> None:
    """A large share of a short while, then a small share of a long one."""
    pace.batch_s, pace.step_s = [0.3, 0.3, 1.0], [1.0, 1.0, 10.0]
    assert "waits for images" not in train(photos, tmp_path / "run", epochs=3)
    rows = json.loads((tmp_path / "run" / "record.json").read_text())["curve"]
    assert [row["data_wait_share"] for row in rows] == pytest.approx([0.3 / 1.3, 0.3 / 1.3, 1 / 11])
    assert [row["data_wait_s"] for row in rows] == pytest.approx([1.2, 2.4, 6.4])  # said from 10 % and 3 s


@pytest.fixture
def stopped(photos: Path, tmp_path: Path, pace: Pace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training that was stopped after 6 steps, each of which waited 3 s, and may go on."""
    out, pace.batch_s = tmp_path / "run", [3.0]
    stop_after(6, monkeypatch)
    with pytest.raises(convmix.ConvmixError, match="stopped after step 6"):
        train(photos, out, epochs=2)
    monkeypatch.setattr(loop, "_agreed_signal", lambda *_: 0)
    return out


@pytest.mark.slow
def test_the_wait_is_counted_over_a_resume(photos: Path, stopped: Path) -> None:
    train(photos, stopped, resume=True)
    record = json.loads((stopped / "record.json").read_text())
    assert record["data_wait_s"] == pytest.approx(2 * STEPS * 3.0)
    assert [row["data_wait_share"] for row in record["curve"]] == pytest.approx([0.75] * 2)


@pytest.mark.slow
def test_a_state_from_before_the_wait_was_counted_resumes(photos: Path, stopped: Path) -> None:
    state = stopped / "state" / "last.safetensors"
    with safe_open(state, framework="pt") as file:
        meta = json.loads(file.metadata()["state"])
    del meta["position"]["data_wait_s"]
    for row in meta["position"]["history"]:
        del row["data_wait_s"], row["data_wait_share"]
    save_file(load_file(state), state, metadata={"state": json.dumps(meta)})
    train(photos, stopped, resume=True)
    record = json.loads((stopped / "record.json").read_text())
    assert record["data_wait_s"] == pytest.approx(2 * 3.0)  # of the steps since
    assert len(record["curve"]) == 2


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_agreed_signal", lambda t, _: signal.SIGTERM if t.position.step == step else 0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every image that this process decodes for a batch."""
    real, count = preprocessing.decode, []

    def decode(source: str | bytes | Path, **how: Any) -> preprocessing.Image:
        count.append(1)
        return real(source, **how)

    for module in (preprocessing, training_transform):
        monkeypatch.setattr(module, "decode", decode)
    return count


@pytest.mark.slow
def test_a_training_decodes_each_image_once(photos: Path, tmp_path: Path, decoded: list[int]) -> None:
    train(photos, tmp_path / "kept", epochs=2)
    train_and_val, test_and_picture = 48 + 6, 6 + 6
    assert len(decoded) == train_and_val + test_and_picture
    decoded.clear()
    train(photos, tmp_path / "decoded", epochs=2, cache_gib=0)
    assert len(decoded) == 2 * train_and_val + test_and_picture


@pytest.mark.slow
def test_kept_images_change_no_weights(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(photos, tmp_path / "decoded", epochs=2, cache_gib=0)
    train(photos, tmp_path / "kept", epochs=2)
    train(photos, tmp_path / "workers", epochs=2, workers=2)
    with monkeypatch.context() as stopping:
        stop_after(6, stopping)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 6"):
            train(photos, tmp_path / "parts", epochs=2, workers=2)
    train(photos, tmp_path / "parts", resume=True)
    decoded, *kept = (load_file(tmp_path / run / "model.safetensors") for run in ("decoded", "kept", "workers", "parts"))
    for weights in kept:
        assert weights.keys() == decoded.keys()
        assert all(torch.equal(weights[name], decoded[name]) for name in decoded)
