"""Depthwise convolution at stride 1, the output as large as the input, with fast gradients.

    x B,C,H,W * weight C,1,k,k + bias C -> B,C,H,W

The input gradient is the convolution of dy with the flipped kernel, the weight gradient an operator of its own. Every gradient is made of
the two operators, so they can be differentiated again.

Kernels of our own do it where there are some for the device, type and layout (CPU: C, channels last; CUDA: Triton, `ops.gpu`, where they
are on and trusted); PyTorch does it elsewhere, and is the reference. Without gradients it is plain `conv2d` on the CPU, which compilers and
exporters know.
"""

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convmix.ops import build
from convmix.ops.after_import import after_import
from convmix.ops.dtypes import STORAGE, real_type
from convmix.ops.gpu import routes, trial

KERNEL_SIZES = range(1, 32)
GROUPS = 32  # parts of a batch that are summed on their own for the weight gradient; more than any laptop's threads


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One k x k filter per channel at stride 1, zero-padded so that the output is as large as the input.

    x: B,C,H,W. weight: C,1,k,k. bias: C. Even kernels reach one pixel further to the right and below, as padding="same" does.
    Under autocast x is rounded to its type; weights are rounded for the product only, and get gradients of their own type.
    """
    if x.device.type == "meta":  # nothing is computed, and what reads shapes off the graph knows the plain convolution
        return reference(x, weight, bias, (weight.shape[-1] - 1) // 2)
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    before = (weight.shape[-1] - 1) // 2
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not torch.compiler.is_exporting() and _is_ours(x, weight, bias, learns=learning):
        return torch.ops.convmix.depthwise_conv2d(x, weight, bias, before)
    return reference(x, weight, bias, before)


def _is_ours(x: Tensor, weight: Tensor, bias: Tensor | None, *, learns: bool) -> bool:
    """Whether the operator below takes it: Triton's kernels where they are trusted, the CPU's for gradients."""
    k = weight.shape[-1]
    if not routes.depthwise_fits(x, k):
        return learns and x.device.type == "cpu"
    fits = weight.shape == (x.shape[1], 1, k, k) and (bias is None or bias.shape == weight.shape[:1])  # else PyTorch says what does not
    return fits and trial.trusted("depthwise", x.shape, x.dtype, x.device, k, learns)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
    """The same by PyTorch's own convolution, which pads in integers because exporters mishandle padding="same"."""
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    after = weight.shape[-1] - 1 - before
    if before != after:
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, groups=x.shape[1])
    return F.conv2d(x, weight, bias, padding=before, groups=x.shape[1])


