"""Activation, then BatchNorm over the batch, then a residual: one operator for training, which keeps one tensor instead of three.

    u B,C,H,W -> act -> normalised by the batch's own mean and variance -> * weight + bias -> + residual -> y B,C,H,W

Two passes forward and two backward over the input; the activation is computed again in each. Where there are no kernels of our own (CPU: C;
CUDA: Triton, where it is on and trusted; both channels last) the modules run one after the other, as they do in evaluation.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.ops import build
from convmix.ops.dtypes import STORAGE, real_type
from convmix.ops.gpu import routes, trial

ACTIVATIONS = {nn.GELU: "GELU", nn.ReLU: "RELU"}


def act_norm(u: Tensor, act: nn.Module, norm: nn.Module, residual: Tensor | None = None) -> Tensor:
    """norm(act(u)) + residual, and norm's running statistics brought up to date: B,C,H,W -> B,C,H,W.

    The sums are in float32 for bf16 as BatchNorm's are. In bf16 GELU is within 6e-5 of the exact one and its slope within 2e-4, before they
    are rounded; in float32 both are within 1e-6.
    """
    if not (isinstance(norm, nn.BatchNorm2d) and fusable(u, act, norm, residual) and _trusted(u, act, residual)):
        y = norm(act(u))
        return y if residual is None else y + residual
    y, mean, var = torch.ops.convmix.act_norm(u, residual, norm.weight, norm.bias, norm.eps, ACTIVATIONS[type(act)])
    track(norm, mean, var, u.numel() // u.shape[1])
    return y


def _trusted(u: Tensor, act: nn.Module, residual: Tensor | None) -> bool:
    return not routes.kernels_for(u) or trial.trusted("act_norm", u.shape, u.dtype, u.device, ACTIVATIONS[type(act)], residual is not None)


def track(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, rows: int) -> None:
    """Moves the running statistics towards those of a batch, as BatchNorm does: the variance there is the unbiased one."""
    running_mean, running_var, count, share = norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum
    if not norm.track_running_stats or running_mean is None or running_var is None or count is None or share is None:
        return
    with torch.no_grad():
        count.add_(1)
        running_mean.lerp_(mean.to(running_mean.dtype), share)
        running_var.lerp_(var.to(running_var.dtype) * (rows / (rows - 1)), share)


def fusable(u: Tensor, act: nn.Module, norm: nn.BatchNorm2d, residual: Tensor | None) -> bool:
    """Whether the operator does what the modules would, and has kernels for it. Nothing here breaks a graph of torch.compile."""
    if not isinstance(u, Tensor):  # a proxy, while torch.fx traces
        return False
    on_gpu = routes.kernels_for(u)
    return (
        (on_gpu or u.device.type == "cpu")
        and type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.momentum is not None
        and type(act) in ACTIVATIONS
        and getattr(act, "approximate", "none") == "none"
        and (on_gpu or u.dtype in STORAGE)
        and norm.weight.dtype == real_type(u.dtype)
        and u.numel() > u.shape[1]  # BatchNorm refuses a single value per channel
        and norm.weight.shape == u.shape[1:2]
        and u.is_contiguous(memory_format=torch.channels_last)
        and (residual is None or (residual.shape == u.shape and residual.dtype == u.dtype))
        and not (hooked(act) or hooked(norm))
    )


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


@torch.library.custom_op("convmix::act_norm", mutates_args=())
def _forward(u: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, act: str) -> tuple[Tensor, Tensor, Tensor]:
    """y, and per channel the mean and the biased variance of act(u)."""
    on_gpu = _on_gpu(u, [] if residual is None else [residual], [weight, bias])
    kernels = None if on_gpu else _kernels(u, act, [] if residual is None else [residual], [weight, bias])
    if kernels is None and not on_gpu:
        return _reference(u, residual, weight, bias, eps, act)
    u, residual = _rows(u), None if residual is None else _rows(residual)
    if on_gpu:
        from convmix.ops.gpu import norm

        mean, var = norm.moments(u, act)
        return norm.normalise(u, mean, var, weight.contiguous(), bias.contiguous(), eps, act, residual), mean, var
    assert kernels is not None
    y, mean, var = torch.empty_like(u), torch.empty_like(weight), torch.empty_like(weight)
    weight, bias = weight.contiguous(), bias.contiguous()  # kept here: copies must live until the kernel has read them
    at = [None if t is None else t.data_ptr() for t in (u, residual, weight, bias)]
    _check(kernels.forward(*at, eps, y.data_ptr(), mean.data_ptr(), var.data_ptr(), *_sizes(u)))
    return y, mean, var


@torch.library.custom_op("convmix::act_norm_backward", mutates_args=())
def _backward(dy: Tensor, u: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float, act: str) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of u, weight and bias."""
    dy = dy.to(u.dtype)
    on_gpu = _on_gpu(u, [dy], [weight, mean, var])
    kernels = None if on_gpu else _kernels(u, act, [dy], [weight, mean, var])
    if kernels is None and not on_gpu:
        return _reference_backward(dy, u, weight, mean, var, eps, act)
    u, dy = _rows(u), _rows(dy)
    if on_gpu:
        from convmix.ops.gpu import norm

        weight = weight.contiguous()
        dweight, dbias = norm.gradient_sums(dy, u, mean, var, eps, act)
        return norm.gradient(dy, u, weight, mean, var, dweight, dbias, eps, act), dweight, dbias
    assert kernels is not None
    du, dweight, dbias = torch.empty_like(u), torch.empty_like(weight), torch.empty_like(weight)
    weight = weight.contiguous()  # kept here, as above
    at = [t.data_ptr() for t in (dy, u, weight, mean, var)]
    _check(kernels.backward(*at, eps, du.data_ptr(), dweight.data_ptr(), dbias.data_ptr(), *_sizes(u)))
    return du, dweight, dbias


