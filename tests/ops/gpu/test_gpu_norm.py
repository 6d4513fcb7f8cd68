"""Activation and BatchNorm, the pointwise product, and GELU itself against float64."""

import pytest
import torch
from gpu_images import EVERYTHING, ROUNDING, images
from torch.nn import functional as F

from convmix.ops import act_norm
from convmix.ops.gpu import norm, pointwise
from convmix.ops.gpu.tuning import Launch

TYPES = (torch.float32, torch.bfloat16, torch.float16)
EPS = 1e-5


CUTS = (((2, 17, 3, 5), Launch(8, 1, 16, steps=2)), ((1, 40, 3, 3), Launch(4, 1, 32, steps=2)), ((1, 3, 2, 3), None))
EVERY = [(act, dtype, CUTS) for act in ("GELU", "RELU") for dtype in TYPES]
FEW = [("GELU", torch.float32, CUTS[:1]), ("RELU", torch.bfloat16, CUTS[1:])]


@pytest.mark.parametrize(("act", "dtype", "cuts"), EVERY if EVERYTHING else FEW, ids=str)
def test_statistics_and_gradients_equal_float64(dtype, act, cuts, device, close):
    for shape, launch in cuts:
        u, dy, residual = (images(shape, dtype, device) for _ in range(3))
        u = u * 3 - 2  # GELU's flat end too
        u[:, :, 0, 0] = 3  # but no channel that is flat as a whole
        weight, bias = torch.randn(2, shape[1], device=device)
        weight, bias = weight.clone(), bias.clone()
        u64, dy64, residual64 = u.double(), dy.double(), residual.double()
        y64, mean64, var64 = act_norm._reference(u64, residual64, weight.double(), bias.double(), EPS, act)
        du64, dweight64, dbias64 = act_norm._reference_backward(dy64, u64, weight.double(), mean64, var64, EPS, act)
        mean, var = norm.moments(u, act, launch=launch)
        close(mean, mean64, 2e-6, "mean")
        close(var, var64, 1e-5, "var")
        close(norm.normalise(u, mean, var, weight, bias, EPS, act, residual), y64, 2 * ROUNDING[dtype], "y")
        close(norm.normalise(u, mean, var, weight, bias, EPS, act, None), y64 - residual64, 2 * ROUNDING[dtype], "y alone")
        normed64 = (activated(u64, act) - mean64[:, None, None]) * (var64 + EPS).rsqrt()[:, None, None]
        dweight, dbias = norm.gradient_sums(dy, u, mean, var, EPS, act, launch=launch)
        close(dweight, dweight64, 5e-6, "dweight", scale=norm_of_sum(dy64 * normed64))
        close(dbias, dbias64, 5e-6, "dbias", scale=norm_of_sum(dy64))
        rows = u.numel() // shape[1]
        parts = (dy64, dbias64[:, None, None] / rows, normed64 * dweight64[:, None, None] / rows)  # du is what they leave of one another
        scale = max(((weight / (var64 + EPS).sqrt())[:, None, None] * part).norm().item() for part in parts)
        close(norm.gradient(dy, u, weight, mean, var, dweight, dbias, EPS, act), du64, 5 * ROUNDING[dtype], "du", scale=scale)


def norm_of_sum(terms):
    """What the sums over all rows would be if no term had another sign."""
    return terms.abs().sum((0, 2, 3)).norm().item()


def activated(u, act):
    return F.gelu(u) if act == "GELU" else F.relu(u)


def test_variance_survives_a_large_mean(device, close):
    """Sums of plain squares would leave nothing of it in float32."""
    u = images((2, 5, 5, 8), torch.float32, device) + 3000
    mean, var = norm.moments(u, "RELU", launch=Launch(8, 1, 16, steps=3))
    close(mean, u.double().mean((0, 2, 3)), 1e-6)
    close(var, u.double().var((0, 2, 3), correction=0), 1e-4)


def test_gelu_is_the_exact_one(device):
    u = torch.linspace(-14, 14, 4001, device=device).reshape(1, 1, -1, 1)
    y = torch.empty_like(u)
    norm.activate(u, "GELU", None, y)
    assert (y.double() - F.gelu(u.double())).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", TYPES if EVERYTHING else TYPES[:2], ids=str)
def test_pointwise_product_equals_float64(dtype, device, close):
    x, weight = images((2, 24, 3, 5), dtype, device), torch.randn(40, 24, 1, 1, device=device).to(dtype)
    bias, shift = torch.randn(40, device=device), torch.randn(40, device=device)
    exact = F.conv2d(x.double(), weight.double(), bias.double())
    launches = [pointwise.CUBLAS] if dtype == torch.float32 else [pointwise.CUBLAS, Launch(16, 16, 32, steps=2)]
    for launch in launches:
        close(pointwise.multiply(x, weight, bias, "GELU", shift, launch=launch), F.gelu(exact) + shift[:, None, None], 3 * ROUNDING[dtype])
        close(pointwise.multiply(x, weight, bias, "RELU", launch=launch), F.relu(exact), 3 * ROUNDING[dtype])
