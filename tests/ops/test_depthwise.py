"""The depthwise operator against float64, in every size, type and layout; its gradients, and how PyTorch's own tools see it."""

import itertools
import os
import platform
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from convmix.ops import build
from convmix.ops.depthwise import KERNEL_SIZES, depthwise_conv2d, reference

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SHAPES = [(2, 16, 9, 11), (3, 5, 1, 1), (1, 33, 40, 17), (2, 8, 130, 6), (1, 1, 7, 8)]  # odd, tiny, several strips of rows, one channel
EVERYDAY = (1, 2, 3, 5, 8, 9)
OTHERS = [k for k in KERNEL_SIZES if k not in EVERYDAY]
# Allowed difference in y and dx, and in the sums dw and db, as a share of the sum of the magnitudes that were added up. The inputs have the
# type under test on both sides, so bf16 differs in the rounding of the result, a half of 2^-8.
TOLERANCE = {torch.float64: (1e-14, 1e-14), torch.float32: (1e-6, 1e-6), torch.bfloat16: (2**-8, 1e-6)}
ops = torch.ops.convmix


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def operands(shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and dy; weight and bias in the type that sums have, but of values that x's type can hold."""
    x, dy = (numbers(*shape, dtype=dtype, seed=s).to(memory_format=LAYOUTS[layout]) for s in (1, 2))
    master = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = numbers(shape[1], 1, k, k, dtype=dtype, seed=3).to(master), numbers(shape[1], dtype=dtype, seed=4).to(master)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), dy


def with_gradients(function, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    y = function(x, weight, bias)
    return y, *torch.autograd.grad(y, (x, weight, bias), dy)


def exact(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """y, dx, dw, db by PyTorch in float64."""
    x, weight, bias, dy = (t.detach().double().requires_grad_() for t in (x, weight, bias, dy))
    return with_gradients(lambda *args: reference(*args, (weight.shape[-1] - 1) // 2), x, weight, bias, dy)


def assert_exact(shape: tuple[int, ...], k: int, dtype: torch.dtype, layout: str) -> None:
    given = operands(shape, k, dtype, layout)
    ours = with_gradients(depthwise_conv2d, *given)
    magnitudes = exact(*(t.abs() for t in given))
    assert ours[0].dtype == ours[1].dtype == dtype and ours[2].dtype == ours[3].dtype == given[1].dtype
    for name, value, expected, magnitude in zip(("y", "dx", "dw", "db"), ours, exact(*given), magnitudes, strict=True):
        share = TOLERANCE[dtype][name in ("dw", "db")]
        error = (value.double() - expected).abs()
        assert (error <= share * magnitude).all(), f"{name} of {shape} k={k} {dtype} {layout}: {(error / magnitude).max():.3g}"
        assert value.shape == expected.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("k", EVERYDAY)
def test_output_and_gradients_equal_float64(k, dtype, layout):
    for shape in SHAPES:
        assert_exact(shape, k, dtype, layout)


# Each one is compiled, which takes seconds: some of the others meet one type, and all meet all types where CONVMIX_TEST_KERNELS=all asks.
SOME = {k: list(TOLERANCE)[k // 3 % 3] for k in OTHERS if k < 8 or k % 3 == 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "dtype"), itertools.product(OTHERS, TOLERANCE) if os.environ.get("CONVMIX_TEST_KERNELS") == "all" else SOME.items()
)
def test_other_kernel_sizes_equal_float64(k, dtype):
    for shape, layout in itertools.product(SHAPES, LAYOUTS):
        assert_exact(shape, k, dtype, layout)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (34, 40, 20, 20))),
    k=st.sampled_from(EVERYDAY),
    dtype=st.sampled_from(list(TOLERANCE)),
    layout=st.sampled_from(list(LAYOUTS)),
)
def test_any_shape_equals_float64(shape, k, dtype, layout):
    assert_exact(shape, k, dtype, layout)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64 compilers")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64", "cooperlake", "sapphirerapids", "skylake-avx512"])
