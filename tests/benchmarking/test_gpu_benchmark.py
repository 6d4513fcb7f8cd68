"""The benchmark for GPUs runs from end to end on the CPU, catches wrong lanes, and keeps what it has when it is cut short."""

import copy
import functools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402
import gpu_lanes  # noqa: E402
import gpu_tables  # noqa: E402
import tables  # noqa: E402

EAGER = ["--lanes", "eager NCHW", "eager channels_last", "convmix", "convmix, folded"]
REHEARSAL = ["--device", "cpu", "--rehearse", "--no-tests", "--rounds", "2", "--models", "convmixer_16_2_k5_p4"]


@pytest.fixture(autouse=True, scope="module")
def settings() -> Iterator[None]:
    """The command is a process of its own and sets torch up as it likes."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch._dynamo.config.recompile_limit
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # that it starts tests with, whose imports take longer than they do
        yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch._dynamo.config.recompile_limit = before


def run(out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    status = gpu.main([*REHEARSAL, "--output", str(out), *more])
    return status, json.loads((out / "gpu.json").read_text())


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of both kinds of work on every lane without a compiler; read only."""
    folder = tmp_path_factory.mktemp("rehearsal")
    status, record = run(folder, *EAGER)
    assert status == 0
    return folder, record


@pytest.mark.slow
def test_a_rehearsal_measures_every_lane(rehearsed: tuple[Path, dict[str, Any]]) -> None:
    _, record = rehearsed
    assert record["finished"] and not record["left_out"]
    assert {(work["work"]["kind"], len(work["lanes"])) for work in record["works"]} == {("inference", 3), ("training", 3)}
    for work in record["works"]:
        for lane in work["lanes"]:
            assert lane["failed"] is None and len(lane["ms"]) == 2 and 0 < lane["error"] < 0.1
            assert lane["images_per_s"] == pytest.approx(4000 / lane["median_ms"])
    assert record["rates"]["matrix"] > 0 and record["rates"]["memory"] > 0


@pytest.mark.slow
def test_a_rehearsal_with_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))  # a graph, but no code for it
    status, record = run(tmp_path, "--lanes", "compile channels_last", "convmix, compile", "--lane-seconds", "300", "--kinds", "training")
    (work,) = record["works"]
    assert status == 0 and [lane["failed"] for lane in work["lanes"]] == [None, None]


@pytest.mark.slow
def test_a_rehearsal_of_convmlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.REHEARSED, "convmlp_t", (32, 10, {"inference": 1, "training": 1}))  # bf16 without instructions for it is slow
    out = ["--device", "cpu", "--rehearse", "--no-tests", "--rounds", "1", "--models", "convmlp_t", "--output", str(tmp_path)]
    assert gpu.main([*out, *EAGER]) == 0
    assert len(json.loads((tmp_path / "gpu.json").read_text())["works"]) == 2


