# ruff: noqa: N803, RUF005 (kernels name sizes in capitals, and Triton does not unpack tuples)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""The weight and bias gradients of a depthwise convolution on CUDA, channels last, in two stages without atomics.

    x B,C,H,W, dy B,C,H,W -> dw C,1,k,k and db C, float32

    first:  tiles of rows x columns x channels, `steps` of them per program -> partial sums, programs,k*k+1,C
    second: their sum over the programs, in a fixed order

A program goes through its tiles once per `taps` rows of the kernel, taps * k sums per channel in registers; its tiles are small enough that
the later passes read them from L1 or L2. Columns are unrolled as in the convolution: columns values of dy and columns + k - 1 of x are read
for columns * k products.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convmix.ops.gpu.moments import added
from convmix.ops.gpu.tuning import Launch, bucket, choose

TILES = (
    (8, 64, 8, 1),
    (8, 32, 4, 3),
    (16, 32, 8, 3),
    (4, 64, 4, 3),
    (8, 64, 4, 1),
)  # rows, channels, warps, taps: 2 or 4 channels a thread
COLUMNS = (8, 7, 6, 5)
PROGRAMS = 2048  # enough for every multiprocessor of an H200 to hold several, and few enough that their partial sums weigh little


def correlate(x: Tensor, dy: Tensor, kernel_size: int, before: int, *, launch: Launch | None = None) -> tuple[Tensor, Tensor]:
    """The gradients of weight C,1,k,k and bias C from x and dy, channels last and of one type. Equal bits on every call."""
    batch, channels, height, width = x.shape
    found: list[Any] = []

    def run(cut: Launch) -> None:
        tiles = _tiles(x, cut)
        programs = triton.cdiv(tiles, cut.steps)
        partial = x.new_empty(programs, kernel_size**2 + 1, channels, dtype=torch.float32)
        _correlate[(programs, triton.cdiv(channels, cut.channels))](
            x, dy, partial, tiles, height, width, channels, before, K=kernel_size, ROWS=cut.rows, COLUMNS=cut.columns,
            CHANNELS=cut.channels, STEPS=cut.steps, TAPS=cut.taps, **cut.options(),
        )  # fmt: skip
        found[:] = [added(partial)]

    shape = (kernel_size, channels, height, width, x.dtype, bucket(batch))
    run(launch or choose("correlate", shape, candidates(x, kernel_size), run, on=x))
    total = found[0]  # k*k+1,C
    return total[:-1].t().reshape(channels, 1, kernel_size, kernel_size).contiguous(), total[-1].clone()


def candidates(x: Tensor, kernel_size: int) -> list[Launch]:
    """Launches worth a measurement; the steps follow from the batch's bucket, so that one choice holds for all its batches."""
    batch, channels, height, width = x.shape
    columns = min(COLUMNS, key=lambda c: (-(-width // c) * c, -c)) if width > COLUMNS[0] else width
    most_channels, most_rows = max(16, triton.next_power_of_2(channels)), triton.next_power_of_2(height)
    cut = []
    for rows, block, warps, taps in TILES:
        tile = Launch(min(rows, most_rows), columns, min(block, most_channels), warps, taps=min(taps, kernel_size))
        tiles = bucket(batch) * triton.cdiv(height, tile.rows) * triton.cdiv(width, columns) * triton.cdiv(channels, tile.channels)
        cut.append(tile._replace(steps=triton.next_power_of_2(max(1, tiles // PROGRAMS))))
    return list(dict.fromkeys(cut))


def _tiles(x: Tensor, cut: Launch) -> int:
    return x.shape[0] * triton.cdiv(x.shape[2], cut.rows) * triton.cdiv(x.shape[3], cut.columns)


@triton.jit
def _correlate(
    x, dy, partial, tiles, H, W, C, before,
    K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    program, block = tl.program_id(0), tl.program_id(1)
    across, down = tl.cdiv(W, COLUMNS), tl.cdiv(H, ROWS)
    c = (block * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    out = partial + program.to(tl.int64) * ((K * K + 1) * C) + c
    offset = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, K, TAPS):
        acc = ()
        for _ in tl.static_range(TAPS * K):
            acc = acc + (tl.zeros((ROWS, CHANNELS), tl.float32),)
        for step in range(STEPS):
            tile = program * STEPS + step
            w = tl.full((1, 1), tile % across * COLUMNS, tl.int32)
            h = (tile // across % down * ROWS + tl.arange(0, ROWS))[:, None]
            image = (tile // (across * down)).to(tl.int64) * (H * W * C)
            readable = (h < tl.where(tile < tiles, H, 0)) & (c < C)
            at = dy + image + h * (W * C) + w * C + c
            steep = ()
            for p in tl.static_range(COLUMNS):
                steep = steep + (tl.load(at + p * C, mask=readable & (w + p < W), other=0.0).to(tl.float32),)
            if first == 0:
                for p in tl.static_range(COLUMNS):
                    offset += steep[p]
            for r in tl.static_range(TAPS):
                row = h - before + first + r
                visible = readable & (row >= 0) & (row < H)
                at = x + image + row * (W * C) + (w - before) * C + c
                for q in tl.static_range(COLUMNS + K - 1):
                    column = w - before + q
                    value = tl.load(at + q * C, mask=visible & (column >= 0) & (column < W), other=0.0).to(tl.float32)
                    summed = ()
                    for s in tl.static_range(TAPS * K):
                        if (s // K == r) and (q >= s % K) and (q - s % K < COLUMNS):
                            summed = summed + (acc[s] + value * steep[q - s % K],)
                        else:
                            summed = summed + (acc[s],)
                    acc = summed
        for s in tl.static_range(TAPS * K):
            tl.store(out + (first * K + s) * C, tl.sum(acc[s], 0)[None, :], mask=(c < C) & (c >= 0) & (first + s // K < K))
    tl.store(out + K * K * C, tl.sum(offset, 0)[None, :], mask=c < C)