def test_kernels_for_other_processors_equal_float64(processor, empty_cache, monkeypatch):
    """What this processor's instructions hide: vectors of 32 and 16 bytes; of 64, bf16 by pairs, by its halves, and rounded by hand."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    if not {"cooperlake": {"avx512_bf16"}, "sapphirerapids": {"amx_tile"}, "skylake-avx512": {"avx512bw"}}.get(processor, set()) <= flags:
        pytest.skip(f"this processor cannot run code for {processor}")
    monkeypatch.setattr(build, "FLAGS", tuple(f"-march={processor}" if f.startswith("-march") else f for f in build.FLAGS))
    if build.library("depthwise", "K=5", "STORAGE_BF16") is None:
        pytest.skip("no working C compiler")
    for k, dtype in ((5, torch.bfloat16), (4, torch.bfloat16), (5, torch.float32)):
        for shape in SHAPES:
            assert_exact(shape, k, dtype, "channels_last")
    assert len(list(empty_cache.glob("depthwise-*.so"))) == 3


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_kernels_the_same_numbers_come_from_pytorch(dtype, kernels_off, monkeypatch):
    with kernels_off():
        monkeypatch.setattr("ctypes.CDLL", None)  # not even by accident
        for k, layout in itertools.product((4, 5), LAYOUTS):
            given = operands((2, 6, 9, 7), k, dtype, layout)
            values = with_gradients(depthwise_conv2d, *given)
            for value, expected in zip(values, exact(*given), strict=True):
                share = 2e-2 if dtype == torch.bfloat16 else 1e-5  # PyTorch rounds dw to bf16
                assert (value.double() - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")
def test_bf16_sums_are_kept_in_float32():
    """PyTorch's own weight gradient rounds to bf16; ours does not, so it is ours that runs where there is a compiler."""
    x, _, _, dy = operands((4, 6, 9, 7), 3, torch.bfloat16, "channels_last")
    dw, _ = ops.depthwise_conv2d_weight(x, dy, 3, 1)
    assert not torch.equal(dw, dw.bfloat16().float())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [2, 3])
