# ruff: noqa: N803 (kernels name sizes in capitals; mypy cannot read what Triton compiles)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""What several kernels compute: activations and their slopes, float32 in and out, and products on the tensor cores.

ACT is "GELU" (the exact one), "RELU" or "". GELU is u * P(u), P the normal distribution's. Its smaller tail comes from Abramowitz and
Stegun's formula 7.1.26, within 7.5e-8: one exponential, which the slope needs anyway, in place of the branches of the error function,
which would cost as much as half of a 9x9 convolution.
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def activated(u, ACT: tl.constexpr):
    if ACT == "GELU":
        return u * _below(u, _bell(u))
    elif ACT == "RELU":
        return tl.where(u < 0, 0.0, u)  # a NaN stays one
    else:
        return u


@triton.jit
def slope(u, ACT: tl.constexpr):
    if ACT == "GELU":
        bell = _bell(u)
        return _below(u, bell) + u * bell * 0.3989422804014327
    elif ACT == "RELU":
        return tl.where(u > 0, 1.0, 0.0)
    else:
        return tl.full(u.shape, 1.0, tl.float32)


@triton.jit
def product(a, b, acc):
    """acc + a @ b, 16-bit operands, float32 sums."""
    if INTERPRETED:  # which takes the bits of bfloat16 for whole numbers here
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    else:
        return tl.dot(a, b, acc)


@triton.jit
def _below(u, bell):
    """P(u) from exp(-u*u/2)."""
    t = _inverse(1.0 + 0.23164189 * tl.abs(u))  # 0.3275911 / sqrt(2)
    tail = (((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t) * (0.5 * bell)
    return tl.where(u < 0, tail, 1.0 - tail)


@triton.jit
def _bell(u):
    """exp(-u*u/2) as a power of two; one instruction that takes tiny results for zero."""
    if INTERPRETED:
        return tl.exp2(-0.7213475204444817 * u * u)
    else:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [-0.7213475204444817 * u * u], tl.float32, True, 1)


@triton.jit
def _inverse(x):
    """1/x within one unit in the last place, for x of at least 1."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
