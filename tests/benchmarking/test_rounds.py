"""Races of tiny models: everyone computes the same, failures are reasons, and nobody is left behind."""

import dataclasses
import json
import multiprocessing
import os
import signal

import pytest
import torch
from rich.console import Console

import convmix
from convmix.benchmarking import measure, roofline
from convmix.benchmarking import rounds as race_module
from convmix.benchmarking.process import plain
from convmix.benchmarking.rounds import race
from convmix.benchmarking.work import Implementation, Work, contenders, sweep
from convmix.cli import main
from convmix.errors import ConvmixError
from convmix.models.catalog import create_model
from convmix.models.layers import DepthwiseConv2d
from convmix.speed.backends import EnginePlan

TINY = "convmixer_8_2_k3_p4"


def work(kind: str = "inference", model: str = TINY, **changes: object) -> Work:
    values = {"batch_size": 2, "height": 16, "width": 16, "num_classes": 3, "device": "cpu", "threads": 1, "precision": "exact"}
    return Work(**{"model": model, "kind": kind, "budget_s": 1.0, **values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def prepared_processes(monkeypatch):
    """Contenders forked from a process that has imported torch and computed nothing; the product starts each afresh, as
    `test_a_process_that_dies_is_left_out` does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["convmix.benchmarking.process"])
    monkeypatch.setattr(race_module.multiprocessing, "get_context", lambda method: context)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # timm's way
@pytest.mark.parametrize("name", [TINY, "convmixer_8_1_k4_p2_relu", "convmlp_s", "multiscale_convmixer_t"])
def test_the_plain_module_is_the_same_architecture_without_our_operator(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    official = plain(model)
    assert not any(isinstance(m, DepthwiseConv2d) for m in official.modules())
    torch.testing.assert_close(official(x), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_processes")
def test_everyone_computes_the_same_and_a_failure_is_a_reason():
    runners = [
        Implementation("official path", "official", EnginePlan()),
        Implementation("channels_last", "peer", EnginePlan(layout="nhwc")),
        Implementation("impossible", "peer", EnginePlan("openvino", streams=7)),  # two images cannot be shared by seven
        Implementation("ours", "ours", EnginePlan("native")),
    ]
    said: list[str] = []
    result = race(work(), runners, rounds=3, say=said.append)
    official, peer, impossible, ours = result.lanes
    assert [len(lane.ms) for lane in result.lanes] == [3, 3, 0, 3]
    assert all(ms > 0 for lane in (official, peer, ours) for ms in lane.ms)
    assert official.difference == 0 and peer.difference < 1e-5 and 0 < ours.difference < 1e-5
    assert "batches of 2" in impossible.failed or "not installed" in impossible.failed
    assert all(lane.memory_mib is not None and 0 <= lane.memory_mib < 2000 for lane in (official, peer, ours))
    assert len(said) == 4
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_processes")
def test_training_takes_the_same_first_step():
    found = race(work("training"), contenders(work("training"), in_sweep=True), rounds=2, say=lambda _: None)
    assert {lane.contender.role for lane in found.lanes} == {"official", "peer", "ours"}
    assert all(lane.failed is None and lane.difference < 1e-4 for lane in found.lanes)


@pytest.mark.slow
def test_a_process_that_dies_is_left_out(monkeypatch):
    answer = race_module._Runner.answer

    def dying(self, word):
        if word == "run" and self.contender.role == "peer":
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
        return answer(self, word)

    monkeypatch.setattr(race_module._Runner, "answer", dying)
    runners = [Implementation("a", "official", EnginePlan()), Implementation("b", "peer", EnginePlan())]
    result = race(work(), runners, rounds=2, say=lambda _: None)
    assert result.lanes[0].failed is None and len(result.lanes[0].ms) == 2
    assert result.lanes[1].failed == "its process ended with exit code -9 (out of memory?)"


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_processes")
def test_the_command_writes_records_and_pictures(tmp_path, capsys, monkeypatch):
    quick = [Implementation("convmix", "ours"), *contenders(work(), in_sweep=True)]  # the engines themselves: tests/speed
    monkeypatch.setattr("convmix.benchmarking.measure.contenders", lambda *_, **__: quick)
    monkeypatch.setattr(roofline, "SIDE", 256)
    monkeypatch.setattr(roofline, "COPIED", 2**22)
    (made,) = convmix.benchmark(
        [TINY], size=16, batch_size=1, num_classes=3, precision="exact", rounds=2, threads=1, device="cpu", budget="1s", output=tmp_path
    )
    (record,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert record == json.loads(json.dumps(made))
    assert record["ours"] and record["best_peer"] and record["work"]["model"] == TINY
    assert {lane["role"] for lane in record["lanes"]} == {"official", "peer", "ours"}
    (picture,) = tmp_path.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    (page,) = tmp_path.glob("*.html")
    assert page.stem == picture.stem and "images per second" in page.read_text() and record["ours"] in page.read_text()
    assert capsys.readouterr().out == ""


def test_latency_is_of_one_image_on_one_thread_and_has_files_of_its_own(monkeypatch):
    measured: list[Work] = []

    def stop(work, *_, **__):
        measured.append(work)
        if len(measured) < 2:
            return {"lanes": []}
        raise ConvmixError("far enough")

    monkeypatch.setattr(measure, "_measure", stop)
    monkeypatch.setattr(measure, "table", lambda _: "")
    monkeypatch.setattr(measure, "summary", lambda _: "")
    monkeypatch.setattr(measure, "_rates", lambda *_: None)
    with pytest.raises(ConvmixError, match="far enough"):
        convmix.benchmark([TINY], size=16, work="inference,latency", batch_size=4, threads=None, device="cpu")
    inference, latency = measured
    assert (inference.batch_size, latency.batch_size, latency.threads) == (4, 1, 1)
    assert measure.name_of(latency) == f"{TINY}-latency-b1-16-{latency.precision}-cpu"
    assert [c.name for c in contenders(latency)] == [c.name for c in contenders(dataclasses.replace(latency, kind="inference"))]


def test_exact_races_have_float32_alone():
    plans = [c.plan for kind in ("inference", "training") for c in contenders(work(kind)) if c.plan]
    assert {plan.dtype for plan in plans} == {"fp32"}
    lower = {c.plan.dtype for c in contenders(work(precision="int8")) if c.plan and c.plan.backend == "openvino"}
    assert lower == {"bf16", "int8"}


def test_our_kernels_take_part_where_there_are_some():
    for model in (TINY, "convmlp_s"):
        assert any(c.plan and c.plan.backend == "native" for c in contenders(work(model=model)))
    assert not any(c.plan and c.plan.backend == "native" for c in contenders(work(model="resnet18")))
    assert contenders(work(model="resnet18"))[-1] == Implementation("convmix", "ours")


@pytest.mark.parametrize(
    ("over", "names"),
    [
        ("depth", ["convmixer_8_2_k3_p4_relu", "convmixer_8_4_k3_p4_relu"]),
        ("kernel", ["convmixer_8_2_k3_p4_relu", "convmixer_8_2_k5_p4_relu"]),
    ],
)
def test_a_sweep_changes_one_thing(over, names):
    points = sweep(work(model="convmixer_8_2_k3_p4_relu"), over)
    assert [point.model for _, point in points][:2] == names
    assert [(value, point.batch_size) for value, point in sweep(work(), "batch")][:3] == [(1, 1), (2, 2), (4, 4)]
    assert all(value == point.height == point.width for value, point in sweep(work(), "resolution"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["convmixer_256_9"]}, "convmixer_256_8"),
        ({"work": "trainig"}, "did you mean training"),
        ({"precision": "int9"}, "did you mean int8"),
        ({"precision": "int8", "work": "training"}, "int8 exists for inference"),
        ({"rounds": 0}, "rounds: 0"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"threads": 0}, "threads: 0"),
        ({"device": "gpu"}, "device: gpu"),
        ({"size": 2}, "2x2"),
        ({"sweep": "dept"}, "did you mean depth"),
        ({"sweep": "batch", "work": "latency"}, "one image at a time"),
        ({"sweep": "depth", "models": ["convmlp_s"]}, "not in convmlp_s"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(arguments, message, monkeypatch):
    monkeypatch.setattr("convmix.benchmarking.measure.race", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("convmix.benchmarking.measure.measure_rates", lambda *_: pytest.fail("measured"))
    with pytest.raises(ConvmixError, match=message):
        convmix.benchmark(**{"models": [TINY], "console": Console(quiet=True), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "benchmark needs the name of a model"),
        (["convmixer_256_8", "--rounds", "0"], "rounds: 0"),
        (["convmixer_256_8", "--budget", "x"], "x"),
    ],
)
def test_the_command_says_mistakes_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and message in error and len(error.splitlines()) == 1
