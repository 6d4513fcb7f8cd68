"""What was found for a training: how its steps compute, what is said and written of it, and that a resumed one goes on with it."""

import io
import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import convmix
from convmix.config import Run
from convmix.documents import checked
from convmix.errors import ConfigError
from convmix.training import autotune, loop, session
from convmix.training.autotune import Tuned, Tuning, TuningTrial
from tests.training.test_distributed import train_twice
from tests.training.test_resume import SETTINGS, same_bits
from tests.two_processes import Pair

FP32, BF16 = Tuned("nhwc", "fp32"), Tuned("nhwc", "bf16")
SMALL = {"model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 12, "precision": "fp32", "workers": 0}


def choose(monkeypatch: pytest.MonkeyPatch, found: Tuning) -> list[dict[str, object]]:
    """Trainings that begin find this; returns what each asked for."""
    asked: list[dict[str, object]] = []

    def tune(model: nn.Module, run: Run, **arguments: object) -> Tuning:
        asked.append(arguments)
        return found

    monkeypatch.setattr(session, "tune", tune)
    return asked


def watch_steps(monkeypatch: pytest.MonkeyPatch, *, stop_after: int | None = None) -> list[loop.Training]:
    """Every training whose steps are taken, in the end; the signal that ends one comes after a step."""
    real, seen = loop.train_step, []

    def step(t: loop.Training, batch: object) -> None:
        real(t, batch)
        seen[:] = [*(s for s in seen if s is not t), t]
        if t.position.step == stop_after:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "train_step", step)
    return seen


