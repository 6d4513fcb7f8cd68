"""Two processes on one machine, through torchrun and gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convmix

SETTINGS = {"size": 32, "batch_size": 16, "epochs": 2, "workers": 0, "precision": "fp32", "optimizer": "sgd", "lr": 0.01}


def torchrun(data: Path, out: Path, **settings: object) -> str:
    """What two processes print while they train one model."""
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "convmix"]
    done = subprocess.run(
        [*run, "train", str(data), "--out", str(out), "--device", "cpu", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_does(photos: Path, tmp_path: Path) -> None:
    """Without batch norm the gradients of two halves of a batch average to those of the whole."""
    settings = {**SETTINGS, "model": "test_vit", "val_fraction": 0.25}
    convmix.train(photos, out=tmp_path / "one", quiet=True, device="cpu", **settings)
    said = torchrun(photos, tmp_path / "two", **settings)
    assert said.count("epoch 1/2") == 1  # one process speaks
    assert said.count("test accuracy") == 1
    one, two = (json.loads((tmp_path / n / "convmix.json").read_text()) for n in ("one", "two"))
    assert two["training"]["processes"] == 2
    for split in ("val", "test"):
        assert two["metrics"][split]["n"] == one["metrics"][split]["n"]
        assert two["metrics"][split]["loss"] == pytest.approx(one["metrics"][split]["loss"], rel=1e-3)
    assert two["calibration"]["n"] == one["calibration"]["n"] == 15
    assert two["calibration"]["temperature"] == pytest.approx(one["calibration"]["temperature"], rel=1e-2)
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_metrics_are_those_of_the_model_that_is_written(photos: Path, tmp_path: Path) -> None:
    """Each process's batch norms see their own part of the batch; what is judged and written is the main process's model."""
    torchrun(photos, tmp_path / "run", **{**SETTINGS, "model": "convmixer_16_2_k3_p4"})
    recorded = json.loads((tmp_path / "run" / "convmix.json").read_text())["metrics"]
    for split in ("val", "test"):
        again = convmix.evaluate(tmp_path / "run", split=split, precision="fp32", device="cpu").metrics
        assert (again["n"], again["correct"]) == (recorded[split]["n"], recorded[split]["correct"])
        assert again["loss"] == pytest.approx(recorded[split]["loss"], rel=1e-5)
