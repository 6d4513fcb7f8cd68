"""How a training computes is measured where that pays, on copies, and kept for as long as the training lives."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convmix.config import Augment, Net, Optim, Run
from convmix.documents import checked
from convmix.models.catalog import create_model
from convmix.tasks.classify import Classify
from convmix.training import autotune
from convmix.training.autotune import Compiled, Tuned, Tuning, TuningTrial, tune

CPU = torch.device("cpu")
BATCH = 8
LONG = 1_000_000  # steps
USUAL = Tuned("nhwc", "bf16")
NCHW = replace(USUAL, layout="nchw")
FP32 = replace(USUAL, precision="fp32")
COMPILED = replace(USUAL, compile=True)


def compiled(how: Tuned) -> Tuned:
    return replace(how, compile=True)


@pytest.fixture(autouse=True)
def _bf16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine: so that the default is the same everywhere."""
    monkeypatch.setattr("convmix.hardware.fast_bf16", lambda device: True)


class Clock:
    """Stands in for the timing of steps: a candidate takes the seconds that the test says, one after the other or always the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps_s: dict[Tuned, float | Iterator[float]]) -> None:
        self.steps_s = steps_s
        self.timed: list[Tuned] = []
        monkeypatch.setattr(autotune, "step_seconds", self)
        monkeypatch.setattr(autotune, "_compile", lambda model: model)

    def __call__(self, trainee: autotune._Trainee) -> float:
        self.timed.append(trainee.tuned)
        seconds = self.steps_s[trainee.tuned]
        if isinstance(seconds, float):
            return seconds
        for value in seconds:
            return value
        raise RuntimeError("not on this machine\nand much more")


def failing(after: int = 0) -> Iterator[float]:
    """Some steps of 0.1 s, then failures."""
    return iter([0.1] * after)


def tuned(run: Run, *, steps: int = LONG, model: nn.Module | None = None, **arguments: object) -> Tuning:
    run = replace(run, optim=replace(run.optim, batch_size=BATCH))
    task = Classify(("a", "b", "c"))
    task.prepare_training(run.optim, run.augment, torch.arange(3))
    model = model or create_model("convmixer_16_2_k3_p4", num_classes=3)
    return tune(model, run, task=task, images=(3, 24, 24), targets=lambda: torch.arange(BATCH) % 3, device=CPU, steps=steps, **arguments)


@pytest.mark.parametrize(
    ("steps_s", "chosen"),
    [
        ({USUAL: 0.1, NCHW: 0.08, FP32: 0.12}, NCHW),
        ({USUAL: 0.1, NCHW: 0.098, FP32: 0.12}, USUAL),  # a tie
        ({USUAL: 0.1, NCHW: 0.12, FP32: 0.096}, USUAL),  # bf16 is dropped for a reason only
        ({USUAL: 0.1, NCHW: 0.12, FP32: 0.09}, FP32),
        ({USUAL: 0.1, NCHW: 0.09, FP32: 0.08}, FP32),
        ({USUAL: 0.1, NCHW: 0.01, FP32: 0.2}, NCHW),  # the default itself is far behind
    ],
)
def test_the_fastest_is_chosen_and_of_equals_the_simpler(
    monkeypatch: pytest.MonkeyPatch, steps_s: dict[Tuned, float], chosen: Tuned
) -> None:
    Clock(monkeypatch, {**steps_s, compiled(chosen): steps_s[chosen]})
    found = tuned(Run())
    assert found.tuned == chosen
    assert [t.tuned for t in found.trials] == [USUAL, NCHW, FP32, compiled(chosen)]
    assert {t.tuned: t.step_ms for t in found.trials[:3]} == pytest.approx({t: 1000 * s for t, s in steps_s.items()})
    assert [t.tuned for t in found.trials if t.rejected is None] == [chosen]


def test_candidates_take_their_steps_in_turn_and_slow_ones_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {USUAL: 0.001, NCHW: 0.0014, FP32: 0.0016})
    assert tuned(Run(), steps=10_000).trials[2] == TuningTrial(FP32, 1.6, "slower")
    warm_up = [t for t in (USUAL, NCHW, FP32) for _ in range(2)]
    assert clock.timed == warm_up + [USUAL, NCHW] * autotune.ROUNDS


def test_neither_the_first_step_nor_one_slow_moment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up, first, *in_turn = 5.0, 0.14, 0.1, 9.0, 0.1
    Clock(monkeypatch, {USUAL: iter([warm_up, first, *in_turn]), NCHW: 0.12, FP32: 0.12})
    assert tuned(Run(), steps=10_000).trials[0] == TuningTrial(USUAL, 100.0)


@pytest.mark.parametrize(
    ("run", "limits", "timed"),
    [
        (Run(), {"steps": 1_999}, set()),  # 40 steps are more than 2 % of it
        (Run(), {"steps": 2_000}, {USUAL, NCHW, FP32}),
        (Run(), {"steps": LONG, "left_s": 100}, {USUAL}),
        (Run(), {"steps": LONG, "left_s": 201}, {USUAL, NCHW, FP32}),
        (Run(), {"steps": LONG, "left_s": 2_300}, {USUAL, NCHW, FP32}),
        (Run(), {"steps": LONG, "left_s": 2_500}, {USUAL, NCHW, FP32, COMPILED}),
        (Run(), {"steps": 25_000}, {USUAL, NCHW, FP32, COMPILED}),
        (Run(), {"steps": LONG, "processes": 2}, {USUAL, NCHW, FP32}),
        (Run(tune="never"), {"steps": LONG}, set()),
        (Run(tune="always"), {"steps": 1, "left_s": 1}, {USUAL, NCHW, FP32, COMPILED}),
        (Run(precision="bf16"), {"steps": 10_000}, {USUAL, NCHW}),
        (Run(precision="fp32"), {"steps": 10_000}, {FP32, replace(FP32, layout="nchw")}),
    ],
)
def test_a_trial_is_made_where_it_costs_little_of_what_the_user_left_open(
    monkeypatch: pytest.MonkeyPatch, run: Run, limits: dict[str, float], timed: set[Tuned]
) -> None:
    clock = Clock(monkeypatch, dict.fromkeys((USUAL, NCHW, FP32, COMPILED, replace(FP32, layout="nchw")), 0.1))
    said: list[str] = []
    found = tuned(run, say=said.append, **limits)
    assert set(clock.timed) == timed
    assert found.tuned == (FP32 if run.precision == "fp32" else USUAL)
    assert (len(found.trials), len(said)) == ((len(timed), 1) if len(timed) > 1 else (0, 0))


def test_fp32_is_the_default_where_bf16_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmix.hardware.fast_bf16", lambda device: False)
    clock = Clock(monkeypatch, {FP32: 0.1, replace(FP32, layout="nchw"): 0.1})
    assert tuned(Run(), steps=10_000).tuned == FP32
    assert set(clock.timed) == set(clock.steps_s)


@pytest.mark.parametrize(
    ("compiling_s", "step_s", "chosen", "reason"),
    [
        (60.0, 0.09, COMPILED, None),  # 3000 s become 2700
        (400.0, 0.09, USUAL, "compiling takes 400 s and saves 300 s"),
        (1.0, 0.099, USUAL, "not faster"),
    ],
)
def test_compiling_has_to_save_more_than_it_takes(
    monkeypatch: pytest.MonkeyPatch, compiling_s: float, step_s: float, chosen: Tuned, reason: str | None
) -> None:
    Clock(monkeypatch, {USUAL: 0.1, NCHW: 0.1, FP32: 0.1, COMPILED: iter([compiling_s] + [step_s] * 4)})
    found = tuned(Run(), steps=30_000)
    assert found.tuned == chosen
    assert found.trials[-1].rejected == reason


@pytest.mark.parametrize(
    ("failures", "chosen"),
    [
        ({NCHW: 0}, USUAL),
        ({NCHW: 1}, USUAL),
        ({NCHW: 3, FP32: 3}, USUAL),
        ({COMPILED: 0}, USUAL),
        ({COMPILED: 2}, USUAL),
        ({USUAL: 0}, USUAL),
        ({USUAL: 3}, NCHW),
        ({USUAL: 3, NCHW: 3, FP32: 3}, USUAL),
        ({USUAL: 6}, COMPILED),
    ],
)
def test_a_candidate_that_fails_is_a_reason_and_no_stop(monkeypatch: pytest.MonkeyPatch, failures: dict[Tuned, int], chosen: Tuned) -> None:
    steps_s: dict[Tuned, float | Iterator[float]] = dict.fromkeys((USUAL, NCHW, FP32, COMPILED, compiled(NCHW)), 0.1)
    Clock(monkeypatch, steps_s | {t: failing(after) for t, after in failures.items()})
    found = tuned(Run())
    assert found.tuned == chosen
    for trial in found.trials:
        if trial.tuned in failures and trial.tuned != chosen:
            assert trial == TuningTrial(trial.tuned, None, "not on this machine")


def test_the_run_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps, of a model with batch norms, and dropout that draws random numbers."""
    monkeypatch.setattr(autotune, "_compile", lambda model: model)
    model = create_model("convmixer_16_2_k3_p4", num_classes=3, dropout=0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    layouts = [p.stride() for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found = tuned(Run(tune="always", optim=Optim(accumulate=2), augment=Augment(mixup=0.5)), model=model)
    assert [t.tuned for t in found.trials[:3]] == [USUAL, NCHW, FP32]
    assert all(t.step_ms is not None and t.step_ms > 0 for t in found.trials)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.stride() for p in model.parameters()] == layouts
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_a_timed_step_is_a_training_step_as_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[object, ...]] = set()
    backward: list[int] = []

    def look(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        layout = "nhwc" if output.is_contiguous(memory_format=torch.channels_last) else "nchw"
        seen.add((len(output), output.dtype, layout, module.training))
        output.register_hook(lambda gradient: backward.append(len(gradient)))

    def time_step(trainee: autotune._Trainee) -> float:
        seconds = real(trainee)
        assert all(p.grad is None for p in trainee.model.parameters())  # gradients are not added to those of the step before
        return seconds

    real = autotune.step_seconds
    monkeypatch.setattr(autotune, "step_seconds", time_step)
    monkeypatch.setattr(autotune, "_compile", lambda model: model)
    model = create_model("convmixer_16_2_k3_p4", num_classes=3)
    model.stem[0].register_forward_hook(look)  # copies keep hooks
    found = tuned(Run(tune="always", optim=Optim(accumulate=2)), model=model)
    half = BATCH // 2
    assert seen == {(half, torch.bfloat16, "nhwc", True), (half, torch.bfloat16, "nchw", True), (half, torch.float32, "nhwc", True)}
    assert all(t.step_ms is not None for t in found.trials)
    assert len(backward) >= 2 * 2 * len(found.trials)
    assert set(backward) == {half}


def test_a_frozen_backbone_is_timed_without_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[bool, bool]] = set()
    monkeypatch.setattr(autotune, "_compile", lambda model: model)
    model = create_model("convmixer_16_2_k3_p4", num_classes=3)
    for parameter in set(model.parameters()) - set(model.get_classifier().parameters()):
        parameter.requires_grad_(False)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda module, inputs, output: seen.add((module.training, output.requires_grad)))
    found = tuned(Run(tune="always", net=Net(freeze="backbone")), model=model)
    assert all(t.step_ms is not None for t in found.trials)
    assert seen == {(False, False)}


