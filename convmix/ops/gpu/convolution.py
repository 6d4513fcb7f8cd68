# ruff: noqa: N803, RUF005, SIM108 (sizes in capitals; Triton takes no unpacked tuples)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""Depthwise convolution at stride 1 on CUDA, channels last, and what may follow it in the same pass over memory.

    x B,C,H,W * weight C,1,k,k + bias C -> B,C,H,W

One program computes rows x columns x channels of one image. Threads lie along rows and channels; the columns are
unrolled, so that each value read serves up to k output columns from a register: (columns + k - 1) / (columns * k) reads per product
instead of one. All products and sums are float32; the weights are rounded to x's type, as PyTorch's convolution
under autocast does.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from convmix.ops.gpu.arithmetic import activated
from convmix.ops.gpu.moments import combined
from convmix.ops.gpu.tuning import Launch, bucket, choose

TILES = ((8, 64, 4), (4, 128, 4), (16, 64, 8), (16, 32, 4), (4, 64, 4))  # rows, channels, warps: 2 or 4 channels of one row per thread
COLUMNS = (8, 7, 6, 5)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    before: int,
    *,
    flipped: bool = False,
    addend: Tensor | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """The convolution with `before` rows and columns of zeros above and left of x: B,C,H,W -> B,C,H,W of x's type.

    flipped: with the kernel turned round; of dy, with before = k-1-before, this is the input gradient.
    addend: B,C,H,W, added before rounding.
    """
    y = torch.empty_like(x)
    epilogue = "" if addend is None else "ADD"

    def run(cut: Launch) -> None:
        _launch(x, taps_of(weight, x.dtype, flipped=flipped), bias, None, None, addend, y, None, None, before, "", epilogue, cut)

    run(launch or _chosen(x, weight.shape[-1], f"convolve{epilogue}", run))
    return y


