"""The operators against float64, PyTorch's modules and each other; once with the compiled kernels, once without."""

import copy
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from convmix.models.convmixer import ConvMixer
from convmix.models.layers import DepthwiseConv2d
from convmix.ops import act_norm as act_norm_module
from convmix.ops import build, depthwise
from convmix.ops.act_norm import act_norm
from convmix.ops.depthwise import depthwise_conv2d, reference

# of the largest value: what one rounding to the type allows, several times over for sums
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


def forget_libraries() -> None:
    build.library.cache_clear()
    depthwise._library.cache_clear()
    act_norm_module._library.cache_clear()


@pytest.fixture(params=["kernels", "pytorch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to compute: our compiled kernels, and PyTorch's where there is no compiler."""
    if request.param == "pytorch":
        monkeypatch.setenv("CONVMIX_KERNELS", "off")
    elif build.find_compiler() is None or os.environ.get("CONVMIX_KERNELS") == "off":
        pytest.skip("no C compiler here")
    forget_libraries()
    yield request.param
    monkeypatch.undo()
    forget_libraries()


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance * scale if actual.numel() else True


def check_depthwise(shape: tuple[int, int, int, int], k: int, dtype: torch.dtype, layout: torch.memory_format, bias: bool = True) -> None:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(shape, generator=generator).to(dtype).to(memory_format=layout).requires_grad_()
    weight = torch.randn(shape[1], 1, k, k, generator=generator).to(dtype).requires_grad_()
    b = torch.randn(shape[1], generator=generator).to(dtype).requires_grad_() if bias else None
    leaves = [t for t in (x, weight, b) if t is not None]
    y = depthwise_conv2d(x, weight, b)
    dy = torch.randn(y.shape, generator=generator).to(dtype)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    y64 = reference(*exact[:2], exact[2] if bias else None, (k - 1) // 2)
    assert y.dtype == dtype and y.is_contiguous(memory_format=layout)
    for actual, expected in zip(
        (y, *torch.autograd.grad(y, leaves, dy)), (y64, *torch.autograd.grad(y64, exact, dy.double())), strict=True
    ):
        close(actual, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 8, 9, 15])
def test_depthwise_and_its_gradients_equal_float64(path: str, k: int, dtype: torch.dtype, layout: str) -> None:
    for shape in ((2, 16, 9, 11), (3, 5, 1, 1), (1, 33, 40, 17)):
        check_depthwise(shape, k, dtype, LAYOUTS[layout])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 3, 6, 7]), st.booleans(),
    st.sampled_from(list(TOLERANCES)), st.sampled_from(list(LAYOUTS)),
)  # fmt: skip
def test_depthwise_of_any_shape(b: int, c: int, h: int, w: int, k: int, bias: bool, dtype: torch.dtype, layout: str) -> None:
    check_depthwise((b, c, h, w), k, dtype, LAYOUTS[layout], bias)


def test_images_taller_than_a_strip_are_whole(path: str) -> None:
    check_depthwise((1, 8, 400, 6), 7, torch.bfloat16, torch.channels_last)


