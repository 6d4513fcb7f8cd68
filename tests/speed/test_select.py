"""The fastest engine that is right wins; what was chosen is kept, and measured again when anything that matters has changed."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from convmix.errors import ConfigError, ModelError
from convmix.models.catalog import create_model
from convmix.speed import backends, select, store
from convmix.speed.backends import EnginePlan
from convmix.speed.check import LIMITS, FirstClass, OutputTolerance
from convmix.speed.packages import UnavailableError
from convmix.speed.report import EngineTrial, Report, table
from convmix.speed.select import Optimized, candidates, optimize

SIZES = (4, 16, 16)
CPU = torch.device("cpu")
FAKE = EnginePlan("onnxruntime")  # its builder is replaced


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = create_model("convmixer_16_1_k3_p4", num_classes=5).eval()
    nn.init.normal_(net.head.weight)
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> list[EnginePlan]:
    """Two plans instead of dozens."""
    some = [EnginePlan(), FAKE]
    monkeypatch.setattr(select, "candidates", lambda *_, **__: some)
    monkeypatch.setattr(select, "TURN_S", 0.0)
    return some


class Clock:
    """The race's own: engines alone move it, so that no other process on the machine decides who wins."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 1e-6  # no two readings are the same
        return self.now_s

    perf_counter = monotonic


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(select, "time", clock)
    return clock


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[..., list[int]]:
    """Replaces the builder of FAKE by the model itself with a change of its outputs, which takes 10 ms a batch; the original takes 20.

    Returns a list that grows by one with every build.
    """

    def replaced(change: Callable[[Tensor, Tensor], Tensor] = lambda _, y: y, *, takes_s: float = 0.01) -> list[int]:
        builds: list[int] = []

        def build(plan: EnginePlan, net: nn.Module, example: Tensor, calibration: Tensor | None, files: Path | None) -> backends.Call:
            builds.append(1)

            def call(x: Tensor) -> Tensor:
                clock.now_s += takes_s
                return change(x, net(x))

            return call

        def slower(_: EnginePlan, net: nn.Module, *rest: object) -> backends.Call:
            def call(x: Tensor) -> Tensor:
                clock.now_s += 0.02
                return net(x)

            return call

        monkeypatch.setitem(backends._BUILDERS, "onnxruntime", build)
        monkeypatch.setitem(backends._BUILDERS, "eager", slower)
        return builds

    return replaced


def text_of(report: Report) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(report))
    return captured.get()


def trial_of(faster: Optimized, plan: EnginePlan = FAKE) -> EngineTrial:
    return next(trial for trial in faster.report.trials if trial.plan == plan)


