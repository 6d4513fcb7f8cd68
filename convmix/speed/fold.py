"""The same function with fewer operations: norms go into the weights beside them, parallel branches into one kernel.

In evaluation a BatchNorm is a line per channel, a*g + b. Behind a convolution it joins the weights. ConvMixer's stand behind the
activation, with zero padding next, so that their b cannot join a bias: at the borders it is not there. The blocks carry v = x/a in place
of the norm's output x = a*g + b:

    v = g + b/a              an addition instead of a norm; v is zero where x is, so padding with zeros stays right
    h = act(depthwise(v))    a in the depthwise weights
    r = v + (c/a) * h        one multiply-add for the residual and the inner norm c*h + d
    g = act(pointwise(r))    a and d in the pointwise weights

Where a channel's a is too small to divide by, that norm stays and x is carried. The last norm goes through the mean into the classifier.
"""

import copy
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convmix.errors import ModelError
from convmix.models.convmixer import Block, ConvMixer, MixSpace, Stem
from convmix.models.convmlp import Block as MlpBlock
from convmix.models.convmlp import ConvBlock, ConvMLP, Mlp
from convmix.models.layers import DepthwiseConv2d, GlobalPool
from convmix.models.multiscale import MlpChannelMixing, MultiScaleConvMixer, TokenMixing

LARGEST_QUOTIENT = 1024.0  # of b/a and c/a: carried values stay far from the end of every type, float16's too

Line = tuple[Tensor, Tensor]  # a and b of a*x + b, C each
Kinds = tuple[type[nn.Module], ...]  # the types a part may have; none given for an activation, which may be any

CONV: Kinds = (nn.Conv2d, DepthwiseConv2d)
NORM: Kinds = (nn.BatchNorm2d,)
ANY: Kinds = ()


class Folded(nn.Module):
    """What `fold` returns: images B,in_chans,H,W -> what the original returns in evaluation. There is no training mode.

    The whole is equal, the values between its parts are not: for features ask the original.
    """

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.parts = parts
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation: the weights hold for its statistics alone."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


class Shift(nn.Module):
    """x + shift per channel: B,C,H,W -> B,C,H,W"""

    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift[:, None, None])  # C -> C,1,1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift.to(x.dtype)  # under autocast x is of the lower type, and stays so


class ScaledResidual(nn.Module):
    """x + scale * fn(x), a scale per channel: B,C,H,W -> B,C,H,W"""

    scale: Tensor

    def __init__(self, fn: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.fn = fn
        self.register_buffer("scale", scale[:, None, None])  # C -> C,1,1

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, self.fn(x), self.scale.to(x.dtype))


def fold(model: nn.Module) -> Folded:
    """A new module that answers as `model.eval()` does, with fewer operations and without gradients; `model` stays as it is.

    For a whole ConvMixer (timm's too), MultiScaleConvMixer or ConvMLP, with a classifier or without. The fold itself is computed in
    float64; the result has the model's type and device. Answers then differ by rounding alone: with realistic statistics by at most 1e-5
    of the largest answer in float32, and 1e-10 in float64, unless a very deep model's own rounding is as large.
    Raises ModelError, naming the part, for another architecture, a part that is replaced, shared or hooked, a BatchNorm without running
    statistics, weights of several types, and weights that overflow the model's type.
    """
    folds = _FOLDS | dict.fromkeys(_timm_types("ConvMixer"), _fold_convmixer)
    if type(model) not in folds:
        known = ", ".join(family.__name__ for family in _FOLDS)
        raise ModelError(f"cannot fold {type(model).__name__}, expected a whole model of {known}")
    if isinstance(model, ConvMixer) and not model.is_published:
        raise ModelError("cannot fold a ConvMixer with other norms or residuals than the paper's")
    _check_plain(model)
    like = next(model.parameters())
    parts = copy.deepcopy(model).cpu().double().requires_grad_(False)
    vars(parts)["grad_checkpointing"] = False
    folds[type(model)](parts)
    parts.to(like.device, like.dtype)
    for name, tensor in parts.state_dict().items():
        if not tensor.isfinite().all():
            raise _refusal(model, name, f"would not be finite in {like.dtype}; fold in float32 and convert then")
    return Folded(parts)


