"""CONVMIX_KERNELS takes four values, and any other is one sentence."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from convmix.benchmarking import measure
from convmix.cli import main
from convmix.config import Run
from convmix.errors import ConfigError
from convmix.ops import build, switch
from convmix.ops.gpu import routes
from convmix.training import session


@pytest.mark.parametrize(("said", "meant"), [(None, "on"), ("", "on"), *((choice, choice) for choice in switch.CHOICES)])
def test_what_it_says_is_taken(said, meant, monkeypatch):
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)
    if said is not None:
        monkeypatch.setenv("CONVMIX_KERNELS", said)
    assert switch.kernels() == meant


def test_another_value_is_refused_wherever_it_is_read(monkeypatch, capsys):
    monkeypatch.setenv("CONVMIX_KERNELS", "gpus")
    for reads in (switch.kernels, lambda: routes.route_for("cuda"), lambda: build.library.__wrapped__("depthwise")):
        with pytest.raises(ConfigError, match="CONVMIX_KERNELS: gpus is not one of on, gpu, triton, off, did you mean gpu"):
            reads()
    with pytest.raises(SystemExit) as stop:
        main(["models"])
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.startswith("error: CONVMIX_KERNELS: gpus") and not said.out


@pytest.mark.parametrize(
    ("asked", "interpreted", "goes"), [("on", "1", False), ("gpu", "1", True), ("triton", "1", True), ("gpu", "0", False)]
)
def test_cpu_tensors_go_to_triton_through_its_interpreter_alone(asked, interpreted, goes, monkeypatch):
    pytest.importorskip("triton")
    from convmix.ops.gpu import convolution, correlation, moments, norm, pointwise  # noqa: F401 - compiled ones for this process's later tests

    monkeypatch.setenv("CONVMIX_KERNELS", asked)
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    assert routes.route_for("cpu") is goes


@pytest.fixture
def card(monkeypatch):
    """A card as far as PyTorch says so; nothing can be computed on it."""
    pytest.importorskip("triton")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "NVIDIA Test")


@pytest.mark.parametrize(("asked", "goes"), [("on", False), ("gpu", True), ("triton", True), ("off", False)])
def test_on_an_unmeasured_card_the_kernels_are_off_unless_they_are_asked_for(asked, goes, card, monkeypatch):
    monkeypatch.setenv("CONVMIX_KERNELS", asked)
    assert routes.route_for("cuda") is goes
    assert ("unmeasured on NVIDIA Test" in (routes.said("cuda") or "")) is (asked != "off")


def test_confirmed_kernels_are_on_by_default(card, monkeypatch):
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)
    monkeypatch.setattr(routes, "confirmed", lambda name: frozenset({"mix"} if name == "NVIDIA Test" else ()))
    assert routes.route_for("cuda")
    said = routes.said("cuda")
    assert said and "confirmed on NVIDIA Test: mix" in said and "unmeasured" not in said


def test_an_older_card_has_no_kernels(card, monkeypatch):
    monkeypatch.setenv("CONVMIX_KERNELS", "gpu")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (7, 5))
    assert not routes.route_for("cuda") and routes.said("cuda") is None


def test_a_training_and_a_benchmark_say_it(monkeypatch):
    monkeypatch.setattr(routes, "said", lambda device_type: f"GPU kernels: unmeasured on {device_type}")
    monkeypatch.setattr(build, "said", lambda device_type: f"C kernels: not used on {device_type}")
    lines: list[str] = []
    job = SimpleNamespace(
        spec="photos", task=SimpleNamespace(labels=["a", "b"]), data={"counts": {"train": 2}, "bad": 0}, notes=[], model=nn.Linear(1, 1),
        run=Run(), preprocess=SimpleNamespace(size=(8, 8)), out="runs/photos",
    )  # fmt: skip
    session._say_what(
        SimpleNamespace(
            job=job,
            position=SimpleNamespace(step=0),
            log=SimpleNamespace(say=lines.append),
            precision="fp32",
            accelerator=SimpleNamespace(device=torch.device("cpu")),
            tuning=SimpleNamespace(trials=[]),
            unlabelled=None,
        )
    )
    assert "GPU kernels: unmeasured on cpu" in lines and "C kernels: not used on cpu" in lines

    def stop(*_):
        raise ConfigError("far enough")

    monkeypatch.setattr(measure, "measure_rates", stop)
    console = Console(file=io.StringIO())
    with pytest.raises(ConfigError, match="far enough"):
        measure.benchmark(["convmixer_8_1_k3_p4"], size=8, device="cpu", console=console)
    printed = console.file.getvalue()
    assert "GPU kernels: unmeasured on cpu" in printed and "C kernels: not used on cpu" in printed
    assert printed.startswith("Processor: ")