def test_first_and_second_derivatives_are_those_of_the_numbers(path: str) -> None:
    for k in (3, 4):
        x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(3, 1, k, k, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(depthwise_conv2d, (x, weight, bias))
        assert torch.autograd.gradgradcheck(depthwise_conv2d, (x, weight, bias))


def test_slices_and_empty_batches(path: str) -> None:
    weight = torch.randn(6, 1, 3, 3, requires_grad=True)
    whole = torch.randn(4, 12, 16, 16)
    close(depthwise_conv2d(whole[::2, ::2, 3:, ::3], weight), F.conv2d(whole[::2, ::2, 3:, ::3], weight, padding=1, groups=6), 1e-5)
    y = depthwise_conv2d(torch.empty(0, 6, 8, 8), weight)
    y.sum().backward()
    assert y.shape == (0, 6, 8, 8) and weight.grad is not None and not weight.grad.any()


def test_the_same_bits_on_every_call_and_with_any_number_of_threads(path: str) -> None:
    x = torch.randn(9, 24, 12, 12).bfloat16().to(memory_format=torch.channels_last)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(torch.ops.convmix.depthwise_conv2d_weight(x, x, 5, 2)[0])
    finally:
        torch.set_num_threads(threads)
    if path == "kernels":
        assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("operator", ["depthwise_conv2d", "depthwise_conv2d_weight", "act_norm"])
def test_the_operators_keep_the_contract_of_torch_library(path: str, operator: str) -> None:
    x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(4, 1, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    arguments = {
        "depthwise_conv2d": (x, weight, bias, 1),
        "depthwise_conv2d_weight": (x, torch.randn_like(x).requires_grad_(), 3, 1),
        "act_norm": (x, torch.randn_like(x).requires_grad_(), torch.randn(4, requires_grad=True), bias, 1e-5, "GELU"),
    }
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.convmix, operator).default, arguments[operator], test_utils=tests)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("act", [nn.GELU(), nn.ReLU()], ids=["gelu", "relu"])
@pytest.mark.parametrize("with_residual", [True, False])
def test_act_norm_equals_the_modules_in_float64(path: str, with_residual: bool, act: nn.Module, dtype: torch.dtype) -> None:
    for shape in ((2, 16, 9, 11), (1, 5, 1, 2), (1, 33, 40, 17)):
        torch.manual_seed(0)
        u = (6 * torch.randn(shape)).to(dtype).to(memory_format=torch.channels_last).requires_grad_()  # GELU's flat ends too
        residual = torch.randn_like(u).requires_grad_() if with_residual else None
        norm = nn.BatchNorm2d(shape[1]).to(torch.float64 if dtype == torch.float64 else torch.float32)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm64 = copy.deepcopy(norm).double()
        y = act_norm(u, act, norm, residual)
        dy = torch.randn_like(y)
        leaves = [u, norm.weight, norm.bias] + ([residual] if residual is not None else [])
        u64, r64 = u.detach().double().requires_grad_(), residual.detach().double().requires_grad_() if residual is not None else None
        y64 = norm64(act(u64)) if r64 is None else norm64(act(u64)) + r64
        leaves64 = [u64, norm64.weight, norm64.bias] + ([r64] if r64 is not None else [])
        found, expected = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(y64, leaves64, dy.double())
        for actual, exact in zip((y, *found), (y64, *expected), strict=True):
            close(actual, exact, TOLERANCES[dtype])
        close(norm.running_mean, norm64.running_mean, max(TOLERANCES[dtype] / 10, 1e-6))
        close(norm.running_var, norm64.running_var, max(TOLERANCES[dtype] / 10, 1e-6))
        assert norm.num_batches_tracked == 1


def test_act_norm_leaves_what_it_cannot_fuse_to_the_modules() -> None:
    u = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last)
    for norm in (nn.BatchNorm2d(4).eval(), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)):
        other = copy.deepcopy(norm)
        if norm.momentum is not None and norm.affine and norm.training:
            norm.register_forward_hook(lambda *_: None)
        assert torch.equal(act_norm(u, nn.GELU(), norm), other(F.gelu(u)))
        assert norm.running_mean is not None and torch.equal(norm.running_mean, other.running_mean)


def training_step(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss = model(images).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None), *(b.clone() for b in model.buffers())]


def test_a_training_step_equals_the_step_of_plain_modules(path: str) -> None:
    torch.manual_seed(0)
    ours = ConvMixer(24, 3, 5, 2, num_classes=10).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(ours)

    def unfused(x: Tensor) -> Tensor:
        x = plain.stem[2](plain.stem[1](plain.stem[0](x)))
        for block in plain.blocks:
            conv, act, norm = block[0].fn
            x = norm(act(F.conv2d(x, conv.weight, conv.bias, padding=2, groups=24))) + x
            x = block[3](block[2](block[1](x)))
        return plain.forward_head(x)

    images = torch.randn(4, 3, 18, 18)
    found = training_step(ours, images)
    plain.forward = unfused
    for actual, expected in zip(found, training_step(plain, images), strict=True):
        close(actual.double(), expected.double(), 2e-5)


def test_compile_and_export_take_a_model_without_a_break() -> None:
    torch.manual_seed(0)
    model = ConvMixer(16, 2, 5, 2, num_classes=3).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 12, 12)
    expected = training_step(copy.deepcopy(model), images)
    compiled = copy.deepcopy(model)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for actual, exact in zip(training_step(compiled, images), expected, strict=True):
        close(actual.double(), exact.double(), 1e-5)
    program = torch.export.export(model.eval(), (images,))
    assert not any("convmix" in str(node.target) for node in program.graph.nodes)  # runs where convmix is not installed
    close(program.module()(images), model(images), 1e-6)


def test_autocast_rounds_the_image_and_keeps_the_weights_gradient_in_float32(path: str) -> None:
    layer = DepthwiseConv2d(8, 5)
    x = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    assert list(layer.state_dict()) == list(nn.Conv2d(8, 8, 5, groups=8).state_dict())


def test_the_operation_counter_sees_the_operator() -> None:
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        depthwise_conv2d(torch.randn(2, 4, 5, 6), weight).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 2 * 4 * 5 * 6 * 9)  # forward and weight gradient; the image wants none


def test_without_a_compiler_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    build._say_once.cache_clear()
    forget_libraries()
    assert build.library("depthwise", "K=3", "STORAGE_F32") is None
    assert build.library("depthwise", "K=5", "STORAGE_F32") is None
    assert [r.message for r in caplog.records] and len(caplog.records) == 1 and "no C compiler" in caplog.records[0].message
    forget_libraries()