def _rows(x: Tensor) -> Tensor:
    """x with its channels together, as rows,C in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _sizes(u: Tensor) -> tuple[int, int, int]:
    return u.numel() // u.shape[1], u.shape[1], torch.get_num_threads()


def _check(status: int) -> None:
    if status:
        raise MemoryError("no memory for the sums of a batch norm")


def _reference(u: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, act: str) -> tuple[Tensor, Tensor, Tensor]:
    g = _act(u.to(weight.dtype), act)
    var, mean = torch.var_mean(g, (0, 2, 3), correction=0)
    y = _broadcast(weight) * (g - _broadcast(mean)) * _broadcast((var + eps).rsqrt()) + _broadcast(bias)
    y = y if residual is None else y + residual
    return _rows(y.to(u.dtype)), mean, var


def _reference_backward(
    dy: Tensor, u: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    u32, dy = u.to(weight.dtype), dy.to(weight.dtype)
    inverse = (var + eps).rsqrt()
    normed = (_act(u32, act) - _broadcast(mean)) * _broadcast(inverse)
    dweight, dbias, rows = (dy * normed).sum((0, 2, 3)), dy.sum((0, 2, 3)), u.numel() // u.shape[1]
    dg = _broadcast(weight * inverse) * (dy - _broadcast(dbias / rows) - normed * _broadcast(dweight / rows))
    du = torch.ops.aten.gelu_backward(dg, u32) if act == "GELU" else dg * (u32 > 0)
    return _rows(du.to(u.dtype)), dweight, dbias


def _act(u: Tensor, act: str) -> Tensor:
    return F.gelu(u) if act == "GELU" else F.relu(u)


def _broadcast(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]


@_forward.register_fake
def _(u: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, act: str) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(u, memory_format=torch.channels_last), torch.empty_like(weight), torch.empty_like(weight)


@_backward.register_fake
def _(dy: Tensor, u: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float, act: str) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(u, memory_format=torch.channels_last), torch.empty_like(weight), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    u, residual, weight, _, ctx.eps, ctx.act = inputs
    _, mean, var = output
    ctx.residual = residual is not None
    ctx.save_for_backward(u, weight, mean, var)


def _differentiate(ctx: Any, dy: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    """Nothing flows back through the statistics: they only update the running ones."""
    u, weight, mean, var = ctx.saved_tensors
    if torch.is_grad_enabled():  # to be differentiated again: by PyTorch, from statistics that depend on u
        var, mean = torch.var_mean(_act(u.to(weight.dtype), ctx.act), (0, 2, 3), correction=0)
        du, dw, db = _reference_backward(dy, u, weight, mean, var, ctx.eps, ctx.act)
        return du, dy if ctx.residual else None, dw, db, None, None
    du, dw, db = torch.ops.convmix.act_norm_backward(dy, u, weight, mean, var, ctx.eps, ctx.act)
    return du, dy if ctx.residual else None, dw, db, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _kernels(u: Tensor, act: str, like_u: Sequence[Tensor], per_channel: Sequence[Tensor]) -> ctypes.CDLL | None:
    """The compiled kernels; None where PyTorch has to do it, or to say what does not fit together."""
    if u.device.type != "cpu" or u.ndim != 4 or u.dtype not in STORAGE or not u.numel() or not _agree(u, like_u, per_channel):
        return None
    return _library(act, STORAGE[u.dtype])


def _on_gpu(u: Tensor, like_u: Sequence[Tensor], per_channel: Sequence[Tensor]) -> bool:
    return routes.kernels_for(u) and _agree(u, like_u, per_channel)


def _agree(u: Tensor, like_u: Sequence[Tensor], per_channel: Sequence[Tensor]) -> bool:
    """Whether shapes and types are those that the kernels read."""
    return all(t.shape == u.shape and t.dtype == u.dtype for t in like_u) and all(
        t.shape == u.shape[1:2] and t.dtype == real_type(u.dtype) for t in per_channel
    )


@functools.cache
def _library(act: str, storage: str) -> ctypes.CDLL | None:
    lib = build.library("act_norm", act, storage)
    if lib is not None:
        at, size = ctypes.c_void_p, ctypes.c_int64
        lib.forward.argtypes = [at] * 4 + [ctypes.c_double] + [at] * 3 + [size, size, ctypes.c_int]
        lib.backward.argtypes = [at] * 5 + [ctypes.c_double] + [at] * 3 + [size, size, ctypes.c_int]
    return lib
