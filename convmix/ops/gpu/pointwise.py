# ruff: noqa: N803 (kernels name sizes in capitals)
# mypy: disable-error-code="no-untyped-def, assignment, misc, attr-defined"
"""The 1x1 convolution on CUDA with what follows it: act(x * weight + bias) + shift in one pass, bfloat16 and float16, channels last.

    x rows,C * weight O,C + bias O -> act -> + shift -> y rows,O

The alternative is cuBLAS and a pass that reads and writes y again. Per row and 1536 channels the product takes 6 ns at 790 TFLOP/s, that
pass 1.4 ns at 4.3 TB/s, so this kernel would win from about 80 % of cuBLAS's rate on. Which one runs is measured once per shape, as
launches are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from convmix.ops.gpu import norm
from convmix.ops.gpu.arithmetic import activated, product
from convmix.ops.gpu.tuning import Launch, choose

TILES = (  # rows, outputs, inputs, warps, stages
    Launch(128, 64, 128, 4, steps=4),
    Launch(128, 64, 256, 8, steps=3),
    Launch(256, 64, 128, 8, steps=3),
    Launch(64, 64, 128, 4, steps=4),
)
CUBLAS = Launch(0, 0, 0, way="cublas")
GROUP = 8  # tiles of rows whose programs run together, so that they find each other's weights in L2


def multiply(x: Tensor, weight: Tensor, bias: Tensor, act: str, shift: Tensor | None = None, *, launch: Launch | None = None) -> Tensor:
    """act(x * weight + bias) + shift: x B,C,H,W, weight O,C,1,1 of x's type, bias and shift O float32 -> B,O,H,W channels last.

    float32 goes to cuBLAS always: its own type would be tf32 here.
    """
    batch, _, height, width = x.shape
    y = torch.empty((batch, weight.shape[0], height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def run(cut: Launch) -> None:
        if cut.way == "cublas":
            _by_cublas(x, weight, bias, act, shift, y)
        else:
            _launch(x, weight, bias, act, shift, y, cut)

    candidates = [CUBLAS, *TILES] if x.element_size() == 2 else [CUBLAS]
    rows = triton.next_power_of_2(batch * height * width)
    run(launch or choose("multiply", (act, shift is not None, *weight.shape[:2], rows, x.dtype), candidates, run, on=x))
    return y


def _by_cublas(x: Tensor, weight: Tensor, bias: Tensor, act: str, shift: Tensor | None, y: Tensor) -> None:
    outputs, inputs = weight.shape[:2]
    u = F.linear(x.permute(0, 2, 3, 1).reshape(-1, inputs), weight.reshape(outputs, inputs), bias.to(x.dtype))  # rows,C -> rows,O
    norm.activate(u, act, shift, y)


def _launch(x: Tensor, weight: Tensor, bias: Tensor, act: str, shift: Tensor | None, y: Tensor, cut: Launch) -> None:
    outputs, inputs = weight.shape[:2]
    rows = x.numel() // inputs
    _multiply[(triton.cdiv(rows, cut.rows) * triton.cdiv(outputs, cut.channels),)](
        x, weight, bias, shift, y, rows, inputs, outputs, ROWS=cut.rows, INPUTS=cut.columns, OUTPUTS=cut.channels, GROUP=GROUP, ACT=act,
        **cut.options(), num_stages=cut.steps,
    )  # fmt: skip


@triton.jit
def _multiply(
    x, weight, bias, shift, y, rows, C, N,
    ROWS: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, GROUP: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(N, OUTPUTS)
    group = program // (GROUP * across)
    size = tl.minimum(GROUP, down - group * GROUP)
    r = (group * GROUP + program % (GROUP * across) % size) * ROWS + tl.arange(0, ROWS)
    o = program % (GROUP * across) // size * OUTPUTS + tl.arange(0, OUTPUTS)
    at_x = x + r.to(tl.int64)[:, None] * C
    at_weight = weight + o[None, :] * C
    acc = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for start in range(0, C, INPUTS):
        c = start + tl.arange(0, INPUTS)
        left = tl.load(at_x + c[None, :], mask=(r < rows)[:, None] & (c < C)[None, :], other=0.0)
        right = tl.load(at_weight + c[:, None], mask=(o < N)[None, :] & (c < C)[:, None], other=0.0)
        acc = product(left, right, acc)
    result = activated(acc + tl.load(bias + o, mask=o < N, other=0.0).to(tl.float32)[None, :], ACT)
    if shift is not None:
        result += tl.load(shift + o, mask=o < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + r.to(tl.int64)[:, None] * N + o[None, :], result.to(y.dtype.element_ty), mask=(r < rows)[:, None] & (o < N)[None, :])
