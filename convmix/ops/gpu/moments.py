# ruff: noqa: N803 (kernels name sizes in capitals)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""The second stage of every sum over a batch: what the programs of a first kernel left, added per channel in a fixed order. No atomics.

partial programs,2,C float32 -> mean and variance C, or two sums C;  partial programs,m,C -> sums m,C
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK, CHANNELS = 32, 32  # programs added at once, and channels of one program


def combined(partial: Tensor, counts: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of `count` values per channel, from what each program found in its own.

    partial: programs,2,C, sums and squared deviations from the program's mean. counts: programs float32, its values per channel.
    The programs' deviations from the mean of all are added to their own (Chan, Golub and LeVeque 1983), so that nothing cancels.
    """
    programs, _, channels = partial.shape
    mean, var = partial.new_empty(channels), partial.new_empty(channels)
    _combine[(triton.cdiv(channels, CHANNELS),)](
        partial, counts, mean, var, programs, channels, 1.0 / count, CHUNK=CHUNK, CHANNELS=CHANNELS, enable_fp_fusion=True
    )
    return mean, var


def added(partial: Tensor) -> Tensor:
    """programs,m,C float32 -> m,C, the sum over the programs."""
    programs, *shape = partial.shape
    values = partial[0].numel()
    total = torch.empty(shape, device=partial.device, dtype=torch.float32)
    _add[(triton.cdiv(values, CHANNELS),)](partial, total, programs, values, CHUNK=CHUNK, VALUES=CHANNELS, enable_fp_fusion=True)
    return total


@triton.jit
def _combine(partial, counts, mean, var, programs, C, share, CHUNK: tl.constexpr, CHANNELS: tl.constexpr):
    c = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    total = tl.zeros((CHUNK, CHANNELS), tl.float32)
    for start in range(0, programs, CHUNK):
        program = (start + tl.arange(0, CHUNK))[:, None]
        total += tl.load(partial + program.to(tl.int64) * (2 * C) + c, mask=(program < programs) & (c < C), other=0.0)
    centre = tl.sum(total, 0)[None, :] * share
    squares = tl.zeros((CHUNK, CHANNELS), tl.float32)
    for start in range(0, programs, CHUNK):
        program = (start + tl.arange(0, CHUNK))[:, None]
        at, readable = partial + program.to(tl.int64) * (2 * C) + c, (program < programs) & (c < C)
        values = tl.load(counts + program, mask=program < programs, other=1.0)
        apart = tl.where(readable, tl.load(at, mask=readable, other=0.0) / values - centre, 0.0)
        squares += tl.load(at + C, mask=readable, other=0.0) + values * apart * apart
    tl.store(mean + c, centre, mask=c < C)
    tl.store(var + c, tl.sum(squares, 0)[None, :] * share, mask=c < C)


@triton.jit
def _add(partial, total, programs, values, CHUNK: tl.constexpr, VALUES: tl.constexpr):
    v = (tl.program_id(0) * VALUES + tl.arange(0, VALUES))[None, :]
    found = tl.zeros((CHUNK, VALUES), tl.float32)
    for start in range(0, programs, CHUNK):
        program = (start + tl.arange(0, CHUNK))[:, None]
        found += tl.load(partial + program.to(tl.int64) * values + v, mask=(program < programs) & (v < values), other=0.0)
    tl.store(total + v, tl.sum(found, 0)[None, :], mask=v < values)
