"""A kernel's first use on a shape, without a card: the sides, the clock and the card are given, the mechanism is the real one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.ops import mix_space
from convmix.ops.gpu import trial
from convmix.ops.gpu.card import Card
from convmix.ops.gpu.cases import Case, Pair, pair
from convmix.ops.gpu.trial import Trials, Verdict
from convmix.speed import fused

CPU = torch.device("cpu")
H200 = Card("NVIDIA H200", "570.1", "2.14", "3.7", "0123456789abcdef")
CASE = Case("depthwise", (2, 3, 5, 4), torch.float32, (3, True))
OTHER = replace(CASE, shape=(1, 3, 5, 4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path))
    return tmp_path / "triton"


class Bench:
    """A card of the test's own: ours is PyTorch's times `factor`, and takes `ours_ms` where PyTorch takes 2."""

    def __init__(self, card: Card = H200, *, factor: float = 1.0, ours_ms: float = 1.0, ours: Callable[..., Tensor] | None = None) -> None:
        self.factor, self.ours_ms, self.ours, self.examined, self.timed = factor, ours_ms, ours, [], []
        self.trials = Trials(card, CPU, timer=self.time, sides=self.sides)

    def sides(self, case: Case) -> Pair:
        self.examined.append(case.key)
        real = pair(case)
        return replace(real, ours=self.ours or (lambda *inputs: self.factor * real.pytorch(*inputs)))

    def time(self, run: Callable[[], object]) -> float:
        self.timed.append(run())
        return self.ours_ms if len(self.timed) % 2 else 2.0

    def verdict(self, case: Case = CASE) -> Verdict:
        return self.trials.verdict(case)


def test_an_equal_and_faster_kernel_is_trusted_without_a_word(caplog):
    bench = Bench()
    assert bench.verdict() == Verdict(True, "", pytest.approx(0, abs=1e-6), 1e-4, 1.0, 2.0)
    assert bench.verdict().trusted and bench.examined == [CASE.key] and not caplog.records


@pytest.mark.parametrize(("factor", "trusted"), [(1 + 5e-5, True), (1 + 2e-4, False), (float("nan"), False)])
def test_a_kernel_that_differs_falls_back_with_one_line(factor, trusted, caplog):
    bench = Bench(factor=factor)
    assert [bench.verdict().trusted for _ in range(2)] == [trusted, trusted]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (not trusted) and all("NVIDIA H200: differs from PyTorch" in line and CASE.key in line for line in lines)
    assert bool(bench.timed) is trusted  # what is wrong is not timed


class Wrong(torch.autograd.Function):
    """The product with one, whose gradient is `factor` times what it should be."""

    @staticmethod
    def forward(ctx, y, factor):
        ctx.factor = factor
        return y.clone()

    @staticmethod
    def backward(ctx, slope):
        return ctx.factor * slope, None


@pytest.mark.parametrize("factor", [0.5, float("nan")])
def test_a_wrong_gradient_behind_a_right_answer_falls_back(factor):
    bench = Bench(ours=lambda *inputs: Wrong.apply(pair(CASE).pytorch(*inputs), factor))
    assert not bench.verdict().trusted and "differs" in bench.verdict().reason
    answers_only = replace(CASE, settings=(3, False))
    assert Bench(ours=lambda *inputs: Wrong.apply(pair(answers_only).pytorch(*inputs), factor)).verdict(answers_only).trusted


@pytest.mark.parametrize(("ours_ms", "trusted"), [(1.9, True), (2.0, True), (2.1, False)])
def test_a_slower_kernel_falls_back(ours_ms, trusted, caplog):
    assert Bench(ours_ms=ours_ms).verdict().trusted is trusted
    assert [record.getMessage().endswith("slower than PyTorch, 2.1 and 2 ms; PyTorch's own is used") for record in caplog.records] == (
        [] if trusted else [True]
    )


def test_a_kernel_that_raises_falls_back(caplog):
    def broken(*_):
        raise RuntimeError("no such instruction in /home/somebody")

    verdict = Bench(ours=broken).verdict()
    assert not verdict.trusted and verdict.reason == "fails with RuntimeError" and "somebody" not in caplog.text


def test_the_next_process_takes_what_is_kept_without_a_check(caplog):
    Bench().verdict()
    Bench(ours_ms=3).verdict(OTHER)
    caplog.clear()
    later = Bench(factor=7)
    assert later.verdict().trusted and not later.verdict(OTHER).trusted
    assert not later.examined and not caplog.records


@pytest.mark.parametrize("changed", ["name", "driver", "torch", "triton", "kernels"])
def test_another_card_or_software_is_another_check(changed):
    Bench().verdict()
    other = Bench(replace(H200, **{changed: "another"}))
    other.verdict()
    assert other.examined == [CASE.key]


@pytest.mark.parametrize(
    "other", [OTHER, replace(CASE, dtype=torch.bfloat16), replace(CASE, settings=(3, False)), replace(CASE, settings=(5, True))], ids=str
)
def test_another_shape_type_or_setting_is_another_check(other):
    bench = Bench()
    bench.verdict()
    bench.verdict(other)
    assert bench.examined == [CASE.key, other.key]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"checks": 3}', b'{"checks": {"a": 1}}', b"\xff\xfe", b'{"checks": {"a": {"trusted": 1}}}']
)
def test_a_damaged_file_is_ignored_with_a_line_and_mended(damage, cache, caplog):
    Bench().verdict()
    (kept,) = cache.glob("checks-nvidia-h200-*.json")
    kept.write_bytes(damage)
    later = Bench()
    assert later.verdict().trusted and later.examined == [CASE.key]
    assert len(caplog.records) == 1 and "made again" in caplog.records[0].getMessage()
    assert json.loads(kept.read_text())["checks"][CASE.key]["trusted"] is True and not Bench(factor=7).verdict().reason


def test_two_processes_keep_both_their_checks():
    first, second = Bench(), Bench()
    first.trials._read_once()
    second.verdict(OTHER)
    first.verdict()
    later = Bench(factor=7)
    assert later.verdict().trusted and later.verdict(OTHER).trusted


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVMIX_CACHE", str(tmp_path / "file"))
    assert Bench().verdict().trusted


def test_a_check_leaves_random_numbers_gradients_and_autocast_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert Bench().verdict().trusted
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CPU tensors go where CUDA's would, and every check that is asked for says no; which ones were."""
    pytest.importorskip("triton")
    asked: list[str] = []

    class Refusing:
        def verdict(self, case: Case) -> Verdict:
            asked.append(case.key)
            return Verdict(False, "the test says so", None, 0.0)

    from convmix.ops.gpu import convolution, correlation, moments, norm, pointwise  # noqa: F401 - compiled ones for this process's later tests

    monkeypatch.setenv("CONVMIX_KERNELS", "gpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(trial, "trials", lambda kind, index: Refusing())
    return asked


def mixed(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    return mix_space.mix_space(x, conv.weight, conv.bias, nn.GELU(), norm, residual=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_not_trusted_is_pytorchs_in_training(compiled, doors):
    torch._dynamo.reset()
    x = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    conv, norm = nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.BatchNorm2d(4)
    call = torch.compile(mixed, backend="eager", fullgraph=True) if compiled else mixed
    y = call(x, conv, norm)
    y.sum().backward()
    with torch.no_grad():
        exact = F.batch_norm(F.gelu(conv(x)), None, None, norm.weight, norm.bias, training=True) + x
    assert torch.allclose(y, exact, atol=1e-5) and conv.weight.grad is not None
    asked = list(dict.fromkeys(doors))
    for batch in (3, 4):  # for which torch.compile would make one graph
        assert call(torch.randn(batch, 4, 5, 6).contiguous(memory_format=torch.channels_last), conv, norm).shape == (batch, 4, 5, 6)
        assert f"mix_space {batch}x4x5x6 float32 3 GELU True" in doors
    assert asked == [
        "mix_space 2x4x5x6 float32 3 GELU True", "depthwise 2x4x5x6 float32 3 True", "act_norm 2x4x5x6 float32 GELU True",
    ]  # fmt: skip


def test_what_is_not_trusted_is_pytorchs_in_inference(doors):
    x, conv = torch.randn(2, 4, 5, 6), nn.Conv2d(4, 4, 3, groups=4, padding=1)
    scale, shift, point = torch.randn(4), torch.randn(6), nn.Conv2d(4, 6, 1)
    mix = fused.Mix.__new__(fused.Mix)
    nn.Module.__init__(mix)
    mix.act, mix.before, mix.bias, mix.scale = "GELU", 1, conv.bias.detach(), scale
    mix.taps = conv.weight.detach().squeeze(1).permute(1, 2, 0)  # C,1,k,k -> k,k,C
    product = fused.Product(point.weight, point.bias, "RELU", shift, torch.float32)
    with torch.no_grad():
        assert torch.allclose(mix(x), x + scale[:, None, None] * F.gelu(conv(x)), atol=1e-6)
        assert torch.allclose(product(x), F.relu(point(x)) + shift[:, None, None], atol=1e-6)
    assert doors == ["mix 2x4x5x6 float32 3 GELU", "multiply 2x4x5x6 float32 6 RELU True"]


def test_unconfirmed_kernels_are_not_even_checked_by_default(monkeypatch):
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "NVIDIA Test")
    monkeypatch.setattr(trial, "confirmed", lambda name: frozenset({"mix"}))
    monkeypatch.setattr(trial, "trials", lambda kind, index: Bench().trials)
    cuda = torch.device("cuda")
    assert not trial.trusted("depthwise", CASE.shape, CASE.dtype, cuda, 3, True)
    assert trial.trusted("mix", CASE.shape, CASE.dtype, cuda, 3, "GELU")
