"""Training from images that the device keeps and changes: resumed bit by bit, refused with a reason, and not taken on a CPU by itself."""

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import convmix
from convmix.training import loop
from convmix.training.session import train_session
from tests.made_once import MadeOnce
from tests.tiny_run import write_image

SETTINGS = {
    "model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 12, "precision": "fp32", "workers": 0, "epochs": 2, "hflip": 0.5,
    "scale": "0.5,1", "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.3, "mixup": 0.4, "cutmix": 0.4, "augment_on": "device",
}  # fmt: skip


def train(photos: Path, out: Path, *, resume: bool = False, **settings: Any) -> dict[str, torch.Tensor]:
    console = Console(file=io.StringIO())
    overrides = {} if resume else {**SETTINGS, **settings}
    train_session(str(photos), recipe=None, overrides=overrides, out=out, resume=resume, console=console, device="cpu")
    return load_file(out / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def by_workers(photos: Path, made_once: MadeOnce) -> dict[str, torch.Tensor]:
    """What is learned from images that the loader's workers changed."""
    return load_file(made_once("augmented_by_workers", lambda out: train(photos, out, augment_on="workers")) / "model.safetensors")


@pytest.mark.slow
def test_a_resumed_training_equals_the_uninterrupted_one(
    photos: Path, tmp_path: Path, by_workers: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(photos, tmp_path / "whole")
    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "_agreed_signal", lambda t, _: signal.SIGTERM if t.position.step == 6 else 0)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 6"):
            train(photos, tmp_path / "parts")
    assert same(train(photos, tmp_path / "parts", resume=True), whole)
    assert not same(by_workers, whole)


@pytest.mark.slow
def test_on_a_cpu_the_workers_do_it(
    photos: Path, tmp_path: Path, by_workers: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "resident_batches", None)  # would raise
    assert same(train(photos, tmp_path / "auto", augment_on="auto"), by_workers)


@pytest.mark.slow
def test_a_linearly_separable_set_is_learned(photos: Path, tmp_path: Path) -> None:
    train(photos, tmp_path / "run", epochs=12, randaugment="torchvision-n1-m5", mixup=0, cutmix=0)
    assert json.loads((tmp_path / "run" / "record.json").read_text())["test"]["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"cache_gib": 0}, "too many to keep"),
        ({"fit": "letterbox"}, "no letterbox"),
        ({"randaugment": "rand-m9-t3a"}, "GaussianBlur"),
    ],
)
def test_what_cannot_be_done_there_is_refused(photos: Path, tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(convmix.ConvmixError, match=reason):
        train(photos, tmp_path / "run", **settings)


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    for c in range(2):
        for i in range(12):
            write_image(tmp_path / f"photos/{c}/{i}.png", 100 * c + i, size=(24, 24 + i % 2))
    with pytest.raises(convmix.ConvmixError, match="images of one size"):
        train(tmp_path / "photos", tmp_path / "run")
