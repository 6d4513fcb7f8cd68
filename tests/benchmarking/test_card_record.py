"""The record of a card: what is in it, what is not, and what is said where there is no card."""

import getpass
import io
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from convmix.benchmarking import card_record
from convmix.cli import main
from convmix.ops.gpu import routes
from convmix.ops.gpu.card import Card
from convmix.ops.gpu.cases import KERNELS, Case, Pair, pair, published
from convmix.ops.gpu.trial import Trials

CARD = Card("NVIDIA H200", "570.1", "2.14", "3.7", "0123")


def sides(case: Case) -> Pair:
    """PyTorch beside itself, but for a product that breaks."""
    real = pair(case)

    def broken(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"{Path.home()}/{getpass.getuser()} on {socket.gethostname()}")

    return replace(real, ours=broken if case.kernel == "multiply" else real.pytorch)


def few() -> list[Case]:
    """One small case of each kernel."""
    return [
        replace(case, shape=(2, 4, 8, 8), settings=(4, *case.settings[1:]) if case.kernel == "multiply" else case.settings)
        for case in list(published())[:6]
    ]


def test_a_record_holds_the_card_and_its_checks_and_names_nobody(tmp_path, monkeypatch):
    times = iter([1.0, 2.0] * 100)
    trials = Trials(CARD, torch.device("cpu"), timer=lambda run: next(times), sides=sides)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr(routes, "can_run", lambda device_type: True)
    monkeypatch.setattr(card_record, "trials", lambda kind, index: trials)
    monkeypatch.setattr(card_record, "published", few)
    monkeypatch.setenv("CONVMIX_KERNELS", "off")
    for variable in ("LOGNAME", "USER", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(variable, "nameofthehost" if variable == "HOSTNAME" else "nameoftheuser")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr("socket.gethostname", lambda: "nameofthehost")
    monkeypatch.setattr("platform.node", lambda: "nameofthehost")
    console = Console(file=io.StringIO(), width=400)
    path = card_record.share(tmp_path / "out", device="cuda", console=console)
    text, said = path.read_text(), console.file.getvalue()
    record = json.loads(text)
    assert record["card"] == {"name": "NVIDIA H200", "driver": "570.1", "torch": "2.14", "triton": "3.7", "kernels": "0123"}
    assert {check["kernel"] for check in record["checks"]} == set(KERNELS) and len(record["checks"]) == 6
    good = [check for check in record["checks"] if check["trusted"]]
    assert len(good) == 5 and all((check["ours_ms"], check["pytorch_ms"]) == (1.0, 2.0) for check in good)
    assert [check["reason"] for check in record["checks"] if not check["trusted"]] == ["fails with RuntimeError"]
    assert record["processor"] and record["versions"]["torch"]
    for name in ("nameoftheuser", "nameofthehost", "somebody", str(tmp_path), str(Path.cwd())):
        assert name not in text
    assert f"{path}: card, driver" in said and "5 equal to PyTorch and not slower" in said
    assert os.environ["CONVMIX_KERNELS"] == "off"  # as before


def test_the_kernels_are_on_while_they_are_measured(monkeypatch):
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)
    with card_record._kernels_on():
        assert os.environ["CONVMIX_KERNELS"] == "triton"
    assert "CONVMIX_KERNELS" not in os.environ


def test_the_published_shapes_are_asked_of_every_kernel():
    cases = list(published())
    assert len({case.key for case in cases}) == len(cases) == 24
    assert {case.kernel for case in cases} == set(KERNELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--share measures the GPU kernels on a CUDA card, and PyTorch sees none on this machine"),
        (["--device", "cuda"], "PyTorch sees none on this machine"),
        (["--device", "cpu"], "device: cpu has no GPU kernels"),
        (["convmlp_s"], "--share measures the GPU kernels and takes no models, got convmlp_s"),
    ],
)
def test_without_a_card_it_is_one_sentence(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *arguments, "--share"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_an_old_card_is_said_so(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "NVIDIA T4")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(SystemExit):
        main(["benchmark", "--share"])
    assert "compute capability 8.0, NVIDIA T4 here has 7.5" in capsys.readouterr().err
