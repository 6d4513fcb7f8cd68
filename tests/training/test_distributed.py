"""Two processes on one machine, through torchrun and gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convmix


@pytest.mark.slow
def test_two_processes_train_one_model_with_global_metrics(photos: Path, tmp_path: Path) -> None:
    """Without batch norm two halves of a batch give the gradients of the whole, so two processes equal one."""
    settings = {"model": "test_vit", "size": 32, "batch_size": 16, "epochs": 2, "workers": 0, "precision": "fp32", "optimizer": "sgd"}
    convmix.train(photos, out=tmp_path / "one", quiet=True, device="cpu", **settings)
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "convmix"]
    done = subprocess.run(
        [*run, "train", str(photos), "--out", str(tmp_path / "two"), "--device", "cpu", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/2") == 1  # one process speaks
    one, two = (json.loads((tmp_path / n / "convmix.json").read_text()) for n in ("one", "two"))
    assert two["training"]["processes"] == 2
    for split in ("val", "test"):
        assert two["metrics"][split]["n"] == one["metrics"][split]["n"]
        assert two["metrics"][split]["loss"] == pytest.approx(one["metrics"][split]["loss"], rel=1e-3)
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)