class Wrong(nn.Module):
    """A network in which one channel of one depthwise convolution is a little too large."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.model.get_submodule("blocks.0.0.fn.0").weight
        with torch.no_grad():
            kernel[0] *= 1.5
            out = self.model(x)
            kernel[0] /= 1.5
        return out


def test_a_wrong_answer_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu_lanes.build
    monkeypatch.setattr(gpu_lanes, "build", lambda plan, model, example: real(gpu_lanes.EnginePlan(), Wrong(model), example))
    status, record = run(tmp_path, *EAGER, "--kinds", "inference")
    lanes = {lane["name"]: lane for lane in record["works"][0]["lanes"]}
    assert status == 1 and lanes["convmix, folded"]["failed"].startswith("WRONG: the error is")
    assert "median_ms" not in lanes["convmix, folded"] and "median_ms" in lanes["eager NCHW"]


def test_a_wrong_gradient_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu_lanes.create_model

    def create(*args: Any, **kwargs: Any) -> nn.Module:
        model = real(*args, **kwargs)
        for block in model.blocks.children():  # type: ignore[union-attr,operator]
            block.get_submodule("0.fn.0").weight.register_hook(lambda g: 1.02 * g)  # lost with a copy of the plain module
        return model

    monkeypatch.setattr(gpu_lanes, "create_model", create)
    monkeypatch.setattr(gpu_lanes.copy, "deepcopy", lambda model: model)
    course = gpu_lanes.Course(gpu_lanes.GpuWork("convmixer_16_2_k5_p4", "training", 4, 32, 10, "cpu"))
    ours = next(lane for lane in gpu_lanes.lanes("training", "cpu") if lane.name == "convmix")
    with pytest.raises(gpu_lanes.CheckFailedError, match=r"the limit 5\.0e-03"):
        course.start(ours, seconds=60)


def test_unwritten_answers_are_caught(tmp_path: Path) -> None:
    course = gpu_lanes.Course(gpu_lanes.GpuWork("convmixer_16_2_k5_p4", "inference", 4, 32, 10, "cpu"))
    out = course.reference.clone()
    assert course._judge(out, gpu_lanes.LOGITS_LIMIT) == 0
    out[2, 3] = torch.nan
    with pytest.raises(gpu_lanes.CheckFailedError):
        course._judge(out, gpu_lanes.LOGITS_LIMIT)


def test_a_lane_that_takes_too_long_is_left_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> None:
        signal.raise_signal(signal.SIGALRM)  # as the lane's timer does, whenever that is
        pytest.fail("the lane went on")

    monkeypatch.setattr(gpu_lanes, "build", endless)
    status, record = run(tmp_path, *EAGER, "--kinds", "inference", "--lane-seconds", "300")
    assert status == 0 and record["finished"]
    lanes = {lane["name"]: lane for lane in record["works"][0]["lanes"]}
    assert lanes.pop("convmix, folded")["failed"] == "TooSlowError: not ready after 300 s"
    assert len(lanes) == 2 and all(lane["failed"] is None and len(lane["ms"]) == 2 for lane in lanes.values())
    with pytest.raises(gpu_lanes.TooSlowError, match="not ready after"), gpu_lanes._within(0.05):
        while True:
            pass


def test_what_does_not_fit_into_the_budget_is_named(tmp_path: Path) -> None:
    status, record = run(tmp_path, *EAGER, "--budget", "1")
    assert record["left_out"] == ["convmixer_16_2_k5_p4 inference", "convmixer_16_2_k5_p4 training"] and not record["works"]
    assert status == 0 and record["finished"]


def test_the_file_holds_the_lanes_measured_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(course: Any, running: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_lanes.Course, "turn", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *EAGER, "--kinds", "inference")
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert len(record["works"][0]["lanes"]) == 3 and not record["finished"]


@pytest.mark.slow
def test_a_failed_test_of_the_kernels_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests/ops").mkdir(parents=True)
    (tmp_path / "tests/ops/test_gpu_broken.py").write_text("def test_it():\n    assert False\n")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    words = [word for word in REHEARSAL if word != "--no-tests"]
    assert gpu.main([*words, "--output", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["checks"].startswith("FAILED tests/ops/test_gpu_broken.py::test_it") or "1 failed" in record["checks"]
    assert not record["works"] and not record["finished"]


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script of these lines into the place of compute-sanitizer, in a repository whose kernels have one test."""
    (tmp_path / "tests/ops").mkdir(parents=True)
    (tmp_path / "tests/ops/test_gpu_interpreted.py").write_text("def test_it():\n    pass\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)

    def put(lines: str) -> None:
        (tmp_path / "compute-sanitizer").write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / "compute-sanitizer").chmod(0o755)

    return put


def test_what_the_sanitizer_says_is_passed_on(sanitizer: Callable[[str], None]) -> None:
    sanitizer("echo ERROR SUMMARY: 0 errors")
    assert gpu.sanitized("cpu", timeout_s=60) == "ERROR SUMMARY: 0 errors"
    sanitizer('test "$1 $2 $3 $4" = "--tool memcheck --error-exitcode 9" && exec sleep 60')
    assert gpu.sanitized("cpu", timeout_s=0.2) == "stopped after 0 s without an answer"


