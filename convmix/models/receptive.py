"""The receptive field of a feature map, read off the autograd graph: exact for convolutions and pools, and never a guess.

    one unit of the map -> backwards through every operation: (extent - 1) * stride + dilation * (kernel - 1) + 1 -> pixels

Works on the meta device, so it costs no arithmetic. Branches take the largest extent.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from convmix.config import Size

# Operations that look at one position only. View, Slice and their kind may move or drop positions; the stride check below catches that.
_LOCAL = (
    "Abs", "Add", "Alias", "Cat", "Clone", "ConstantPad", "Div", "Elu", "Erf", "Exp", "Expand", "Gelu", "Hardsigmoid", "Hardswish",
    "Hardtanh", "LeakyRelu", "Mish", "Mul", "NativeBatchNorm", "NativeDropout", "Neg", "Permute", "Pow", "Relu", "Reshape", "Select",
    "Sigmoid", "Silu", "Slice", "Softplus", "Split", "Squeeze", "Stack", "Sub", "Tanh", "Transpose", "UnsafeSplit", "UnsafeView",
    "Unsqueeze", "View", "ViewAs",
)  # fmt: skip
# Operations through which every unit sees the whole map: attention, squeeze-and-excitation, statistics over space.
_GLOBAL = (
    "AdaptiveAvgPool", "AdaptiveMaxPool", "Baddbmm", "Bmm", "EfficientAttention", "Mean", "NativeGroupNorm", "ScaledDotProduct", "Softmax",
)  # fmt: skip


def receptive_field(features: Tensor, image: Tensor, *, reduction: int) -> int | None:
    """Side in pixels of the input square that one unit of `features` (B,C,h,w or B,n,C) depends on.

    `image` is the B,C,H,W leaf, with gradients wanted for it alone, that `features` was computed from; `reduction` its known stride.
    The image's longer side is returned where attention or pooling over space shows every unit the whole image, None where an operation is
    not known or the strides met on the way do not make `reduction`.
    """
    tokens = features.shape[1:-1].numel() if features.ndim == 3 else features.shape[2:].numel()
    if features.grad_fn is None:
        return None
    whole = max(image.shape[2:])
    extent: dict[Any, Size] = defaultdict(lambda: (0, 0), {features.grad_fn: (1, 1)})  # height, width
    stride: dict[Any, int] = {features.grad_fn: 1}
    for node in _consumers_first(features.grad_fn):
        name = type(node).__name__
        if getattr(node, "variable", None) is image:
            return max(extent[node]) if stride[node] == reduction else None
        if name.startswith(_GLOBAL) or _mixes_tokens(node, name, tokens):
            return whole
        step = _step(node, name)
        if step is None:
            return None
        kernel, by = step
        for source, _ in node.next_functions:
            if source is None:
                continue
            if stride.setdefault(source, stride[node] * by) != stride[node] * by:
                return None  # branches of different strides meet: a resize that is not understood
            h, w = ((units - 1) * by + k for units, k in zip(extent[node], kernel, strict=True))
            extent[source] = max(extent[source][0], h), max(extent[source][1], w)
    return None


def _step(node: Any, name: str) -> tuple[Size, int] | None:
    """Height and width of an operation's kernel (dilation included), and its stride; None for an unknown one."""
    if name.startswith("Convolution"):
        if node._saved_transposed:
            return None
        sides = zip(node._saved_weight.shape[2:], node._saved_dilation, node._saved_stride, strict=True)
    elif name.startswith("MaxPool2D"):
        sides = zip(node._saved_kernel_size, node._saved_dilation, node._saved_stride or node._saved_kernel_size, strict=True)
    elif name.startswith("AvgPool2D"):
        sides = zip(node._saved_kernel_size, (1, 1), node._saved_stride or node._saved_kernel_size, strict=True)
    elif name.startswith("NativeLayerNorm"):
        return ((1, 1), 1) if len(node._saved_normalized_shape) == 1 else None
    elif name.startswith(("Addmm", "Mm", "TBackward", *_LOCAL)):
        return (1, 1), 1
    else:
        return None
    (kernel_h, stride_h), (kernel_w, stride_w) = ((dilation * (kernel - 1) + 1, stride) for kernel, dilation, stride in sides)
    return ((kernel_h, kernel_w), stride_h) if stride_h == stride_w else None


def _mixes_tokens(node: Any, name: str, tokens: int) -> bool:
    """A Linear over positions instead of channels, as in MLP-Mixer: its input is as long as the map has positions."""
    weight = getattr(node, "_saved_mat2", None) if name.startswith(("Addmm", "Mm")) else None
    return isinstance(weight, Tensor) and tokens > 1 and weight.shape[0] in (tokens, tokens + 1)


def _consumers_first(root: Any) -> list[Any]:
    """The graph's nodes, each after everything that was computed from it."""
    visited: set[Any] = set()
    done: list[Any] = []
    stack = [(root, False)]
    while stack:  # depth first without recursion: deep nets are deeper than Python's stack
        node, sources_done = stack.pop()
        if sources_done:
            done.append(node)
        elif node not in visited:
            visited.add(node)
            stack.append((node, True))
            stack += [(source, False) for source, _ in node.next_functions if source is not None and source not in visited]
    return done[::-1]


def features_of(model: torch.nn.Module, image: Tensor) -> Tensor:
    """The last feature map with a graph that leads to `image` only; the model's own gradients stay switched off afterwards."""
    model.requires_grad_(False)
    features = model.forward_features(image)  # type: ignore[operator]
    return features[-1] if isinstance(features, (list, tuple)) else features