@pytest.mark.slow
def test_a_training_computes_as_was_found_and_says_so(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Tuned("nhwc", "fp32")
    found = Tuning(replace(usual, layout="nchw"), (TuningTrial(usual, 20.0, "slower"), TuningTrial(replace(usual, layout="nchw"), 12.0)))
    asked, seen = choose(monkeypatch, found), watch_steps(monkeypatch)
    out, console = tmp_path / "run", Console(file=io.StringIO(), width=200)
    overrides = {**SMALL, "epochs": 2, "budget": "1h", "accumulate": 2}
    session.train_session(str(photos), recipe=None, overrides=overrides, out=out, resume=False, console=console, device="cpu")
    assert "training in fp32, nchw: 12 ms a step; channels_last 20 ms" in console.file.getvalue()
    [arguments] = asked
    assert (arguments["images"], len(arguments["targets"]()), arguments["steps"], arguments["processes"]) == ((3, 24, 24), 12, 2 * 4, 1)
    assert 3000 < arguments["left_s"] < 3600  # the budget counts from the start, which was less than ten minutes ago
    [t] = seen
    assert not t.raw_model.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert t.raw_model.stem[0].weight.is_contiguous()
    assert json.loads((out / "convmix.json").read_text())["training"]["tuning"] == json.loads(json.dumps(asdict(found)))
    assert checked(json.loads((out / "state" / "job.json").read_text())["tuning"], Tuning, where="tuning") == found
    machine = json.loads((out / "record.json").read_text())["machine"]
    assert {k: machine[k] for k in ("layout", "precision", "compile")} == {"layout": "nchw", "precision": "fp32", "compile": False}


@pytest.mark.parametrize("settings", [{}, {"tune": "never"}], ids=["short", "never"])
def test_untuned_trainings_keep_the_default(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    seen = watch_steps(monkeypatch)
    monkeypatch.setattr(autotune, "step_seconds", pytest.fail)
    convmix.train(photos, out=tmp_path / "run", quiet=True, device="cpu", **{**SMALL, "epochs": 1, **settings})
    [t] = seen
    assert t.tuning == Tuning(FP32)
    assert t.compiled is None
    assert t.raw_model.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("how", "dtype"), [(BF16, torch.bfloat16), (FP32, torch.float32)], ids=["bf16", "fp32"])
def test_steps_compute_in_the_number_type_that_was_found(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Tuned, dtype: torch.dtype
) -> None:
    dtypes: set[torch.dtype] = set()

    def tune(model: nn.Module, run: Run, **arguments: object) -> Tuning:
        model.stem[0].register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
        return Tuning(how)

    monkeypatch.setattr(session, "tune", tune)
    run = convmix.train(photos, out=tmp_path / "run", quiet=True, device="cpu", **{**SMALL, "precision": "auto", "epochs": 1})
    assert dtypes == {dtype}
    assert json.loads((run.path / "convmix.json").read_text())["training"]["precision"] == how.precision


@pytest.mark.slow
def test_steps_alone_take_the_compiled_model(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stood in for by one that counts; validation and what is saved belong to the plain one."""
    sizes: list[int] = []

    def compile_(model: nn.Module) -> object:
        def forward(x: Tensor) -> Tensor:
            sizes.append(len(x))
            assert model.training
            return model(x)

        return forward

    choose(monkeypatch, Tuning(replace(FP32, compile=True)))
    monkeypatch.setattr(autotune, "_compile", compile_)
    run = convmix.train(photos, out=tmp_path / "run", quiet=True, device="cpu", **{**SMALL, "epochs": 2, "accumulate": 2, "ema_decay": 0.9})
    steps = json.loads((run.path / "convmix.json").read_text())["training"]["steps"]
    assert sizes == [6] * 2 * steps


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize(
    "how",
    [Tuned("nchw", "fp32"), pytest.param(Tuned("nhwc", "fp32", compile=True), marks=pytest.mark.slow)],
    ids=["nchw", "compiled"],
)
def test_a_resumed_training_computes_as_it_began(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Tuned) -> None:
    found = Tuning(how, (TuningTrial(how, 1.0),))
    settings = {**SETTINGS, "model": "convmixer_8_1_k3_p4"}  # one block, for compiling takes longer with each
    asked = choose(monkeypatch, found)
    convmix.train(photos, out=tmp_path / "whole", quiet=True, device="cpu", **settings)
    with monkeypatch.context() as patch:
        watch_steps(patch, stop_after=4)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 4"):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", **settings)
    assert len(asked) == 2
    seen = watch_steps(monkeypatch)
    convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", resume=True)
    assert len(asked) == 2  # not asked again
    assert seen[-1].tuning == found
    assert (seen[-1].compiled is not None and seen[-1].compiled.fast is not None) is how.compile
    assert same_bits(tmp_path / "whole", tmp_path / "parts")


def test_a_training_that_began_before_there_was_a_choice_is_resumed_with_the_default(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        watch_steps(patch, stop_after=1)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 1"):
            convmix.train(photos, out=tmp_path / "run", quiet=True, device="cpu", **{**SMALL, "epochs": 1})
    job = tmp_path / "run" / "state" / "job.json"
    values = json.loads(job.read_text())
    del values["tuning"], values["run"]["tune"]
    job.write_text(json.dumps(values))
    asked, seen = choose(monkeypatch, Tuning(replace(FP32, layout="nchw"))), watch_steps(monkeypatch)
    convmix.train(photos, out=tmp_path / "run", quiet=True, device="cpu", resume=True)
    assert not asked
    assert seen[-1].tuning == Tuning(FP32)


def test_a_wrong_value_names_the_right_ones(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune: 'alway' is not one of auto, never, always, did you mean always\?"):
        convmix.train(photos, out=tmp_path / "run", quiet=True, **{**SMALL, "tune": "alway"})


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_compute_as_the_main_one_found(photos: Path, tmp_path: Path, pair: Pair) -> None:
    said = train_twice(pair, photos, tmp_path / "run", model="convmixer_16_2_k3_p4", tune="always")
    assert said.count("training in fp32") == 1
    trials = json.loads((tmp_path / "run" / "convmix.json").read_text())["training"]["tuning"]["trials"]
    assert [t["tuned"]["compile"] for t in trials] == [False, False]