def test_the_fastest_that_is_right_wins(model: nn.Module, images: Tensor, engine: Callable[..., list[int]]) -> None:
    engine()
    faster = optimize(model, sizes=SIZES, images=images, judge=FirstClass(model(images).argmax(1)))
    assert faster.plan == FAKE
    assert torch.allclose(faster(images), model(images), atol=1e-6)
    assert faster.report.speedup == pytest.approx(2, rel=1e-3)
    chosen = trial_of(faster)
    assert (chosen.median_ms, faster.report.original.median_ms) == (pytest.approx(10, rel=1e-3), pytest.approx(20, rel=1e-3))
    assert (chosen.rejected, chosen.changed, chosen.score, faster.report.checked) == (None, (0, 10), 1.0, 10)
    assert chosen.difference is not None
    assert chosen.difference < 1e-6
    assert (faster.report.original.plan, faster.report.original.score) == (EnginePlan(), 1.0)
    assert "* " in text_of(faster.report)
    assert "accuracy 100.00 % (+0.00 points; 95 % interval 72.25 to 100.00 %) on 10 validation images" in text_of(faster.report)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: y + 0.01 * y.abs().max(),
        lambda x, y: y * torch.nan,
        lambda x, y: torch.zeros_like(y),
        lambda x, y: y.roll(1, 0),  # the right answers to the wrong images
    ],
    ids=["shifted", "nan", "zero", "rolled"],
)
def test_an_engine_with_wrong_output_is_rejected(
    model: nn.Module, images: Tensor, engine: Callable[..., list[int]], change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    engine(change)
    faster = optimize(model, sizes=SIZES, images=images)
    assert faster.plan == EnginePlan()
    assert str(trial_of(faster).rejected).startswith("wrong: an output differs by")
    assert torch.equal(faster(images), model(images))
    assert "wrong: an output differs" in text_of(faster.report)


def test_an_engine_that_is_wrong_on_later_images_is_rejected(model: nn.Module, images: Tensor, engine: Callable[..., list[int]]) -> None:
    engine(lambda x, y: torch.where((x == images[9]).flatten(1).all(1)[:, None], -y, y))
    faster = optimize(model, sizes=SIZES, images=images)
    assert faster.plan == EnginePlan()
    assert "wrong" in str(trial_of(faster).rejected)
    assert trial_of(faster).median_ms is not None  # it passed the first batch and was timed


def test_limits_can_be_given(model: nn.Module, images: Tensor, engine: Callable[..., list[int]]) -> None:
    engine(lambda x, y: y * 1.01)
    assert optimize(model, sizes=SIZES, images=images).plan == EnginePlan()
    assert optimize(model, sizes=SIZES, images=images, limits=dict.fromkeys(LIMITS, OutputTolerance(0.02, 0.0)), again=True).plan == FAKE


def test_a_slower_engine_is_not_taken(model: nn.Module, images: Tensor, engine: Callable[..., list[int]]) -> None:
    engine(takes_s=0.06)
    faster = optimize(model, sizes=SIZES, images=images)
    assert faster.plan == EnginePlan()
    assert trial_of(faster).rejected == "slower"


def test_an_engine_that_is_not_there_is_listed(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> backends.Call:
        raise UnavailableError("it is not installed")

    monkeypatch.setitem(backends._BUILDERS, "onnxruntime", missing)
    faster = optimize(model, sizes=SIZES)
    assert faster.plan == EnginePlan()
    assert trial_of(faster).rejected == "it is not installed"
    assert "it is not installed" in text_of(faster.report)
    assert faster.report.checked == 0  # noise


def test_nothing_is_begun_after_the_budget(model: nn.Module, engine: Callable[..., list[int]]) -> None:
    builds = engine()
    faster = optimize(model, sizes=SIZES, budget_s=0.0)
    assert not builds
    assert trial_of(faster).rejected == "not tried, 0 s were over"
    assert faster.plan == EnginePlan()


@pytest.fixture
def measured(model: nn.Module, engine: Callable[..., list[int]]) -> Iterator[Callable[[], int]]:
    """A choice is kept; the number of trials since then."""
    builds = engine()
    optimize(model, sizes=SIZES)
    builds.clear()
    calls: list[object] = []
    original = select._Race.run

    def counted(self: select._Race, *arguments: object) -> None:
        calls.append(arguments)
        original(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select._Race, "run", counted)
        yield lambda: len(calls)


def test_a_kept_choice_is_not_measured_again(model: nn.Module, images: Tensor, measured: Callable[[], int]) -> None:
    again = optimize(model, sizes=SIZES)
    assert measured() == 0
    assert again.plan == FAKE
    assert torch.allclose(again(images), model(images), atol=1e-6)
    assert again.report.original.median_ms is not None  # the report came with it
    optimize(model, sizes=SIZES, again=True)
    assert measured() == 1


def test_what_changes_the_result_is_measured_again(model: nn.Module, measured: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    optimize(model, sizes=(3, 16, 16))
    optimize(model, sizes=SIZES, precision="bf16")
    assert measured() == 2
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-3
    optimize(model, sizes=SIZES)
    assert measured() == 3
    monkeypatch.setattr(store, "version", lambda name: "99.0")
    optimize(model, sizes=SIZES)
    assert measured() == 4
    monkeypatch.setattr(torch, "get_num_threads", lambda: 63)
    optimize(model, sizes=SIZES)
    assert measured() == 5
    optimize(model, sizes=SIZES)
    assert measured() == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"plan": 1}', b"\xff"], ids=repr)
def test_a_spoilt_choice_is_measured_again(model: nn.Module, measured: Callable[[], int], cache: Path, content: bytes) -> None:
    (file,) = cache.glob("choices/*/choice.json")
    file.write_bytes(content)
    assert optimize(model, sizes=SIZES).plan == FAKE
    assert measured() == 1
    optimize(model, sizes=SIZES)
    assert measured() == 1


def test_a_choice_with_an_impossible_plan_is_measured_again(model: nn.Module, measured: Callable[[], int], cache: Path) -> None:
    (file,) = cache.glob("choices/*/choice.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "plan": {"backend": "nonsense"}}))
    optimize(model, sizes=SIZES)
    assert measured() == 1


def test_a_choice_that_does_not_start_any_more_is_measured_again(
    model: nn.Module, measured: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> backends.Call:
        raise OSError("the file is cut short")

    monkeypatch.setitem(backends._BUILDERS, "onnxruntime", broken)
    assert optimize(model, sizes=SIZES).plan == EnginePlan()
    assert measured() == 1


def test_reports_survive_the_disk(model: nn.Module, engine: Callable[..., list[int]], cache: Path) -> None:
    engine()
    report = optimize(model, sizes=SIZES).report
    (file,) = cache.glob("choices/*/choice.json")
    assert Report.from_dict(json.loads(file.read_text())) == report
    assert [p.name for p in (cache / "choices").iterdir()] == [file.parent.name]  # nothing of the trial is left


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    model: nn.Module, engine: Callable[..., list[int]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()
    cache.write_text("a file in the place of the folder")
    assert optimize(model, sizes=SIZES).plan == FAKE


def test_the_choices_longest_unused_are_forgotten(
    model: nn.Module, engine: Callable[..., list[int]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine()
    monkeypatch.setattr(store, "MAX_CHOICES", 2)
    for batch in (1, 2, 3):
        optimize(model, sizes=(batch, 16, 16))
        for file in cache.glob("choices/*/choice.json"):  # a second older each time: file systems need not tell one moment from the next
            os.utime(file, (file.stat().st_mtime - 1,) * 2)
    kept = sorted(json.loads(file.read_text())["sizes"][0] for file in cache.glob("choices/*/choice.json"))
    assert kept == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "bf61"}, ConfigError, "precision: bf61 is not one of exact, bf16, int8, did you mean bf16"),
        ({"sizes": (4, 16)}, ConfigError, r"sizes: \(4, 16\) is not \(images per batch, height, width\)"),
        ({"sizes": (0, 16, 16)}, ConfigError, "whole numbers of at least 1"),
        ({"images": torch.zeros(2, 3, 8, 8)}, ModelError, r"images: \(2, 3, 8, 8\) is not n,C,16,16"),
        ({"calibration": torch.zeros(0, 3, 16, 16)}, ModelError, "calibration"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    model: nn.Module, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        optimize(model, **({"sizes": SIZES} | arguments))  # type: ignore[arg-type]


def test_a_model_without_finite_output_is_refused(model: nn.Module) -> None:
    nn.init.constant_(model.head.bias, torch.inf)
    with pytest.raises(ModelError, match="not finite"):
        optimize(model, sizes=SIZES)


def test_each_precision_allows_what_it_says() -> None:
    lower = {"fp32", "bf16", "autocast"}
    allowed = {"exact": {"fp32"}, "bf16": lower, "int8": lower | {"int8"}}
    for precision, dtypes in allowed.items():
        some = candidates(precision, batch_size=8, device=CPU)  # type: ignore[arg-type]
        assert some[0] == EnginePlan()
        assert {plan.dtype for plan in some} == dtypes
        assert {plan.backend for plan in some} == {"eager", "native", "openvino", "onnxruntime", "compile", "aoti"}
        assert len(set(some)) == len(some)
    assert {plan.backend for plan in candidates("exact", batch_size=8, device=torch.device("cuda"))} == {"eager", "triton", "compile"}


TRUE_MS = (10.0, *[10.5] * 6)  # of plans with 2, 3, ... streams


@pytest.fixture
def noisy_engines(plans: list[EnginePlan], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Engines that take `TRUE_MS`, the original 40 ms, each call some per cent more or less, and now and then three times as long."""

    def with_noise(*, seed: int) -> None:
        noise = random.Random(seed)
        plans[:] = [EnginePlan(), *(EnginePlan("openvino", streams=2 + i) for i in range(len(TRUE_MS)))]
        noise.shuffle(plans)

        def build(plan: EnginePlan, net: nn.Module, *rest: object) -> backends.Call:
            true_ms = 40.0 if plan == EnginePlan() else TRUE_MS[plan.streams - 2]
            answers: dict[tuple[int, ...], Tensor] = {}

            def call(x: Tensor) -> Tensor:
                clock.now_s += true_ms / 1000 * max(0.5, noise.gauss(1, 0.05)) * (3 if noise.random() < 0.15 else 1)
                return answers[x.shape] if x.shape in answers else answers.setdefault(x.shape, net(x))

            return call

        monkeypatch.setitem(backends._BUILDERS, "openvino", build)
        monkeypatch.setitem(backends._BUILDERS, "eager", build)

    return with_noise


@pytest.mark.slow
def test_the_choice_is_within_two_per_cent_of_the_fastest_on_a_noisy_machine(model: nn.Module, noisy_engines: Callable[..., None]) -> None:
    chosen = []
    for seed in range(12):
        noisy_engines(seed=seed)
        chosen.append(optimize(model, sizes=SIZES, again=True).plan)
    assert EnginePlan() not in chosen
    missed = [plan for plan in chosen if TRUE_MS[plan.streams - 2] > 1.02 * TRUE_MS[0]]
    assert len(missed) <= 1  # nine rounds of four finalists, chosen after three heats, miss three in ten


def test_one_slow_measurement_throws_no_plan_out(model: nn.Module, engine: Callable[..., list[int]], clock: Clock) -> None:
    calls: list[int] = []

    def busy_at_first(x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        clock.now_s += 0.1 if len(calls) <= 6 else 0.0  # built, compared and timed twice while another program computes
        return y

    engine(busy_at_first)
    assert optimize(model, sizes=SIZES).plan == FAKE
