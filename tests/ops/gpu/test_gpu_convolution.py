"""The depthwise convolution and its weight gradient against float64: every manner, epilogue, type, kernel size and cut."""

import os

import pytest
import torch
from gpu_images import ROUNDING, SHAPES, images
from torch.nn import functional as F

from convmix.ops.depthwise import _reference_gradients, reference
from convmix.ops.gpu import banded, convolution, correlation
from convmix.ops.gpu.tuning import Launch

DIRECT = (Launch(4, 5, 16), Launch(8, 8, 32, 8))
BANDED = (Launch(16, 8, 8, steps=64, way="banded"), Launch(16, 8, 16, 8, steps=3, way="banded"))
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# The interpreter takes up to a minute a case. There each size meets one type, and in the everyday suite each shape too, and few sizes have
# to do, without epilogues: even, odd, and beyond 9, where the blocks for the tensor cores are smaller.
ON_A_CARD = torch.cuda.is_available()
EVERYTHING = ON_A_CARD or os.environ.get("CONVMIX_TEST_KERNELS") == "all"
SIZES, GRADIENT_SIZES = (range(3, 16), range(3, 16)) if EVERYTHING else ((8, 9, 10), (8, 11))


def launches(dtype):
    return DIRECT if dtype == torch.float32 else (DIRECT[0], *BANDED)


def operands(shape, k, dtype, device):
    x = images(shape, dtype, device)
    weight = torch.randn(shape[1], 1, k, k, device=device).to(dtype).float()
    return x, weight, torch.randn(shape[1], device=device)


def check_convolution(shape, k, dtype, device, launch, close, tolerance):
    x, weight, bias = operands(shape, k, dtype, device)
    before = (k - 1) // 2
    exact = reference(x.double(), weight.double(), bias.double(), before)
    close(convolution.convolve(x, weight, bias, before, launch=launch), exact, tolerance, "y")


def check_epilogues(shape, k, dtype, device, launch, close, tolerance):
    x, weight, bias = operands(shape, k, dtype, device)
    before = (k - 1) // 2
    exact = reference(x.double(), weight.double(), bias.double(), before)
    close(convolution.convolve(x, weight, bias, before, launch=launch), exact, tolerance, "y")

    addend = images(shape, dtype, device)
    turned = reference(x.double(), weight.double().flip(2, 3), None, k - 1 - before) + addend.double()
    close(convolution.convolve(x, weight, None, k - 1 - before, flipped=True, addend=addend, launch=launch), turned, tolerance, "dx")

    u, mean, var = convolution.convolve_with_moments(x, weight, bias + 3, before, "GELU", launch=launch)
    close(u, exact + 3, tolerance, "u")
    exact_var, exact_mean = torch.var_mean(F.gelu(u.double()), (0, 2, 3), correction=0)
    close(mean, exact_mean, 1e-6, "mean")
    close(var, exact_var, 1e-5, "var")

    scale, shift = torch.randn(2, shape[1], device=device)
    taps = convolution.taps_of(weight, dtype)
    mixed = convolution.mix(x, taps, bias, scale, shift, before, "RELU", launch=launch)
    close(mixed, x.double() + scale[:, None, None] * F.relu(exact) + shift[:, None, None], tolerance, "mix")
    mixed = convolution.mix(x, taps, None, scale, None, before, "GELU", launch=launch)
    plain = F.gelu(reference(x.double(), weight.double(), None, before))
    close(mixed, x.double() + scale[:, None, None] * plain, tolerance, "mix without bias")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_convolution_and_epilogues_equal_float64(dtype, device, close):
    for launch, (shape, k) in zip(launches(dtype), (((1, 3, 4, 5), 4), ((2, 5, 3, 9), 3)), strict=False):
        check_epilogues(shape, k, dtype, device, launch, close, ROUNDING[dtype])


def wide_enough(k):
    """A shape in which no tap of a kernel of this size falls beyond the image for every output."""
    return (2, 9, 7, 9) if k <= 9 else (1, 9, 5, 19)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "dtype"), [(k, t) for k in SIZES for i, t in enumerate(TYPES) if ON_A_CARD or i == k % 3], ids=str)
def test_every_kernel_size_equals_float64(k, dtype, device, close):
    for launch in launches(dtype):
        if launch.way == "direct" or launch.channels == banded.candidates(images((1, 3, 5, 5), dtype, device), k)[-1].channels:
            check = check_epilogues if EVERYTHING else check_convolution
            check(wide_enough(k), k, dtype, device, launch, close, ROUNDING[dtype])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"), [(s, t) for j, s in enumerate(SHAPES) for i, t in enumerate(TYPES) if EVERYTHING or i == j % 3], ids=str
)
def test_every_shape_equals_float64(dtype, shape, device, close):
    for launch in launches(dtype):
        check_convolution(shape, 5, dtype, device, launch, close, ROUNDING[dtype])


def check_gradients(shape, k, dtype, device, launch, close):
    x, dy = images(shape, dtype, device), images(shape, dtype, device)
    before = (k - 1) // 2
    dw, db = correlation.correlate(x, dy, k, before, launch=launch)
    exact_dw, exact_db = _reference_gradients(x.double(), dy.double(), k, before)
    close(dw, exact_dw, 2e-6, "dw")
    close(db, exact_db, 2e-6, "db")
    again = correlation.correlate(x, dy, k, before, launch=launch)
    assert torch.equal(dw, again[0]) and torch.equal(db, again[1])


CORRELATIONS = (
    (torch.float32, Launch(4, 5, 16, steps=2, taps=1)),
    (torch.bfloat16, Launch(8, 8, 32, taps=3, steps=2)),
    (torch.float16, Launch(16, 8, 8, steps=2, way="banded")),
    (torch.bfloat16, Launch(16, 8, 8, steps=1, way="banded")),
)


@pytest.mark.parametrize(("dtype", "launch"), CORRELATIONS, ids=str)
def test_weight_gradient_equals_float64_and_repeats_to_the_bit(dtype, launch, device, close):
    check_gradients((2, 3, 4, 9), 4, dtype, device, launch, close)
    check_gradients((3, 3, 4, 4), 3, dtype, device, launch, close)  # three tiles, of which programs take two


@pytest.mark.slow
@pytest.mark.parametrize("k", GRADIENT_SIZES)
def test_weight_gradients_of_every_kernel_size(k, device, close):
    for dtype, launch in CORRELATIONS if ON_A_CARD else (CORRELATIONS[k % len(CORRELATIONS)],):
        check_gradients(wide_enough(k), k, dtype, device, launch, close)


def test_candidates_fit_every_shape(device):
    """Each launch that may be measured gives the same numbers; the smallest shapes are where a tile outgrows the image."""
    x, weight, _ = operands((1, 3, 2, 3), 3, torch.bfloat16, device)
    exact = reference(x.double(), weight.double(), None, 1)
    for launch in convolution.candidates(x, 3):
        y = convolution.convolve(x, weight, None, 1, launch=launch)
        assert (y.double() - exact).norm() <= ROUNDING[x.dtype] * exact.norm(), launch
    exact_dw, _ = _reference_gradients(x.double(), x.double(), 3, 1)
    for launch in correlation.candidates(x, 3):
        dw, _ = correlation.correlate(x, x, 3, 1, launch=launch)
        assert (dw.double() - exact_dw).norm() <= 2e-6 * exact_dw.norm(), launch