def _check_plain(model: nn.Module) -> None:
    """Raises ModelError where the types of the modules do not say what is computed."""
    places: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if module._forward_hooks or module._forward_pre_hooks:
            raise _refusal(model, name, "has a hook, which would see other values; remove it first")
        if "forward" in vars(module):
            raise _refusal(model, name, "has a forward of its own instead of its class's")
        if id(module) in places:
            raise _refusal(model, name, f"is the same module as {places[id(module)]}")
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module.running_var is None):
            raise _refusal(model, name, "is a BatchNorm without running statistics, so it depends on the batch")
        places[id(module)] = name
    dtypes = sorted({str(p.dtype) for p in model.parameters()})
    if len(dtypes) > 1:
        raise ModelError(f"cannot fold {type(model).__name__} with weights in {' and '.join(dtypes)}; convert them to one type first")


def _refusal(model: nn.Module, name: str, why: str) -> ModelError:
    return ModelError(f"cannot fold {type(model).__name__}: {name or 'the model'} {why}")


# The families, each changed in place, in float64


def _fold_convmixer(model: nn.Module) -> None:
    before = nn.Sequential(*_layers(model, "stem", (nn.Sequential, Stem), CONV, ANY, NORM))  # its norm feeds the next block
    model.set_submodule("stem", before)
    for name in [f"blocks.{i}" for i, _ in model.get_submodule("blocks").named_children()]:
        _, pointwise, act, norm = _layers(model, name, (nn.Sequential, Block), (MixSpace, *_timm_types("Residual")), CONV, ANY, NORM)
        depthwise, inner_act, inner_norm = _layers(model, f"{name}.0.fn", (nn.Sequential,), CONV, ANY, NORM)
        if depthwise.groups != depthwise.in_channels or not _is_pointwise(pointwise):
            raise _refusal(model, name, "is not a depthwise and a pointwise convolution")
        (a, b), (c, d) = _line(before[-1]), _line(inner_norm)
        if (torch.maximum(b.abs(), c.abs()) <= LARGEST_QUOTIENT * a.abs()).all():
            before[-1] = Shift(b / a)
        else:
            a = torch.ones_like(a)
        depthwise.weight = _parameter(depthwise.weight * a[:, None, None, None])
        _take_in(pointwise, (a, d))
        before = nn.Sequential(ScaledResidual(nn.Sequential(depthwise, inner_act), c / a), pointwise, act, norm)
        model.set_submodule(name, before)
    if _averages_into_classifier(model):
        _take_in(model.get_submodule("head"), _line(before[-1]))
        before[-1] = nn.Identity()


def _fold_multiscale(model: nn.Module) -> None:
    _fold_neighbours(model)
    for name, module in list(model.named_modules()):
        if type(module) is TokenMixing:
            _merge_branches(model, name, module)


def _fold_convmlp(model: nn.Module) -> None:
    _fold_neighbours(model)
    for module in list(model.modules()):
        if type(module) is MlpBlock:
            for norm, mlp in (("norm1", module.channel_mlp1), ("norm2", module.channel_mlp2)):
                if type(mlp) is Mlp:
                    _give_away(module, norm, mlp.fc1)
    if _averages_into_classifier(model):
        _give_away(model, "norm", model.get_submodule("head"))


def _fold_neighbours(model: nn.Module) -> None:
    """Convolution and BatchNorm, or LayerNorm and linear layer, where one stands directly behind the other."""
    for sequence in list(model.modules()):
        if type(sequence) in (nn.Sequential, ConvBlock, MlpChannelMixing):
            for (name, layer), (next_name, behind) in pairwise(list(sequence.named_children())):
                if type(layer) in CONV and type(behind) in NORM:
                    _take_out(layer, _line(behind))
                    sequence.set_submodule(next_name, nn.Identity())
                else:
                    _give_away(sequence, name, behind)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise _refusal(model, name, "is a BatchNorm that does not directly follow a plain convolution")