@pytest.mark.slow
def test_a_check_runs_the_tests_and_the_sanitizer_and_stops(
    sanitizer: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sanitizer("echo bad; exit 9")
    monkeypatch.setattr(gpu, "ceilings", None)  # would raise: nothing is measured
    assert gpu.main(["--device", "cpu", "--check", "--output", str(tmp_path)]) == 1
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["checks"].startswith("1 passed") and record["sanitizer"] == "FAILED with status 9: bad"
    assert record["finished"] and not record["works"]


@pytest.mark.slow
def test_a_check_on_the_cpu_runs_the_kernels_through_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel, in the place of the file that `test_gpu_interpreted.py` runs there; that runs the file itself."""
    pytest.importorskip("triton")
    ours, folder = ROOT / "tests" / "ops", tmp_path / "tests" / "ops"
    (folder / "gpu").mkdir(parents=True)
    shutil.copy(ours / "test_gpu_interpreted.py", folder)
    shutil.copy(ours / "gpu" / "conftest.py", folder / "gpu")
    (folder / "gpu" / "test_gpu_norm.py").write_text(ONE_KERNEL)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert gpu.main(["--device", "cpu", "--check", "--output", str(tmp_path)]) == 0
    assert re.match(r"1 passed", json.loads((tmp_path / "gpu.json").read_text())["checks"])
    assert (tmp_path / "ran").read_text() == "few"


ONE_KERNEL = """
import os
from pathlib import Path
import torch
import convmix.ops.act_norm
from convmix.ops.gpu.cases import Case
from convmix.ops.gpu import trial

def test_it(device):
    made = trial.Trials(trial.identity(device), device, timer=lambda run: 1.0)
    assert made.examine(Case("act_norm", (2, 3, 5, 6), torch.float32, ("RELU", False))).trusted
    Path("ran").write_text(os.environ["CONVMIX_TEST_KERNELS"])
"""


@pytest.mark.slow
def test_tables_say_what_the_records_say(rehearsed: tuple[Path, dict[str, Any]]) -> None:
    folder, found = rehearsed
    assert gpu_tables.read_gpu(folder) == []  # a rehearsal is no result
    assert "**Unmeasured**" in gpu_tables.section([], tables.table)
    record = copy.deepcopy(found) | {"rehearsal": False}
    record["works"][0]["lanes"].append({"name": "compile NCHW", "role": "peer", "plan": "", "failed": "no compiler"})
    text = gpu_tables.section([record], tables.table)
    assert "no compiler" in text and "### convmixer_16_2_k5_p4 on a GPU: training, batch 4, 32 x 32" in text
    work = record["works"][0]
    peer, ours = gpu_tables.best(work, "peer"), gpu_tables.best(work, "ours")
    assert peer and ours and f"**{ours['images_per_s'] / peer['images_per_s']:.2f}**" in gpu_tables.summary([record], tables.table)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("kind", ["inference", "training"])
def test_lanes_are_the_four_of_timm_and_ours_first(kind: gpu_lanes.Kind, device: str) -> None:
    lanes = gpu_lanes.lanes(kind, device)
    peers = [lane for lane in lanes if lane.role == "peer"]
    assert lanes[-4:] == peers and {str(lane.plan) for lane in peers} == {
        "eager autocast", "eager autocast channels_last", "compile autocast", "compile autocast channels_last",
    }  # fmt: skip
    kernels = {"cuda": ["triton bf16", "triton bf16 graph"], "cpu": ["native bf16"]}[device] if kind == "inference" else []
    assert [str(lane.plan) for lane in lanes if "kernels" in lane.name] == kernels


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SystemExit, match="no work for convmixer_9"):
        gpu.main(["--device", "cpu", "--rehearse", "--no-tests", "--models", "convmixer_9", "--output", "/nonexistent-is-never-written"])