def test_a_line_and_json_say_what_was_measured() -> None:
    trials = (
        TuningTrial(USUAL, 640.4),
        TuningTrial(NCHW, 1100.0, "slower"),
        TuningTrial(FP32, 1500.0, "slower"),
        TuningTrial(COMPILED, None, "no compiler"),
    )
    found = Tuning(USUAL, trials)
    assert str(found) == "bf16, channels_last: 640 ms a step; nchw 1100 ms, fp32 1500 ms, compiled failed (no compiler)"
    assert str(Tuning(COMPILED, (TuningTrial(USUAL, 6.4, "not faster"), TuningTrial(COMPILED, 3.04)))) == (
        "bf16, channels_last, compiled: 3.0 ms a step; not compiled 6.4 ms"
    )
    assert str(Tuning(NCHW)) == "bf16, nchw"
    assert checked(json.loads(json.dumps(asdict(found))), Tuning, where="tuning") == found


def test_without_measuring_the_layout_is_the_one_of_our_kernels() -> None:
    assert autotune.default("fp32", CPU) == FP32
    assert autotune.default("fp32", torch.device("cuda")) == replace(FP32, layout="nchw")


def test_batches_of_another_size_are_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_compile", lambda model: lambda x: model(x) + 1)
    forward = Compiled(nn.Identity(), 4, say=print)
    assert [forward(torch.zeros(n)).sum().item() for n in (4, 3, 5, 4)] == [4, 0, 0, 4]