@torch.library.custom_op("convmix::depthwise_conv2d", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
    """The convolution with `before` rows and columns of zeros above and left of x, k-1-before below and right."""
    channels, k = x.shape[1], weight.shape[-1]
    if not 0 <= before < k:
        raise RuntimeError(f"expected 0 <= before < {k}, the kernel size, but found before={before}")
    fits = weight.shape == (channels, 1, k, k) and (bias is None or bias.shape == (channels,))
    if fits and routes.depthwise_fits(x, k):
        from convmix.ops.gpu import convolution

        return convolution.convolve(x.contiguous(memory_format=torch.channels_last), weight, bias, before).contiguous(
            memory_format=_layout(x)
        )
    kernels = _kernels(x, k) if fits else None  # PyTorch says what does not fit
    if kernels is None:
        with torch.autocast(x.device.type, enabled=False):
            return reference(x, weight, bias, before).contiguous(memory_format=_layout(x))
    layout, x = _layout(x), x.contiguous(memory_format=torch.channels_last)
    taps = weight.to(x.dtype).squeeze(1).permute(1, 2, 0).contiguous()  # C,1,k,k -> k,k,C
    offset = None if bias is None else bias.to(real_type(x.dtype)).contiguous()
    y = torch.empty_like(x, memory_format=torch.channels_last)
    nothing = [None] * 4  # the zeros outside, and no activation behind
    _check(kernels.convolve(_at(x), _at(taps), _at(offset), *nothing, _at(y), *_sizes(x), before, torch.get_num_threads()))
    return y.contiguous(memory_format=layout)


@torch.library.custom_op("convmix::depthwise_conv2d_weight", mutates_args=())
def _correlate(x: Tensor, dy: Tensor, kernel_size: int, before: int) -> tuple[Tensor, Tensor]:
    """The gradients of weight C,1,k,k and bias C, in float32 (float64 for float64), from x and dy B,C,H,W."""
    fits = dy.shape == x.shape and 0 <= before < kernel_size
    on_gpu = fits and routes.depthwise_fits(x, kernel_size)
    kernels = _kernels(x, kernel_size) if fits and not on_gpu else None
    if kernels is None and not on_gpu:
        return _reference_gradients(x, dy, kernel_size, before)
    x, dy = x.contiguous(memory_format=torch.channels_last), dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    if on_gpu:
        from convmix.ops.gpu import correlation

        return correlation.correlate(x, dy, kernel_size, before)
    assert kernels is not None
    batch, height, width, channels = _sizes(x)
    groups = min(batch, GROUPS)
    sums = x.new_empty(groups, kernel_size**2 + 1, channels, dtype=real_type(x.dtype))
    _check(kernels.weight_gradient(_at(x), _at(dy), _at(sums), batch, height, width, channels, before, groups, torch.get_num_threads()))
    total = sums.sum(0)  # groups,k*k+1,C -> k*k+1,C
    return total[:-1].t().reshape(channels, 1, kernel_size, kernel_size).contiguous(), total[-1].clone()


def _reference_gradients(x: Tensor, dy: Tensor, kernel_size: int, before: int) -> tuple[Tensor, Tensor]:
    channels, after = x.shape[1], kernel_size - 1 - before
    padding = [before, before]
    if before != after:
        x, padding = F.pad(x, (before, after, before, after)), [0, 0]
    weight = x.new_empty(channels, 1, kernel_size, kernel_size)
    args = ([channels], [1, 1], padding, [1, 1], False, [0, 0], channels, [False, True, False])
    _, dw, _ = torch.ops.aten.convolution_backward(dy.to(x.dtype), x, weight, *args)
    return dw.to(real_type(x.dtype)), dy.sum((0, 2, 3), dtype=real_type(x.dtype))


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


@_correlate.register_fake
def _(x: Tensor, dy: Tensor, kernel_size: int, before: int) -> tuple[Tensor, Tensor]:
    channels = x.shape[1]
    return x.new_empty(channels, 1, kernel_size, kernel_size, dtype=real_type(x.dtype)), x.new_empty(channels, dtype=real_type(x.dtype))


def _keep_for_convolve(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
    x, weight, bias, ctx.before = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight)


def _convolve_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    k = weight.shape[-1]
    wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
    dx = torch.ops.convmix.depthwise_conv2d(dy, weight.flip(2, 3), None, k - 1 - ctx.before) if wants_x else None
    if not (wants_weight or wants_bias):
        return dx, None, None, None
    dw, db = torch.ops.convmix.depthwise_conv2d_weight(x, dy, k, ctx.before)
    return dx, dw.to(weight.dtype), db.to(ctx.bias_dtype) if wants_bias else None, None


def _keep_for_correlate(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: tuple[Tensor, Tensor]) -> None:
    x, dy, _, ctx.before = inputs
    ctx.save_for_backward(x, dy)


def _correlate_backward(ctx: Any, slope: Tensor, bias_slope: Tensor) -> tuple[Tensor | None, ...]:
    """Both gradients are linear in x and in dy: what comes back is convolved with the other of the two."""
    x, dy = ctx.saved_tensors
    before = ctx.before
    dx = torch.ops.convmix.depthwise_conv2d(dy, slope.flip(2, 3), None, slope.shape[-1] - 1 - before)
    return dx, torch.ops.convmix.depthwise_conv2d(x, slope, bias_slope, before), None, None


_convolve.register_autograd(_convolve_backward, setup_context=_keep_for_convolve)
_correlate.register_autograd(_correlate_backward, setup_context=_keep_for_correlate)


def _convolve_flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    batch, channels, height, width = x
    return 2 * batch * channels * height * width * weight[-1] ** 2


def _correlate_flops(x: Any, dy: Any, kernel_size: int, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    batch, channels, height, width = x
    return 2 * batch * channels * height * width * kernel_size**2


def _register_flops() -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.convmix.depthwise_conv2d)(_convolve_flops)
    register_flop_formula(torch.ops.convmix.depthwise_conv2d_weight)(_correlate_flops)


after_import("torch.utils.flop_counter", _register_flops)  # not imported here, because it imports Triton


def _kernels(x: Tensor, kernel_size: int) -> Any:
    """The compiled kernels for x and this kernel size; None where PyTorch has to do it."""
    if x.device.type != "cpu" or x.ndim != 4 or x.dtype not in STORAGE or kernel_size not in KERNEL_SIZES or not x.numel():
        return None
    if _layout(x) == torch.contiguous_format and x.dtype != torch.bfloat16:
        return None  # PyTorch's kernels for planes are faster than ours with two changes of layout
    return library(kernel_size, STORAGE[x.dtype])


@functools.cache
def library(kernel_size: int, storage: str, *act: str) -> ctypes.CDLL | None:
    """kernels/depthwise.c; `act` is GELU or RELU where an activation and what follows it are wanted (`mix.MixKernel`)."""
    lib = build.library("depthwise", f"K={kernel_size}", storage, *act)
    if lib is not None:
        pointers, sizes = ctypes.c_void_p, ctypes.c_int64
        lib.convolve.argtypes = [pointers] * 8 + [sizes] * 5 + [ctypes.c_int]
        lib.weight_gradient.argtypes = [pointers] * 3 + [sizes] * 6 + [ctypes.c_int]
    return lib


def _layout(x: Tensor) -> torch.memory_format:
    """The layout of an output made from x: channels last also for a share of the channels of such a tensor."""
    last = x.is_contiguous(memory_format=torch.channels_last) or x.stride(1) == 1
    return torch.channels_last if last else torch.contiguous_format


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = x.shape
    return batch, height, width, channels


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory for the working buffers of a depthwise convolution")
