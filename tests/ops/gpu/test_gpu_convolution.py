"""The depthwise convolution and its weight gradient against float64: every epilogue and edge; on a card all types and sizes."""

import pytest
import torch
from gpu_images import EVERYTHING, ROUNDING, SHAPES, everything, images
from torch.nn import functional as F

from convmix.ops.depthwise import _reference_gradients, reference
from convmix.ops.gpu import convolution, correlation
from convmix.ops.gpu.tuning import Launch

LAUNCHES = (Launch(4, 5, 16), Launch(8, 8, 32, 8))
TYPES = (torch.float32, torch.bfloat16, torch.float16)


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


@pytest.mark.parametrize("dtype", TYPES if EVERYTHING else TYPES[:2], ids=str)
def test_convolution_and_epilogues_equal_float64(dtype, device, close):
    cases = list(
        zip(LAUNCHES, (((1, 3, 4, 5), 4), ((1 + EVERYTHING, 5, 3, 9), 3)), strict=True)
    )  # an even kernel; an image wider than a tile
    for launch, (shape, k) in cases if EVERYTHING else cases[TYPES.index(dtype) :][:1]:
        check_epilogues(shape, k, dtype, device, launch, close, ROUNDING[dtype])


def wide_enough(k):
    """A shape in which no tap of a kernel of this size falls beyond the image for every output."""
    return (2, 9, 7, 9) if k <= 9 else (1, 9, 5, 19)


@everything
@pytest.mark.parametrize("k", range(3, 16))
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_kernel_size_equals_float64(k, dtype, device, close):
    for launch in LAUNCHES:
        check_epilogues(wide_enough(k), k, dtype, device, launch, close, ROUNDING[dtype])


@everything
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_shape_equals_float64(dtype, shape, device, close):
    for launch in LAUNCHES:
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
    (torch.float32, Launch(4, 5, 16, steps=2, taps=1), (3, 3, 4, 4), 3),  # three tiles, of which programs take two
    (torch.bfloat16, Launch(8, 8, 32, taps=3, steps=2), (2, 3, 4, 9), 4),  # rows of the kernel and columns of the image that are left over
    (torch.float16, Launch(8, 8, 32, taps=3, steps=2), (2, 3, 4, 9), 4),
)


@pytest.mark.parametrize(("dtype", "launch", "shape", "k"), CORRELATIONS if EVERYTHING else CORRELATIONS[:2], ids=str)
def test_weight_gradient_equals_float64_and_repeats_to_the_bit(dtype, launch, shape, k, device, close):
    check_gradients(shape, k, dtype, device, launch, close)


@everything
@pytest.mark.parametrize("k", range(3, 16))
def test_weight_gradients_of_every_kernel_size(k, device, close):
    for dtype, launch, _, _ in CORRELATIONS:
        check_gradients(wide_enough(k), k, dtype, device, launch, close)


@everything
def test_candidates_fit_every_shape(device):
    """Each launch that may be measured gives the same numbers; the smallest shapes are where a tile outgrows the image."""
    x, weight, _ = operands((1, 3, 2, 3), 3, torch.bfloat16, device)
    exact = reference(x.double(), weight.double(), None, 1)
    for launch in convolution.candidates(x):
        y = convolution.convolve(x, weight, None, 1, launch=launch)
        assert (y.double() - exact).norm() <= ROUNDING[x.dtype] * exact.norm(), launch
    exact_dw, _ = _reference_gradients(x.double(), x.double(), 3, 1)
    for launch in correlation.candidates(x, 3):
        dw, _ = correlation.correlate(x, x, 3, 1, launch=launch)
        assert (dw.double() - exact_dw).norm() <= 2e-6 * exact_dw.norm(), launch