def convolve_with_moments(
    x: Tensor, weight: Tensor, bias: Tensor | None, before: int, act: str, *, launch: Launch | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution u B,C,H,W in x's type, and mean and biased variance C float32 of act(u), u as rounded.

    Every program leaves the sum and the squared deviations of its tile, C each; a second kernel combines them, always in the same order.
    """
    u, found = torch.empty_like(x), [x.new_empty(0)] * 2

    def run(cut: Launch) -> None:
        programs = _tiles(x, cut)
        partial, counts = x.new_empty(programs, 2, x.shape[1], dtype=torch.float32), x.new_empty(programs, dtype=torch.float32)
        _launch(x, taps_of(weight, x.dtype), bias, None, None, None, u, partial, counts, before, act, "MOMENTS", cut)
        found[:] = combined(partial, counts, count=x.numel() // x.shape[1])

    run(launch or _chosen(x, weight.shape[-1], f"convolveMOMENTS{act}", run))
    return u, found[0], found[1]


def mix(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    shift: Tensor | None,
    before: int,
    act: str,
    *,
    launch: Launch | None = None,
) -> Tensor:
    """x + scale * act(convolution of x + bias) + shift, the space-mixing half of a trained ConvMixer block in one pass: B,C,H,W -> B,C,H,W.

    taps: k,k,C, what `taps_of` made of a weight that stays. bias, scale, shift: C float32.
    """
    y = torch.empty_like(x)

    def run(cut: Launch) -> None:
        _launch(x, taps, bias, scale, shift, None, y, None, None, before, act, "MIX", cut)

    run(launch or _chosen(x, taps.shape[0], f"mix{act}", run))
    return y


def taps_of(weight: Tensor, dtype: torch.dtype, *, flipped: bool = False) -> Tensor:
    """C,1,k,k -> k,k,C in memory, in one pass."""
    channels, _, k, _ = weight.shape
    return weight.new_empty(k, k, channels, dtype=dtype).copy_((weight.flip(2, 3) if flipped else weight).squeeze(1).permute(1, 2, 0))


def candidates(x: Tensor) -> list[Launch]:
    """Launches worth a measurement for x: tiles no larger than the image."""
    _, channels, height, width = x.shape
    columns = min(COLUMNS, key=lambda c: (-(-width // c) * c, -c)) if width > COLUMNS[0] else width
    most_channels, most_rows = max(16, triton.next_power_of_2(channels)), triton.next_power_of_2(height)
    cut = [Launch(min(r, most_rows), columns, min(c, most_channels), warps) for r, c, warps in TILES]
    return list(dict.fromkeys(cut))


def _chosen(x: Tensor, kernel_size: int, kernel: str, run: Callable[[Launch], object]) -> Launch:
    batch, channels, height, width = x.shape
    return choose(kernel, (kernel_size, channels, height, width, x.dtype, bucket(batch)), candidates(x), run, on=x)


def _tiles(x: Tensor, cut: Launch) -> int:
    return x.shape[0] * triton.cdiv(x.shape[2], cut.rows) * triton.cdiv(x.shape[3], cut.columns)


def _launch(
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
    bias = None if bias is None else bias.contiguous()
    _, channels, height, width = x.shape
    grid = (_tiles(x, cut), triton.cdiv(channels, cut.channels))
    _convolve[grid](
        x, taps, bias, scale, shift, addend, y, partial, counts, height, width, channels, before,
        K=taps.shape[0], ROWS=cut.rows, COLUMNS=cut.columns, CHANNELS=cut.channels, ACT=act, EPILOGUE=epilogue, **cut.options(),
    )  # fmt: skip


@triton.jit
def _convolve(
    x, taps, bias, scale, shift, addend, y, partial, counts, H, W, C, before,
    K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ACT: tl.constexpr, EPILOGUE: tl.constexpr,
):  # fmt: skip
    tile, block = tl.program_id(0), tl.program_id(1)
    across, down = tl.cdiv(W, COLUMNS), tl.cdiv(H, ROWS)
    w = tl.full((1, 1), tile % across * COLUMNS, tl.int32)  # a tensor, for the interpreter cannot combine a mask with a scalar
    h = (tile // across % down * ROWS + tl.arange(0, ROWS))[:, None]
    c = (block * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    image = (tile // (across * down)).to(tl.int64) * (H * W * C)

    acc = ()
    for _ in tl.static_range(COLUMNS):
        acc = acc + (tl.zeros((ROWS, CHANNELS), tl.float32),)
    for i in range(K):
        row = h - before + i
        readable = (row >= 0) & (row < H) & (c < C)
        at = x + image + row * (W * C) + c
        tap = ()
        for j in tl.static_range(K):  # the same for every row, but read in the layout in which it is used
            tap = tap + (tl.load(taps + (i * K + j) * C + c + h * 0, mask=(c < C) & (h >= 0), other=0.0).to(tl.float32),)
        for q in tl.static_range(COLUMNS + K - 1):
            column = w - before + q
            value = tl.load(at + column * C, mask=readable & (column >= 0) & (column < W), other=0.0).to(tl.float32)
            added = ()
            for p in tl.static_range(COLUMNS):
                if (q >= p) and (q - p < K):
                    added = added + (acc[p] + value * tap[q - p],)
                else:
                    added = added + (acc[p],)
            acc = added

    offset, factor, level = 0.0, 1.0, 0.0
    if bias is not None:
        offset = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
    if EPILOGUE == "MIX":
        factor = tl.load(scale + c, mask=c < C, other=0.0).to(tl.float32)
        if shift is not None:
            level = tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)
    kept = ()
    for p in tl.static_range(COLUMNS):
        writable = (h < H) & (c < C) & (w + p < W)
        at = image + h * (W * C) + (w + p) * C + c
        u = acc[p] + offset
        if EPILOGUE == "MIX":
            u = tl.load(x + at, mask=writable, other=0.0).to(tl.float32) + factor * activated(u, ACT) + level
        elif EPILOGUE == "ADD":
            u = u + tl.load(addend + at, mask=writable, other=0.0).to(tl.float32)
        rounded = u.to(y.dtype.element_ty)
        tl.store(y + at, rounded, mask=writable)
        if EPILOGUE == "MOMENTS":
            kept = kept + (tl.where(writable, activated(rounded.to(tl.float32), ACT), 0.0),)

    if EPILOGUE == "MOMENTS":
        total = kept[0]
        for p in tl.static_range(1, COLUMNS):
            total = total + kept[p]
        total = tl.sum(total, 0)[None, :]
        rows, columns = tl.minimum(ROWS, H - tile // across % down * ROWS), tl.minimum(COLUMNS, W - tile % across * COLUMNS)
        mean = total / (rows * columns).to(tl.float32)
        squares = tl.zeros((ROWS, CHANNELS), tl.float32)
        for p in tl.static_range(COLUMNS):
            deviation = tl.where((h < H) & (w + p < W), kept[p] - mean, 0.0)
            squares += deviation * deviation
        at = partial + tile.to(tl.int64) * (2 * C) + c
        tl.store(at, total, mask=c < C)
        tl.store(at + C, tl.sum(squares, 0)[None, :], mask=c < C)
        if block == 0:
            tl.store(counts + tile, (rows * columns).to(tl.float32))
