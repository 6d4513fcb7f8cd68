# ruff: noqa: N803 (kernels name sizes in capitals)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""Activation, BatchNorm over the batch and residual on CUDA, channels last: the kernels of `ops.act_norm`.

    u B,C,H,W -> g = act(u) -> mean and variance of g (`moments`)
              -> y = (g - mean) / sqrt(variance + eps) * weight + bias + residual (`normalise`)
    dy        -> sums of dy and of dy * normalised g (`gradient_sums`) -> du (`gradient`)

Bytes, in passes over the image: forward 1 + 2 (one less where the producer of u gives the moments), with residual one more; backward 2 + 3.
g is never stored: it is computed again from u.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convmix.ops.gpu import moments as stage
from convmix.ops.gpu.arithmetic import activated, slope
from convmix.ops.gpu.tuning import Launch, choose

SUMS = (Launch(16, 1, 64, 4), Launch(32, 1, 64, 8), Launch(8, 1, 128, 4), Launch(16, 1, 128, 8))
PASSES = (Launch(16, 1, 64, 4), Launch(32, 1, 64, 4), Launch(8, 1, 256, 4), Launch(16, 1, 128, 8))
PROGRAMS = 1024  # of the first stage of a sum, over all channels


def moments(u: Tensor, act: str, *, launch: Launch | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of act(u) per channel, C float32 each."""
    rows, channels = _sizes(u)
    found: list[Any] = []

    def run(cut: Launch) -> None:
        programs = triton.cdiv(rows, cut.rows * cut.steps)
        partial, counts = u.new_empty(programs, 2, channels, dtype=torch.float32), u.new_empty(programs, dtype=torch.float32)
        _moments[(programs, triton.cdiv(channels, cut.channels))](
            u, partial, counts, rows, channels, ROWS=cut.rows, STEPS=cut.steps, CHANNELS=cut.channels, ACT=act, **cut.options()
        )
        found[:] = stage.combined(partial, counts, count=rows)

    run(launch or choose("moments", (act, *_shape(u)), candidates(u, SUMS, summing=True), run, on=u))
    return found[0], found[1]


def normalise(
    u: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    act: str,
    residual: Tensor | None,
    *,
    launch: Launch | None = None,
) -> Tensor:
    """(act(u) - mean) / sqrt(var + eps) * weight + bias + residual: B,C,H,W -> B,C,H,W of u's type."""
    (rows, channels), y = _sizes(u), torch.empty_like(u)

    def run(cut: Launch) -> None:
        _normalise[(triton.cdiv(rows, cut.rows), triton.cdiv(channels, cut.channels))](
            u, mean, var, weight, bias, residual, y, rows, channels, eps,
            ROWS=cut.rows, CHANNELS=cut.channels, ACT=act, **cut.options(),
        )  # fmt: skip

    run(launch or choose("normalise", (act, residual is not None, *_shape(u)), candidates(u, PASSES), run, on=u))
    return y


def gradient_sums(
    dy: Tensor, u: Tensor, mean: Tensor, var: Tensor, eps: float, act: str, *, launch: Launch | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, C float32: the sums of dy * normalised act(u) and of dy."""
    rows, channels = _sizes(u)
    found: list[Any] = []

    def run(cut: Launch) -> None:
        partial = u.new_empty(triton.cdiv(rows, cut.rows * cut.steps), 2, channels, dtype=torch.float32)
        _gradient_sums[(partial.shape[0], triton.cdiv(channels, cut.channels))](
            dy, u, mean, var, partial, rows, channels, eps,
            ROWS=cut.rows, STEPS=cut.steps, CHANNELS=cut.channels, ACT=act, **cut.options(),
        )  # fmt: skip
        found[:] = [stage.added(partial)]

    run(launch or choose("gradient_sums", (act, *_shape(u)), candidates(u, SUMS, summing=True), run, on=u))
    return found[0][0].clone(), found[0][1].clone()


def gradient(
    dy: Tensor,
    u: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    eps: float,
    act: str,
    *,
    launch: Launch | None = None,
) -> Tensor:
    """The gradient of u, from what `gradient_sums` gave: B,C,H,W of u's type."""
    (rows, channels), du = _sizes(u), torch.empty_like(u)

    def run(cut: Launch) -> None:
        _gradient[(triton.cdiv(rows, cut.rows), triton.cdiv(channels, cut.channels))](
            dy, u, weight, mean, var, dweight, dbias, du, rows, channels, 1.0 / rows, eps,
            ROWS=cut.rows, CHANNELS=cut.channels, ACT=act, **cut.options(),
        )  # fmt: skip

    run(launch or choose("gradient", (act, *_shape(u)), candidates(u, PASSES), run, on=u))
    return du


def activate(u: Tensor, act: str, shift: Tensor | None, y: Tensor, *, launch: Launch | None = None) -> None:
    """y = act(u) + shift, written into y, which may be u itself: rows,C or B,C,H,W channels last; shift C float32."""
    (rows, channels) = _sizes(u)

    def run(cut: Launch) -> None:
        _activate[(triton.cdiv(rows, cut.rows), triton.cdiv(channels, cut.channels))](
            u, shift, y, rows, channels, ROWS=cut.rows, CHANNELS=cut.channels, ACT=act, **cut.options()
        )

    run(launch or candidates(u, PASSES)[0])


def candidates(u: Tensor, launches: tuple[Launch, ...], *, summing: bool = False) -> list[Launch]:
    """Launches worth a measurement for u."""
    rows, channels = _sizes(u)
    cut = []
    for launch in launches:
        launch = launch._replace(channels=min(launch.channels, max(16, triton.next_power_of_2(channels))))
        tiles = triton.cdiv(rows, launch.rows) * triton.cdiv(channels, launch.channels)
        cut.append(launch._replace(steps=triton.next_power_of_2(max(1, tiles // PROGRAMS))) if summing else launch)
    return list(dict.fromkeys(cut))


def _sizes(u: Tensor) -> tuple[int, int]:
    return u.numel() // u.shape[1], u.shape[1]


def _shape(u: Tensor) -> tuple[object, ...]:
    return (u.shape[1], triton.next_power_of_2(_sizes(u)[0]), u.dtype)


@triton.jit
def _moments(u, partial, counts, rows, C, ROWS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr):
    program = tl.program_id(0)
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    start = program * (ROWS * STEPS)
    # Deviations from a value near the mean, the first rows' own, so that the squares do not cancel.
    row = (start + tl.arange(0, ROWS))[:, None]
    readable = (row < rows) & (c < C)
    g = tl.where(readable, activated(tl.load(u + row.to(tl.int64) * C + c, mask=readable, other=0.0).to(tl.float32), ACT), 0.0)
    pivot = tl.sum(g, 0)[None, :] / tl.minimum(ROWS, rows - start).to(tl.float32)
    total, squares = tl.zeros((ROWS, CHANNELS), tl.float32), tl.zeros((ROWS, CHANNELS), tl.float32)
    for step in range(STEPS):
        row = (start + step * ROWS + tl.arange(0, ROWS))[:, None]
        readable = (row < rows) & (c < C)
        value = tl.load(u + row.to(tl.int64) * C + c, mask=readable, other=0.0).to(tl.float32)
        apart = tl.where(readable, activated(value, ACT) - pivot, 0.0)
        total += apart
        squares += apart * apart
    count = tl.minimum(ROWS * STEPS, rows - start).to(tl.float32)
    moved = tl.sum(total, 0)[None, :]
    at = partial + program.to(tl.int64) * (2 * C) + c
    tl.store(at, moved + count * pivot, mask=c < C)
    tl.store(at + C, tl.sum(squares, 0)[None, :] - moved * moved / count, mask=c < C)
    if tl.program_id(1) == 0:
        tl.store(counts + program, count)


@triton.jit
def _normalise(
    u, mean, var, weight, bias, residual, y, rows, C, eps, ROWS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    readable = (row < rows) & (c < C)
    at = row.to(tl.int64) * C + c
    g = activated(tl.load(u + at, mask=readable, other=0.0).to(tl.float32), ACT)
    centre, spread = tl.load(mean + c, mask=c < C, other=0.0), tl.load(var + c, mask=c < C, other=0.0)
    scale = tl.load(weight + c, mask=c < C, other=0.0) * tl.rsqrt(spread + eps)
    result = (g - centre) * scale + tl.load(bias + c, mask=c < C, other=0.0)
    if residual is not None:
        result += tl.load(residual + at, mask=readable, other=0.0).to(tl.float32)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=readable)


@triton.jit
def _activate(u, shift, y, rows, C, ROWS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    at = row.to(tl.int64) * C + c
    readable = (row < rows) & (c < C)
    result = activated(tl.load(u + at, mask=readable, other=0.0).to(tl.float32), ACT)
    if shift is not None:
        result += tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=readable)


@triton.jit
def _gradient_sums(
    dy, u, mean, var, partial, rows, C, eps, ROWS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr
):  # fmt: skip
    program = tl.program_id(0)
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    centre = tl.load(mean + c, mask=c < C, other=0.0)
    plain, weighted = tl.zeros((ROWS, CHANNELS), tl.float32), tl.zeros((ROWS, CHANNELS), tl.float32)
    for step in range(STEPS):
        row = ((program * STEPS + step) * ROWS + tl.arange(0, ROWS))[:, None]
        readable = (row < rows) & (c < C)
        at = row.to(tl.int64) * C + c
        steep = tl.load(dy + at, mask=readable, other=0.0).to(tl.float32)
        g = activated(tl.load(u + at, mask=readable, other=0.0).to(tl.float32), ACT)
        plain += steep
        weighted += steep * (g - centre)
    inverse = tl.rsqrt(tl.load(var + c, mask=c < C, other=0.0) + eps)
    at = partial + program.to(tl.int64) * (2 * C) + c
    tl.store(at, tl.sum(weighted, 0)[None, :] * inverse, mask=c < C)
    tl.store(at + C, tl.sum(plain, 0)[None, :], mask=c < C)


@triton.jit
def _gradient(
    dy, u, weight, mean, var, dweight, dbias, du, rows, C, share, eps,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    readable = (row < rows) & (c < C)
    at = row.to(tl.int64) * C + c
    steep = tl.load(dy + at, mask=readable, other=0.0).to(tl.float32)
    value = tl.load(u + at, mask=readable, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.load(var + c, mask=c < C, other=0.0) + eps)
    normed = (activated(value, ACT) - tl.load(mean + c, mask=c < C, other=0.0)) * inverse
    sideways = tl.load(dbias + c, mask=c < C, other=0.0) * share + normed * tl.load(dweight + c, mask=c < C, other=0.0) * share
    dg = tl.load(weight + c, mask=c < C, other=0.0) * inverse * (steep - sideways)
    tl.store(du + at, (dg * slope(value, ACT)).to(du.dtype.element_ty), mask=readable)
