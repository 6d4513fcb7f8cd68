"""The Winograd convolution against float64, at odd sizes and ends of batches; what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convmix.ops import build
from convmix.ops.winograd import WinogradConv2d, fits

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")
# of the sum of magnitudes: bf16 rounds the transformed image and weights, and the result
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}


def layer(channels: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(channels, outputs, 3, padding=1, bias=bias)


@torch.no_grad()
def assert_exact(conv: nn.Conv2d, x: Tensor, dtype: torch.dtype, *, relu: bool) -> None:
    x = x.to(dtype)
    rounded = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None).double()
    rounded.load_state_dict(conv.state_dict())
    expected = rounded(x.double())
    expected = expected.relu() if relu else expected
    magnitude = nn.functional.conv2d(x.double().abs(), rounded.weight.abs(), padding=1) + 1
    found = WinogradConv2d(conv, relu=relu, dtype=dtype)(x)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    assert ((found.double() - expected).abs() <= TOLERANCE[dtype] * magnitude).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("channels", "outputs"), [(64, 64), (48, 96), (32, 48), (16, 16), (96, 192)])  # four, three, three, one vector
def test_all_widths_equal_float64(channels, outputs, dtype):
    for relu in (False, True):
        assert_exact(layer(channels, outputs, bias=relu), torch.randn(2, channels, 9, 12), dtype, relu=relu)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 18), st.integers(1, 18)),
    dtype=st.sampled_from(list(TOLERANCE)),
    channels_last=st.booleans(),
)
def test_any_size_equals_float64(shape, dtype, channels_last):
    batch, height, width = shape
    x = torch.randn(batch, 16, height, width)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    assert_exact(layer(16, 32), x, dtype, relu=True)


def test_infinities_and_nans_stay_visible():
    conv = layer(16, 16)
    x = torch.zeros(1, 16, 8, 8)
    x[0, 0, 4, 4] = torch.nan
    assert WinogradConv2d(conv, relu=True, dtype=torch.float32)(x)[0, :, 4, 4].isnan().all()


def test_an_empty_batch_is_empty():
    assert WinogradConv2d(layer(16, 32), relu=False, dtype=torch.float32)(torch.zeros(0, 16, 5, 5)).shape == (0, 32, 5, 5)


def test_the_same_bits_with_any_number_of_threads():
    operator, x = WinogradConv2d(layer(32, 32), relu=False, dtype=torch.bfloat16), torch.randn(5, 32, 17, 13).bfloat16()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(operator(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_other_convolutions_do_not_fit(conv):
    assert not fits(conv)
    with pytest.raises(LookupError, match="is no 3x3 convolution"):
        WinogradConv2d(conv, relu=False, dtype=torch.float32)


def test_channels_that_fill_no_vectors_are_refused():
    with pytest.raises(LookupError, match="no compiled kernel for 10 and 16 channels"):
        WinogradConv2d(layer(10, 16), relu=False, dtype=torch.float32)
    with pytest.raises(LookupError, match=r"torch\.float16"):
        WinogradConv2d(layer(16, 16), relu=False, dtype=torch.float16)
    operator = WinogradConv2d(layer(16, 16), relu=False, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="expected 16 channels, found 32"):
        operator(torch.zeros(1, 32, 4, 4))


def test_without_kernels_it_is_refused(kernels_off):
    with kernels_off(), pytest.raises(LookupError, match="no compiled kernel"):
        WinogradConv2d(layer(16, 16), relu=False, dtype=torch.float32)


def test_exports_with_its_own_shapes():
    operator = WinogradConv2d(layer(16, 32), relu=True, dtype=torch.float32)
    x = torch.randn(2, 16, 7, 6)
    torch.library.opcheck(
        torch.ops.convmix.winograd_conv2d.default, (x, operator.weight, operator.bias, operator.vectors, True),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip
    program = torch.export.export(operator, (x,))
    assert torch.equal(program.module()(x), operator(x))


@torch.no_grad()
def test_weights_off_a_64_byte_boundary_give_the_same_bits():
    """As those of a file that is mapped into memory."""
    conv, x = WinogradConv2d(layer(64, 64), relu=False, dtype=torch.float32), torch.randn(2, 64, 9, 12)
    expected = conv(x)
    room = torch.empty(conv.weight.numel() + 1)
    moved = room[1 if room.data_ptr() % 64 == 0 else 0 :][: conv.weight.numel()].view_as(conv.weight).copy_(conv.weight)
    assert moved.data_ptr() % 64
    for _ in range(20):
        assert torch.equal(torch.ops.convmix.winograd_conv2d(x, moved, conv.bias, conv.vectors, False), expected)
