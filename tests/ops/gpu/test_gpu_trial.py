"""Each kernel passes its own check, forward and with gradients, and a kernel that is wrong does not; on a card the clock is asked too."""

import logging
from dataclasses import asdict

import pytest
import torch
from gpu_images import EVERYTHING

from convmix.models.catalog import create_model
from convmix.ops.gpu import norm, trial
from convmix.ops.gpu.cases import Case
from convmix.ops.gpu.trial import Trials

SHAPE = (2, 3, 5, 6)
SETTINGS = {
    "depthwise": (3, True), "act_norm": ("GELU", True), "mix_space": (3, "GELU", True), "mix": (3, "RELU"), "multiply": (4, "GELU", True),
}  # fmt: skip
DTYPES = (torch.bfloat16, torch.float32, torch.float16) if EVERYTHING else (torch.bfloat16,)


@pytest.fixture
def trials(device, tmp_path, monkeypatch):
    """Checks of the real card or the interpreter, kept nowhere else, in which every kernel is fast enough."""
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path))
    return Trials(trial.identity(device), device, timer=lambda run: 1.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", SETTINGS)
def test_every_kernel_passes_its_check(kernel, dtype, trials):
    verdict = trials.examine(Case(kernel, SHAPE, dtype, SETTINGS[kernel]))
    assert verdict.trusted and 0 < verdict.error < verdict.bound, asdict(verdict)


def test_a_wrong_kernel_does_not(trials, monkeypatch):
    real = norm.gradient_sums
    monkeypatch.setattr(norm, "gradient_sums", lambda *args: (real(*args)[0], 1.5 * real(*args)[1]))
    verdict = trials.examine(Case("act_norm", SHAPE, torch.float32, ("RELU", False)))
    assert not verdict.trusted and "differs" in verdict.reason


def test_what_is_slow_is_left_to_pytorch_in_a_training_step(device, tmp_path, monkeypatch, caplog):
    """With the interpreter's own time, which is a thousand times PyTorch's; on a card the clock is made to say so."""
    monkeypatch.setenv("CONVMIX_KERNELS", "gpu")
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path))
    turns = iter([2.0, 1.0] * 100)
    made = Trials(trial.identity(device), device, timer=None if device.type == "cpu" else lambda run: next(turns))
    monkeypatch.setattr(trial, "trials", lambda kind, index: made)
    monkeypatch.setattr(trial, "ROUNDS", 1)
    model = create_model("convmixer_4_1_k3_p4", num_classes=2).to(device, memory_format=torch.channels_last)
    caplog.set_level(logging.WARNING, "convmix")
    for _ in range(2):
        model(torch.randn(1, 3, 8, 8, device=device)).sum().backward()
    lines = [record.getMessage() for record in caplog.records]
    assert {line.split()[2] for line in lines} == {"mix_space", "depthwise", "act_norm"} and len(lines) == len(set(lines))
    assert all("slower than PyTorch" in line for line in lines)