def test_first_and_second_derivatives(k, layout, bias):
    x, weight, offset, _ = operands((2, 2, 3, 4), k, torch.float64, layout)
    inputs = (x, weight, offset if bias else None)
    assert torch.autograd.gradcheck(depthwise_conv2d, inputs)
    assert torch.autograd.gradgradcheck(depthwise_conv2d, inputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # from inside opcheck
@pytest.mark.parametrize(("dtype", "layout"), [(torch.float32, "channels_last"), (torch.bfloat16, "contiguous")])
def test_operators_keep_pytorchs_contract(dtype, layout):
    """Schema, autograd registration, and shapes and strides without data that agree with the real ones."""
    for shape in ((2, 6, 5, 7), (1, 1, 4, 4), (2, 8, 1, 1)):
        x, weight, bias, dy = operands(shape, 3, dtype, layout)
        for offset in (bias, None):
            torch.library.opcheck(ops.depthwise_conv2d.default, (x, weight, offset, 1), rtol=2e-2, atol=2e-2)
        torch.library.opcheck(ops.depthwise_conv2d_weight.default, (x, dy.requires_grad_(), 3, 1), rtol=2e-2, atol=2e-2)


VIEWS = {
    "some of the channels": lambda x: x[:, 1:-2],
    "every second row": lambda x: x[:, :, ::2],
    "sides exchanged": lambda x: x.transpose(2, 3),
    "one image for all": lambda x: x[:1].expand(3, -1, -1, -1),
    "from B,H,W,C": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("view", VIEWS)
def test_views_equal_copies(view, dtype):
    base = numbers(2, 9, 8, 10, dtype=dtype).to(memory_format=torch.channels_last)
    x = VIEWS[view](base).requires_grad_()
    copy = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    _, weight, bias, dy = operands(tuple(x.shape), 3, dtype, "contiguous")
    dy = VIEWS[view](numbers(2, 9, 8, 10, dtype=dtype, seed=5))
    tolerance = {"rtol": 2**-7, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for ours, theirs in zip(with_gradients(depthwise_conv2d, x, weight, bias, dy), exact(copy, weight, bias, dy), strict=True):
        torch.testing.assert_close(ours.double(), theirs, **tolerance)


def test_a_share_of_the_channels_stays_channels_last():
    x = numbers(2, 9, 5, 6).to(memory_format=torch.channels_last)[:, :4].requires_grad_()
    y = depthwise_conv2d(x, numbers(4, 1, 3, 3))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_batch_has_empty_outputs_and_zero_gradients(layout, dtype):
    x, weight, bias, dy = operands((0, 4, 5, 6), 3, dtype, layout)
    y, dx, dw, db = with_gradients(depthwise_conv2d, x, weight, bias, dy)
    assert y.shape == dx.shape == x.shape
    assert not dw.any() and not db.any() and dw.shape == weight.shape


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_same_bits_on_every_call_and_with_any_number_of_threads(dtype):
    given = operands((37, 21, 9, 10), 5, dtype, "channels_last")
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(with_gradients(depthwise_conv2d, *given))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_autocast_rounds_the_input_and_keeps_the_gradients_of_weights_in_float32():
    x, weight, bias, dy = operands((2, 6, 9, 7), 3, torch.float32, "channels_last")
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv2d(x, weight, bias)
        with torch.no_grad():
            plain = depthwise_conv2d(x, weight, bias)
    dx, dw, db = torch.autograd.grad(y, (x, weight, bias), dy.bfloat16())
    assert y.dtype == plain.dtype == torch.bfloat16
    assert dx.dtype == dw.dtype == db.dtype == torch.float32
    rounded = x.detach().bfloat16().requires_grad_()
    for ours, theirs in zip((y, dx, dw, db), with_gradients(depthwise_conv2d, rounded, weight, bias, dy.bfloat16()), strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))
    torch.testing.assert_close(plain, y, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_plain_convolution(mode):
    x, weight, bias, _ = operands((2, 6, 9, 7), 3, torch.float32, "channels_last")
    with mode(), FlopCounterMode(display=False) as counter:
        y = depthwise_conv2d(x, weight, bias)
    assert torch.equal(y, F.conv2d(x, weight, bias, padding=1, groups=6))
    assert set(counter.get_flop_counts()["Global"]) == {torch.ops.aten.convolution}


def test_operations_are_counted():
    x, weight, bias, dy = operands((2, 6, 9, 7), 3, torch.float32, "channels_last")
    forward = 2 * x.numel() * 9
    for wanted, passes in (((x, weight, bias), 3), ((weight, bias), 2), ((x,), 2)):
        for tensor in (x, weight, bias):
            tensor.requires_grad_(any(tensor is w for w in wanted))
        with FlopCounterMode(display=False) as counter:
            depthwise_conv2d(x, weight, bias).backward(dy)
        assert counter.get_total_flops() == passes * forward  # no gradient is computed that nobody asked for


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_compiles_into_one_graph(dynamic):
    torch.compiler.reset()
    compiled = torch.compile(depthwise_conv2d, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for shape in ((2, 6, 9, 7), (3, 6, 8, 5)):
        given = operands(shape, 4, torch.float32, "channels_last")
        for ours, theirs in zip(with_gradients(compiled, *given), with_gradients(depthwise_conv2d, *given), strict=True):
            assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # from inside torch.export
def test_exports_as_plain_convolution():
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = torch.nn.Parameter(numbers(6, 1, 4, 4)), torch.nn.Parameter(numbers(6))

        def forward(self, x: Tensor) -> Tensor:
            return depthwise_conv2d(x, self.weight, self.bias)

    x, layer = numbers(2, 6, 9, 7), Layer()
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=2)},))
    assert not any("convmix" in str(node.target) for node in program.graph.nodes)
    other = numbers(3, 6, 5, 7)
    torch.testing.assert_close(program.module()(other), layer(other))


def test_sizes_that_do_not_fit_are_refused_rather_than_read_out_of_bounds():
    x = numbers(2, 64, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    with pytest.raises(RuntimeError, match="expected weight to be at least 64"):
        depthwise_conv2d(x, numbers(4, 1, 3, 3))
    with pytest.raises(RuntimeError, match="expected bias to be 1-dimensional with 64 elements"):
        depthwise_conv2d(x, numbers(64, 1, 3, 3), numbers(4))
    with pytest.raises(RuntimeError):
        ops.depthwise_conv2d_weight(x, numbers(2, 8, 5, 5), 3, 1)
    with pytest.raises(RuntimeError, match="expected 0 <= before < 3, the kernel size, but found before=3"):
        ops.depthwise_conv2d(x, numbers(64, 1, 3, 3), None, 3)
