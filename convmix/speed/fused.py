"""A trained model on CUDA with Triton kernels: two passes over memory per ConvMixer block, no norm and no activation left as an operation.

    model -> folded (`speed.fold`) -> ScaledResidual: one kernel;  pointwise, activation, shift: one product with its epilogue -> logits

In a ConvMLP the perceptrons' first product takes the GELU along, and the depthwise convolutions find their kernels by themselves. What is
not trusted with a shape (`ops.gpu.trial`) is computed by PyTorch there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.errors import ModelError
from convmix.models.convmlp import ConvMLP, Mlp
from convmix.ops.depthwise import reference
from convmix.ops.gpu import routes, trial
from convmix.speed.fold import Folded, ScaledResidual, Shift, fold

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.GELU: "GELU", nn.ReLU: "RELU"}
_ACTIVATED: dict[str, Callable[[Tensor], Tensor]] = {"GELU": F.gelu, "RELU": F.relu}


def fused(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """An evaluating copy of `model` on its device: B,C,H,W float32 -> B,num_classes float32, computed in `dtype`.

    Raises ModelError for a model that cannot be folded, or that has nothing for these kernels.
    """
    folded = model if isinstance(model, Folded) else fold(model)
    with torch.no_grad():
        count = _replace_blocks(folded, dtype) + _replace_perceptrons(folded, dtype)
    if not count:
        raise ModelError(f"{type(folded.parts).__name__} has no part for the Triton kernels")
    return _Cast(folded.to(dtype).to(memory_format=torch.channels_last), dtype)


class _Cast(nn.Module):
    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.to(self.dtype).contiguous(memory_format=torch.channels_last))
        return logits.float()


class Mix(nn.Module):
    """x + scale * act(depthwise(x)) in one kernel: B,C,H,W -> B,C,H,W. Its constants keep the kernel's own types, out of reach of `.to`."""

    def __init__(self, conv: nn.Conv2d, act: str, scale: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        from convmix.ops.gpu import convolution

        self.act, self.before = act, (conv.kernel_size[0] - 1) // 2
        self.taps = convolution.taps_of(conv.weight, dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().float()
        self.scale = scale.flatten().float()

    def forward(self, x: Tensor) -> Tensor:
        from convmix.ops.gpu import convolution

        x = x.contiguous(memory_format=torch.channels_last)
        k = self.taps.shape[0]
        if trial.trusted("mix", x.shape, x.dtype, x.device, k, self.act):
            return convolution.mix(x, self.taps, self.bias, self.scale, None, self.before, self.act)
        weight = self.taps.permute(2, 0, 1).unsqueeze(1)  # k,k,C -> C,1,k,k
        return x + self.scale.to(x.dtype)[:, None, None] * _ACTIVATED[self.act](reference(x, weight, self.bias, self.before))


class Product(nn.Module):
    """act(pointwise(x)) + shift: B,C,H,W -> B,O,H,W."""

    def __init__(self, weight: Tensor, bias: Tensor | None, act: str, shift: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]
        self.act, self.weight = act, weight.detach().to(dtype).reshape(outputs, inputs, 1, 1)
        self.bias = torch.zeros(outputs, device=weight.device) if bias is None else bias.detach().float()
        self.shift = None if shift is None else shift.flatten().float()

    def forward(self, x: Tensor) -> Tensor:
        from convmix.ops.gpu import pointwise

        x = x.contiguous(memory_format=torch.channels_last)
        if trial.trusted("multiply", x.shape, x.dtype, x.device, self.weight.shape[0], self.act, self.shift is not None):
            return pointwise.multiply(x, self.weight, self.bias, self.act, self.shift)
        y = _ACTIVATED[self.act](F.conv2d(x, self.weight, self.bias.to(x.dtype)))
        return y if self.shift is None else y + self.shift.to(x.dtype)[:, None, None]


class Perceptron(nn.Module):
    """Mlp whose first product takes the activation along: B,h,w,D -> B,h,w,D."""

    def __init__(self, mlp: Mlp, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = Product(mlp.fc1.weight, mlp.fc1.bias, "GELU", None, dtype)
        self.second = mlp.fc2

    def forward(self, x_bhwc: Tensor) -> Tensor:
        hidden = self.first(x_bhwc.permute(0, 3, 1, 2))  # B,h,w,D -> B,4D,h,w
        return F.linear(hidden.permute(0, 2, 3, 1), self.second.weight, self.second.bias)


def _replace_blocks(folded: Folded, dtype: torch.dtype) -> int:
    """ConvMixer's: ScaledResidual, pointwise, activation, then what the fold left of the norm."""
    blocks = [m for m in folded.modules() if isinstance(m, nn.Sequential) and len(m) and type(m[0]) is ScaledResidual]
    for block in blocks:
        mixing, pointwise, act, after = block
        inner: Any = mixing
        conv, inner_act = inner.fn
        if type(inner_act) not in _ACTIVATIONS or type(act) not in _ACTIVATIONS or conv.kernel_size[0] not in routes.KERNEL_SIZES:
            raise ModelError(
                f"there is no Triton kernel for {type(act).__name__} and {conv.kernel_size[0]}x{conv.kernel_size[0]} convolutions"
            )
        if getattr(inner_act, "approximate", "none") != "none" or getattr(act, "approximate", "none") != "none":
            raise ModelError("there is no Triton kernel for an approximate GELU")
        shift = after.shift if isinstance(after, Shift) else None
        block[0] = Mix(conv, _ACTIVATIONS[type(inner_act)], inner.scale, dtype)
        block[1] = Product(pointwise.weight, pointwise.bias, _ACTIVATIONS[type(act)], shift, dtype)  # type: ignore[arg-type]
        block[2] = nn.Identity()
        block[3] = nn.Identity() if shift is not None else after
    return len(blocks)


def _replace_perceptrons(folded: Folded, dtype: torch.dtype) -> int:
    if not isinstance(folded.parts, ConvMLP):
        return 0
    names = [name for name, module in folded.named_modules() if type(module) is Mlp]
    for name in names:
        folded.set_submodule(name, Perceptron(folded.get_submodule(name), dtype))  # type: ignore[arg-type]
    return len(names)