def test_where_the_compiler_fails_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compile_(model: nn.Module) -> object:
        def fail(x: Tensor) -> Tensor:
            calls.append(len(x))
            raise torch._dynamo.exc.BackendCompilerFailed(model, RuntimeError("no g++"), None)

        return fail

    monkeypatch.setattr(autotune, "_compile", compile_)
    said: list[str] = []
    forward = Compiled(nn.Identity(), 4, say=said.append)
    assert [forward(torch.ones(4)).sum().item() for _ in range(2)] == [4, 4]
    assert calls == [4]
    assert len(said) == 1
    assert "no g++" in said[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
def test_a_real_trial_compiles_what_computes_as_the_plain_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block, for compiling takes longer with each."""
    trainees: list[autotune._Trainee] = []
    real = autotune.step_seconds

    def step_seconds(trainee: autotune._Trainee) -> float:
        trainees.append(trainee)
        return real(trainee)

    monkeypatch.setattr(autotune, "step_seconds", step_seconds)
    found = tuned(Run(tune="always", precision="fp32"), model=create_model("convmixer_8_1_k3_p4", num_classes=3))
    assert [t.tuned.compile for t in found.trials] == [False, False, True]
    assert all(t.step_ms is not None and t.step_ms > 0 for t in found.trials)
    fast = next(t for t in trainees if t.tuned.compile)
    images = torch.randn(BATCH, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    results = []
    for forward in (fast.model, fast.forward):
        outputs = forward(images)
        outputs.square().sum().backward()
        gradients = [p.grad.clone() for p in fast.model.parameters() if p.grad is not None]
        fast.model.zero_grad()
        results.append((outputs.detach(), *gradients))
    assert fast.forward is not fast.model and len(results[0]) > 5
    for plain, compiled_ in zip(*results, strict=True):
        torch.testing.assert_close(compiled_, plain, rtol=1e-4, atol=1e-4)
