"""Batch norms that see the whole batch where every process has a part of it.

x N,C,... of this process -> sums over all processes -> mean and variance C of the whole batch -> x normalised

On GPUs torch's SyncBatchNorm. It refuses CPUs; there the same sums go through gloo, so that the setting means the same everywhere.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convmix.errors import ConfigError
from convmix.ops.act_norm import track

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, its batch norms replaced; weights, statistics and their names stay. ConfigError for a batch norm of another class.

    timm's conversion, because torch's own loses what timm's BatchNormAct2d does behind the norm.
    """
    unknown = {type(m).__name__ for m in model.modules() if isinstance(m, _BatchNorm) and type(m) not in _KNOWN}
    if unknown:
        raise ConfigError(f"sync_batch_norm: it is not known how a {min(unknown)} would be computed over several processes; leave it off")
    if device.type != "cpu":
        converted: nn.Module = convert_sync_batchnorm(model)
        return converted
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, BatchNormOverAll(child))
    return model


class BatchNormOverAll(_BatchNorm):
    """`norm` over the images of all processes, which may have different numbers of them; in evaluation as it was."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._modules.update(norm._modules)  # of a BatchNormAct2d: drop, act
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        y = self._normalised(x) if self.training else super().forward(x)
        for after in self.children():
            y = after(y)
        return y

    def _normalised(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        others = [0, *range(2, x.ndim)]  # all dimensions but the channels
        along = (1, -1, *[1] * (x.ndim - 2))
        sums: Tensor = _SumOverAll.apply(torch.cat([wide.sum(others), wide.new_full((1,), x.numel() // x.shape[1])]))
        rows = int(sums[-1])
        mean = sums[:-1] / rows
        centred = wide - mean.view(along)
        var: Tensor = _SumOverAll.apply(centred.square().sum(others)) / rows  # from the centre: no digits cancel
        track(self, mean, var, rows)
        scale = (var + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.view(along)).to(x.dtype)
        return (centred * (scale * self.weight).view(along) + self.bias.view(along)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any number of dimensions, as the norms that it stands for."""


class _SumOverAll(torch.autograd.Function):
    """A tensor -> the sum of all processes' tensors. Every process's loss depends on each summand, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
