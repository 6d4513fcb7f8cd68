# ruff: noqa: N803, RUF005, SIM108 (sizes in capitals; Triton takes no unpacked tuples)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""The depthwise convolution and its weight gradient as products of band matrices, on the tensor cores; bfloat16 and float16, channels last.

Along a row, a channel's convolution is a product with a band matrix: 8 output columns = 16 input columns times a 16 x 8 matrix that holds
the taps of one kernel row on 9 or fewer diagonals (32 x 8 up to k = 15). A program holds those of all k rows, takes `rows` = 16 places (an
image and 8 of its columns) and goes down the image: each input row is read once and multiplied into the k output rows it belongs to. The
weight gradient is the same turned round: 16 x 8 sums per kernel row, of which the diagonals are added at the end.

Why that should pay, per output at k = 9 on Hopper: the products are 81, in bands 81 * 16 / 9 = 144. The plain units do 128 products a cycle
and multiprocessor and need as many instructions again for reading and converting: over a cycle for an output. The tensor cores do about
1300 a cycle by `mma.sync`: 0.11 cycles. Reading and writing an output (4 bytes at 4.3 TB/s over 132 multiprocessors, 18 bytes a cycle)
takes 0.21 cycles, so memory is the limit, as it should be. Compiled for sm_90 the loop has 0.7 warp instructions per output, 1.3 with GELU
and residual (0.17 and 0.32 cycles); the direct kernel has 5.9. Counted from the disassembly, not measured. Small k fill less of the bands
(3 of 16), but there memory is the limit all the more.
"""

import triton
import triton.language as tl
from torch import Tensor

from convmix.ops.gpu.arithmetic import activated, product
from convmix.ops.gpu.tuning import Launch, bucket

PLACES, COLUMNS = 16, 8  # the M and N of one tensor-core instruction
PROGRAMS = 512  # of a weight gradient: the sums of its diagonals at the end cost what 32 rows of an image do


def candidates(x: Tensor, kernel_size: int) -> list[Launch]:
    """Launches worth a measurement; none for types that the tensor cores would round."""
    if x.element_size() != 2:
        return []
    blocks = ((16, 8), (8, 4)) if kernel_size <= COLUMNS + 1 else ((8, 8),)
    height = x.shape[2]
    spans = [height] if height <= 16 else [height, -(-height // 2)]
    return [Launch(PLACES, COLUMNS, c, warps, steps=span, way="banded") for c, warps in blocks for span in spans]


def correlation_candidates(x: Tensor, kernel_size: int) -> list[Launch]:
    """The same for the weight gradient; a program goes through as many groups of places as leave about PROGRAMS of them."""
    found = []
    for cut in candidates(x[:, :, :16], kernel_size):
        groups = bucket(triton.cdiv(_places(x), PLACES)) * triton.cdiv(x.shape[1], cut.channels)
        found.append(cut._replace(steps=triton.next_power_of_2(max(1, groups // PROGRAMS))))
    return found


def tiles(x: Tensor, cut: Launch) -> int:
    """The groups of places that the programs of a weight gradient share."""
    return triton.cdiv(_places(x), cut.rows)


def programs(x: Tensor, cut: Launch) -> int:
    """How many programs share the places and rows of x; as many again do other channels."""
    return triton.cdiv(_places(x), cut.rows) * triton.cdiv(x.shape[2], cut.steps)


def convolve(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    addend: Tensor | None,
    y: Tensor,
    partial: Tensor | None,
    counts: Tensor | None,
    before: int,
    act: str,
    epilogue: str,
    cut: Launch,
) -> None:
    """What `convolution` launches, in this manner."""
    _, channels, height, width = x.shape
    _convolve[(programs(x, cut), triton.cdiv(channels, cut.channels))](
        x, taps, bias, scale, shift, addend, y, partial, counts, _places(x), height, width, channels, before,
        K=taps.shape[0], PLACES=cut.rows, INPUTS=_inputs(taps.shape[0]), COLUMNS=cut.columns, CHANNELS=cut.channels, SPAN=cut.steps,
        ACT=act, EPILOGUE=epilogue, **cut.options(), num_stages=2,
    )  # fmt: skip


def correlate(x: Tensor, dy: Tensor, partial: Tensor, kernel_size: int, before: int, cut: Launch) -> None:
    """What `correlation` launches, in this manner: partial is programs,k*k+1,C."""
    _, channels, height, width = x.shape
    _correlate[(partial.shape[0], triton.cdiv(channels, cut.channels))](
        x, dy, partial, _places(x), height, width, channels, before, K=kernel_size, PLACES=cut.rows, INPUTS=_inputs(kernel_size),
        COLUMNS=cut.columns, CHANNELS=cut.channels, STEPS=cut.steps, **cut.options(), num_stages=2,
    )  # fmt: skip


def _places(x: Tensor) -> int:
    return x.shape[0] * triton.cdiv(x.shape[3], COLUMNS)


def _inputs(kernel_size: int) -> int:
    """Input columns of 8 output columns: 8 + k - 1, filled up to what one or two instructions take."""
    return 16 if kernel_size <= COLUMNS + 1 else 32


@triton.jit
def _convolve(
    x, taps, bias, scale, shift, addend, y, partial, counts, places, H, W, C, before,
    K: tl.constexpr, PLACES: tl.constexpr, INPUTS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, SPAN: tl.constexpr,
    ACT: tl.constexpr, EPILOGUE: tl.constexpr,
):  # fmt: skip
    program, block = tl.program_id(0), tl.program_id(1)
    across, spans = tl.cdiv(W, COLUMNS), tl.cdiv(H, SPAN)
    start = program % spans * SPAN
    stop = tl.minimum(start + SPAN, H)
    # Three axes: images are read and written as places, columns, channels, and multiplied as channels, places, columns.
    m = (program // spans * PLACES + tl.arange(0, PLACES))[:, None, None]
    c = (block * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
    image = (m // across).to(tl.int64) * (H * W * C)
    from_column = m % across * COLUMNS - before + tl.arange(0, INPUTS)[None, :, None]
    to_column = m % across * COLUMNS + tl.arange(0, COLUMNS)[None, :, None]
    readable = (m < places) & (from_column >= 0) & (from_column < W) & (c < C)
    writable = (m < places) & (to_column < W) & (c < C)
    source = x + image + from_column * C + c
    target = image + to_column * C + c

    channel = (block * CHANNELS + tl.arange(0, CHANNELS))[:, None, None]
    diagonal = tl.arange(0, INPUTS)[None, :, None] - tl.arange(0, COLUMNS)[None, None, :]
    bands = ()
    for i in tl.static_range(K):
        tap = taps + (i * K + diagonal) * C + channel
        bands = bands + (tl.load(tap, mask=(diagonal >= 0) & (diagonal < K) & (channel < C), other=0.0),)

    offset, factor, level = 0.0, 1.0, 0.0
    if bias is not None:
        offset = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
    if EPILOGUE == "MIX":
        factor = tl.load(scale + c, mask=c < C, other=0.0).to(tl.float32)
        if shift is not None:
            level = tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)
    first = tl.zeros((PLACES, COLUMNS, CHANNELS), tl.float32)
    total, squares = first, first

    acc = ()
    for _ in tl.static_range(K):
        acc = acc + (tl.zeros((CHANNELS, PLACES, COLUMNS), tl.float32),)
    for base in range(start - before, stop + K - 1 - before, K):
        for s in tl.static_range(K):
            row = base + s
            value = tl.load(source + row * (W * C), mask=readable & (row + c * 0 >= 0) & (row + c * 0 < H), other=0.0)
            value = tl.permute(value, (2, 0, 1))
            added = ()
            for a in tl.static_range(K):  # in slot a the output row to which this input row is kernel row (s - a) mod K
                added = added + (product(value, bands[(s - a + K) % K], acc[a]),)
            h = row - (K - 1) + before  # the output row that is complete now
            u = tl.permute(added[(s + 1) % K], (1, 2, 0)) + offset
            present = writable & (h + c * 0 >= start) & (h + c * 0 < stop)
            at = target + h * (W * C)
            if EPILOGUE == "MIX":
                u = tl.load(x + at, mask=present, other=0.0).to(tl.float32) + factor * activated(u, ACT) + level
            elif EPILOGUE == "ADD":
                u = u + tl.load(addend + at, mask=present, other=0.0).to(tl.float32)
            rounded = u.to(y.dtype.element_ty)
            tl.store(y + at, rounded, mask=present)
            if EPILOGUE == "MOMENTS":  # of each column apart, from its first value on, so that the squares do not cancel
                g = activated(rounded.to(tl.float32), ACT)
                first = tl.where(h + c * 0 == start, g, first)
                apart = tl.where(present, g - first, 0.0)
                total += apart
                squares += apart * apart
            acc = ()
            for a in tl.static_range(K):
                if a == (s + 1) % K:
                    acc = acc + (tl.zeros((CHANNELS, PLACES, COLUMNS), tl.float32),)
                else:
                    acc = acc + (added[a],)

    if EPILOGUE == "MOMENTS":
        rows = (stop - start).to(tl.float32)
        within = (m < places) & (to_column < W) & (c >= 0)
        columns = tl.sum(tl.sum(tl.sum(tl.where((m < places) & (to_column < W), 1.0, 0.0), 2), 1), 0)
        means = tl.where(within, first + total / rows, 0.0)
        mean = tl.sum(tl.sum(means, 1), 0)[None, None, :] / columns
        apart = tl.where(within, means - mean, 0.0)
        squares = tl.where(within, squares - total * total / rows, 0.0) + rows * apart * apart
        at = partial + program.to(tl.int64) * (2 * C) + block * CHANNELS + tl.arange(0, CHANNELS)
        real = block * CHANNELS + tl.arange(0, CHANNELS) < C
        tl.store(at, tl.sum(tl.sum(means, 1), 0) * rows, mask=real)
        tl.store(at + C, tl.sum(tl.sum(squares, 1), 0), mask=real)
        if block == 0:
            tl.store(counts + program, columns * rows)


@triton.jit
def _correlate(
    x, dy, partial, places, H, W, C, before,
    K: tl.constexpr, PLACES: tl.constexpr, INPUTS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    program, block = tl.program_id(0), tl.program_id(1)
    across = tl.cdiv(W, COLUMNS)
    c = (block * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
    sums = ()
    for _ in tl.static_range(K):
        sums = sums + (tl.zeros((CHANNELS, INPUTS, COLUMNS), tl.float32),)
    plain = tl.zeros((PLACES, COLUMNS, CHANNELS), tl.float32)
    for step in range(STEPS):
        m = ((program * STEPS + step) * PLACES + tl.arange(0, PLACES))[:, None, None]
        image = (m // across).to(tl.int64) * (H * W * C)
        x_column = m % across * COLUMNS - before + tl.arange(0, INPUTS)[None, :, None]
        y_column = m % across * COLUMNS + tl.arange(0, COLUMNS)[None, :, None]
        visible = (m < places) & (x_column >= 0) & (x_column < W) & (c < C)
        readable = (m < places) & (y_column < W) & (c < C)
        at_x, at_y = x + image + x_column * C + c, dy + image + y_column * C + c
        held = ()  # the last K rows of dy, the newest last: before the first row of x those from before - K on, zero above the image
        for a in tl.static_range(K):
            h = before - K + a
            steep = tl.load(at_y + h * (W * C), mask=readable & (c * 0 + h >= 0) & (c * 0 + h < H), other=0.0)
            plain += steep.to(tl.float32)
            held = held + (tl.permute(steep, (2, 0, 1)),)
        for base in range(0, H, K):
            for s in tl.static_range(K):
                row = base + s
                h = row + before
                steep = tl.load(at_y + h * (W * C), mask=readable & (c * 0 + h < H), other=0.0)
                plain += steep.to(tl.float32)
                value = tl.load(at_x + row * (W * C), mask=visible & (c * 0 + row < H), other=0.0)
                value = tl.permute(value, (2, 1, 0))  # channels, input columns, places
                kept = ()
                for a in tl.static_range(K - 1):
                    kept = kept + (held[a + 1],)
                held = kept + (tl.permute(steep, (2, 0, 1)),)
                summed = ()
                for i in tl.static_range(
                    K
                ):  # kernel row i takes dy's row h to x's row h - before + i, so this row of x to row + before - i
                    summed = summed + (product(value, held[K - 1 - i], sums[i]),)
                sums = summed
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    out = partial + program.to(tl.int64) * ((K * K + 1) * C) + channel
    diagonal = tl.arange(0, INPUTS)[None, :, None] - tl.arange(0, COLUMNS)[None, None, :]
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            tl.store(out + (i * K + j) * C, tl.sum(tl.sum(tl.where(diagonal == j, sums[i], 0.0), 2), 1), mask=channel < C)
    tl.store(out + K * K * C, tl.sum(tl.sum(plain, 1), 0), mask=channel < C)
