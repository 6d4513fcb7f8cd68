"""The space-mixing half of a ConvMixer block in training as one operator: convolution, activation, BatchNorm over the batch, residual.

    x B,C,H,W -> u = depthwise(x) + bias -> act -> normalised by the batch's own mean and variance -> * weight + bias -> + x -> y B,C,H,W

On CUDA the convolution leaves the statistics of act(u) on its way, so that the forward pass reads u once, and the input gradient adds the
residual's in the same pass. Kept for the backward pass: x and u. Elsewhere, and where these kernels are not trusted, the operators of the
two halves run one after the other.
"""

from typing import Any

import torch
from torch import Tensor, nn

from convmix.ops import act_norm as halves
from convmix.ops.after_import import after_import
from convmix.ops.depthwise import depthwise_conv2d, reference
from convmix.ops.gpu import routes, trial


def mix_space(x: Tensor, weight: Tensor, bias: Tensor, act: nn.Module, norm: nn.Module, *, residual: bool) -> Tensor:
    """norm(act(depthwise(x) + bias)), + x with `residual`: B,C,H,W -> B,C,H,W. The norm's running statistics are brought up to date."""
    if routes.depthwise_fits(x, weight.shape[-1]) and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if not (isinstance(norm, nn.BatchNorm2d) and _fusable(x, weight, bias, act, norm) and _trusted(x, weight, act, residual=residual)):
        return halves.act_norm(depthwise_conv2d(x, weight, bias), act, norm, residual=x if residual else None)
    name = halves.ACTIVATIONS[type(act)]
    y, _, mean, var = torch.ops.convmix.mix_space(x, weight, bias, norm.weight, norm.bias, norm.eps, name, residual)
    halves.track(norm, mean, var, x.numel() // x.shape[1])
    return y


def _fusable(x: Tensor, weight: Tensor, bias: Tensor, act: nn.Module, norm: nn.BatchNorm2d) -> bool:
    """Whether the operator does what the modules would, by kernels of one pass."""
    return (
        routes.depthwise_fits(x, weight.shape[-1])
        and weight.shape[0] == bias.shape[0] == x.shape[1]
        and halves.fusable(x, act, norm, None)
        and not torch.compiler.is_exporting()
    )


def _trusted(x: Tensor, weight: Tensor, act: nn.Module, *, residual: bool) -> bool:
    return trial.trusted("mix_space", x.shape, x.dtype, x.device, weight.shape[-1], halves.ACTIVATIONS[type(act)], residual)


@torch.library.custom_op("convmix::mix_space", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, act: str, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, u, and per channel the mean and the biased variance of act(u)."""
    x, before = x.contiguous(memory_format=torch.channels_last), (weight.shape[-1] - 1) // 2
    if not routes.depthwise_fits(x, weight.shape[-1]):
        with torch.autocast(x.device.type, enabled=False):
            u = reference(x, weight, bias, before).contiguous(memory_format=torch.channels_last)
        y, mean, var = halves._reference(u, x if residual else None, norm_weight, norm_bias, eps, act)
        return y, u, mean, var
    from convmix.ops.gpu import convolution
    from convmix.ops.gpu import norm as kernels

    u, mean, var = convolution.convolve_with_moments(x, weight, bias, before, act)
    y = kernels.normalise(u, mean, var, norm_weight.contiguous(), norm_bias.contiguous(), eps, act, x if residual else None)
    return y, u, mean, var


@torch.library.custom_op("convmix::mix_space_backward", mutates_args=())
def _backward(
    dy: Tensor, x: Tensor, u: Tensor, weight: Tensor, norm_weight: Tensor, mean: Tensor, var: Tensor, eps: float, act: str, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias of the convolution, weight and bias of the norm."""
    k = weight.shape[-1]
    before = (k - 1) // 2
    dy, x = (t.to(u.dtype).contiguous(memory_format=torch.channels_last) for t in (dy, x))
    du, dnorm_weight, dnorm_bias = torch.ops.convmix.act_norm_backward(dy, u, norm_weight, mean, var, eps, act)
    dw, db = torch.ops.convmix.depthwise_conv2d_weight(x, du, k, before)
    if routes.depthwise_fits(x, k):
        from convmix.ops.gpu import convolution

        dx = convolution.convolve(du, weight, None, k - 1 - before, flipped=True, addend=dy if residual else None)
    else:
        dx = reference(du, weight.flip(2, 3), None, k - 1 - before).contiguous(memory_format=torch.channels_last)
        dx = dx + dy if residual else dx
    return dx, dw.to(weight.dtype), db, dnorm_weight, dnorm_bias


@_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, act: str, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, u = (torch.empty_like(x, memory_format=torch.channels_last) for _ in range(2))
    return y, u, torch.empty_like(norm_weight), torch.empty_like(norm_weight)


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, u: Tensor, weight: Tensor, norm_weight: Tensor, mean: Tensor, var: Tensor, eps: float, act: str, residual: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return dx, torch.empty_like(weight), torch.empty_like(mean), torch.empty_like(mean), torch.empty_like(mean)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, norm_weight, norm_bias, ctx.eps, ctx.act, ctx.residual = inputs
    _, u, mean, var = output
    ctx.set_materialize_grads(False)  # no zeros as large as u for the outputs that only this file reads
    ctx.save_for_backward(x, weight, bias, norm_weight, norm_bias, u, mean, var)


def _differentiate(ctx: Any, dy: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, norm_weight, norm_bias, u, mean, var = ctx.saved_tensors
    if dy is None:
        return (None,) * 8
    if torch.is_grad_enabled():  # to be differentiated again: by PyTorch
        leaves = (x, weight, bias, norm_weight, norm_bias)
        wanted = [t for t in leaves if t.requires_grad]
        u = reference(x, weight, bias, (weight.shape[-1] - 1) // 2)
        y, *_ = halves._reference(u, x if ctx.residual else None, norm_weight, norm_bias, ctx.eps, ctx.act)
        found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
        return *(next(found) if t.requires_grad else None for t in leaves), None, None, None
    dx, dw, db, dnorm_weight, dnorm_bias = torch.ops.convmix.mix_space_backward(
        dy, x, u, weight, norm_weight, mean, var, ctx.eps, ctx.act, ctx.residual
    )
    return dx, dw, db.to(bias.dtype), dnorm_weight, dnorm_bias, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    batch, channels, height, width = x
    return 2 * batch * channels * height * width * weight[-1] ** 2


def _backward_flops(dy: Any, x: Any, u: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * _flops(x, weight)


def _register_flops() -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.convmix.mix_space)(_flops)
    register_flop_formula(torch.ops.convmix.mix_space_backward)(_backward_flops)


after_import("torch.utils.flop_counter", _register_flops)