def _merge_branches(model: nn.Module, name: str, mixing: TokenMixing) -> None:
    """One depthwise convolution for all branches: every kernel centred in one as large as the largest."""
    branches = [f"{name}.branches.{i}" for i, _ in enumerate(mixing.branches)]
    convs = [_layers(model, branch, (nn.Sequential,), (DepthwiseConv2d,), (nn.Identity,))[0] for branch in branches]
    split = mixing.combine == "split"
    dim, size = sum(mixing.widths) if split else mixing.widths[0], max(conv.kernel_size[0] for conv in convs)
    with torch.device("meta"):  # draws no random numbers
        merged = DepthwiseConv2d(dim, size)
    weight, bias = torch.zeros(dim, 1, size, size, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    first = 0
    for conv, width in zip(convs, mixing.widths, strict=True):
        k = conv.kernel_size[0]
        start = (size - 1) // 2 - (k - 1) // 2  # the taps on the pixel itself coincide, also of odd and even kernels
        weight[first : first + width, :, start : start + k, start : start + k] += conv.weight
        bias[first : first + width] += conv.bias
        first += width if split else 0
    merged.weight, merged.bias = _parameter(weight), _parameter(bias)
    mixing.branches, mixing.widths, mixing.combine = nn.ModuleList([merged]), [dim], "sum"


_FOLDS: dict[type[nn.Module], Callable[[nn.Module], None]] = {
    ConvMixer: _fold_convmixer,
    MultiScaleConvMixer: _fold_multiscale,
    ConvMLP: _fold_convmlp,
}


def _timm_types(name: str) -> Kinds:
    """What timm's ConvMixer is made of. Where timm is not imported, which takes seconds, there is no such model: none."""
    timm_file = sys.modules.get("timm.models.convmixer")
    return (getattr(timm_file, name),) if timm_file else ()


# Lines into weights


def _layers(model: nn.Module, name: str, containers: Kinds, *kinds: Kinds) -> list[Any]:
    """The layers of a sequence; raises ModelError unless each is exactly of its kind, for a subclass may compute anything."""
    sequence = model.get_submodule(name)
    layers = list(sequence.children())
    fits = len(layers) == len(kinds) and all(not kind or type(layer) in kind for layer, kind in zip(layers, kinds, strict=True))
    if type(sequence) not in containers or not fits:
        expected = ", ".join(kind[0].__name__ if kind else "activation" for kind in kinds)
        found = ", ".join(type(layer).__name__ for layer in layers)
        raise _refusal(model, name, f"is {type(sequence).__name__}({found}), expected {containers[-1].__name__}({expected})")
    return layers


def _averages_into_classifier(model: nn.Module) -> bool:
    """Whether mean and linear layer follow the features, so that a line before the mean can join the linear layer behind it."""
    pool, head = model.get_submodule("global_pool"), model.get_submodule("head")
    mean = type(pool) in (GlobalPool, *_timm_types("SelectAdaptivePool2d")) and pool.pool_type in ("avg", "fast")
    return mean and type(model.get_submodule("head_drop")) is nn.Dropout and type(head) is nn.Linear


def _is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether what is added to its input comes out the same everywhere: no groups, and no padding, to which nothing would be added."""
    return conv.weight.shape[1:] == (conv.in_channels, 1, 1) and conv.padding == (0, 0)


def _line(norm: Any) -> Line:
    """a and b of norm(x) = a*x + b for a BatchNorm in evaluation; of what follows the normalisation for a LayerNorm."""
    batchnorm: bool = isinstance(norm, _BatchNorm)
    size = norm.num_features if batchnorm else norm.normalized_shape
    weight = torch.ones(size, dtype=torch.float64) if norm.weight is None else norm.weight
    bias = torch.zeros(size, dtype=torch.float64) if norm.bias is None else norm.bias
    if not batchnorm:
        return weight, bias
    a = weight / torch.sqrt(norm.running_var + norm.eps)
    return a, bias - a * norm.running_mean


def _take_in(layer: Any, line: Line) -> None:
    """layer(a*x + b) becomes layer(x), for a linear layer or pointwise convolution."""
    a, b = line
    shift = layer.weight.flatten(1) @ b  # out,in @ in -> out
    layer.bias = _parameter(shift if layer.bias is None else layer.bias + shift)
    layer.weight = _parameter(layer.weight * a.reshape(-1, *[1] * (layer.weight.ndim - 2)))


def _take_out(conv: Any, line: Line) -> None:
    """a*conv(x) + b becomes conv(x)."""
    a, b = line
    conv.bias = _parameter(b if conv.bias is None else a * conv.bias + b)
    conv.weight = _parameter(conv.weight * a[:, None, None, None])


def _give_away(owner: nn.Module, name: str, layer: nn.Module) -> None:
    """A LayerNorm in front of a linear layer leaves its weight and bias to it."""
    norm = owner.get_submodule(name)
    if type(norm) is nn.LayerNorm and type(layer) is nn.Linear:
        _take_in(layer, _line(norm))
        owner.set_submodule(name, nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False))


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
