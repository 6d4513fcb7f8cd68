"""Each kernel beside PyTorch's own path on one shape: what `trial` compares, forward and, where it learns, with all gradients.

Case(kernel, shape, dtype, settings) -> pair(case) -> Pair(inputs, ours, pytorch)

depthwise   (kernel size, whether gradients are taken)       x, weight, bias -> y
act_norm    (activation, whether there is a residual)        u, weight, bias[, residual] -> y
mix_space   (kernel size, activation, residual)              x, weight, bias, the norm's weight and bias -> y
mix         (kernel size, activation)                        x, weight, bias, scale -> y, for inference
multiply    (outputs, activation, whether there is a shift)  x, weight, bias[, shift] -> y, for inference
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

KERNELS = ("depthwise", "act_norm", "mix_space", "mix", "multiply")
EPS = 1e-5
PUBLISHED = {  # model -> channels, side of its images of patches, kernel size, images of a training batch, images of one for inference
    "convmixer_1536_20": (1536, 32, 9, 64, 128),
    "convmixer_768_32": (768, 32, 7, 64, 256),
    "convmixer_1024_20_ks9_p14": (1024, 16, 9, 128, 256),
    "convmixer_256_8": (256, 16, 5, 512, 1024),
}


@dataclass(frozen=True)
class Case:
    """A kernel, the images it gets and its further settings."""

    kernel: str
    shape: tuple[int, ...]  # B,C,H,W
    dtype: torch.dtype
    settings: tuple[int | str | bool, ...]

    @property
    def key(self) -> str:
        """One line that says all of it."""
        settings = " ".join(str(setting) or "none" for setting in self.settings)
        return f"{self.kernel} {'x'.join(map(str, self.shape))} {str(self.dtype).removeprefix('torch.')} {settings}"


@dataclass(frozen=True)
class Pair:
    """Both ways to compute the same from `inputs`, of which the first `images` are of the case's type and the others float32."""

    inputs: Callable[[Callable[..., Tensor]], list[Tensor]]  # from a source of normal numbers: normal(*shape)
    ours: Callable[..., Tensor]
    pytorch: Callable[..., Tensor]
    images: int = 1
    learns: bool = True


def pair(case: Case) -> Pair:
    """The two sides of a case."""
    return _PAIRS[case.kernel](case.shape, *case.settings)


def published(dtypes: Sequence[torch.dtype] = (torch.bfloat16,)) -> Iterator[Case]:
    """The cases of the published ConvMixers in training and inference: what a card has to show before a kernel is on by default."""
    for channels, side, k, training, inference in PUBLISHED.values():
        for dtype in dtypes:
            learned, answered = (training, channels, side, side), (inference, channels, side, side)
            yield Case("depthwise", learned, dtype, (k, True))
            yield Case("depthwise", answered, dtype, (k, False))
            yield Case("act_norm", learned, dtype, ("GELU", False))
            yield Case("mix_space", learned, dtype, (k, "GELU", True))
            yield Case("mix", answered, dtype, (k, "GELU"))
            yield Case("multiply", answered, dtype, (channels, "GELU", True))


def _depthwise(shape: tuple[int, ...], k: int, learns: bool) -> Pair:
    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _operators().depthwise_conv2d(x, weight, bias, (k - 1) // 2)

    return Pair(lambda normal: [normal(*shape), normal(shape[1], 1, k, k), normal(shape[1])], ours, _convolve, learns=learns)


def _act_norm(shape: tuple[int, ...], act: str, residual: bool) -> Pair:
    def inputs(normal: Callable[..., Tensor]) -> list[Tensor]:
        return [normal(*shape), *([normal(*shape)] if residual else []), 1 + normal(shape[1]) / 4, normal(shape[1])]

    def ours(u: Tensor, *others: Tensor) -> Tensor:
        *added, weight, bias = others
        return _operators().act_norm(u, added[0] if added else None, weight, bias, EPS, act)[0]

    def pytorch(u: Tensor, *others: Tensor) -> Tensor:
        *added, weight, bias = others
        y = F.batch_norm(_activated(u, act), None, None, weight, bias, training=True, eps=EPS)
        return y + added[0] if added else y

    return Pair(inputs, ours, pytorch, images=1 + residual)


def _mix_space(shape: tuple[int, ...], k: int, act: str, residual: bool) -> Pair:
    channels = shape[1]

    def inputs(normal: Callable[..., Tensor]) -> list[Tensor]:
        return [normal(*shape), normal(channels, 1, k, k) / k, normal(channels), 1 + normal(channels) / 4, normal(channels)]

    def ours(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
        return _operators().mix_space(x, weight, bias, norm_weight, norm_bias, EPS, act, residual)[0]

    def pytorch(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
        y = F.batch_norm(_activated(_convolve(x, weight, bias), act), None, None, norm_weight, norm_bias, training=True, eps=EPS)
        return y + x if residual else y

    return Pair(inputs, ours, pytorch)


def _mix(shape: tuple[int, ...], k: int, act: str) -> Pair:
    channels, kept = shape[1], {}

    def inputs(normal: Callable[..., Tensor]) -> list[Tensor]:
        return [normal(*shape), normal(channels, 1, k, k) / k, normal(channels), normal(channels)]

    def ours(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        from convmix.ops.gpu import convolution

        if "taps" not in kept:  # made once, as for a trained model
            kept["taps"] = convolution.taps_of(weight, x.dtype)
        return convolution.mix(x, kept["taps"], bias, scale, None, (k - 1) // 2, act)

    def pytorch(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        return x + scale.to(x.dtype)[:, None, None] * _activated(_convolve(x, weight, bias), act)

    return Pair(inputs, ours, pytorch, learns=False)


def _multiply(shape: tuple[int, ...], outputs: int, act: str, shifted: bool) -> Pair:
    channels = shape[1]

    def inputs(normal: Callable[..., Tensor]) -> list[Tensor]:
        matrix = normal(outputs, channels, 1, 1) / channels**0.5
        return [normal(*shape), matrix, normal(outputs), *([normal(outputs)] if shifted else [])]

    def ours(x: Tensor, weight: Tensor, bias: Tensor, *shift: Tensor) -> Tensor:
        from convmix.ops.gpu import pointwise

        return pointwise.multiply(x, weight, bias, act, *shift)

    def pytorch(x: Tensor, weight: Tensor, bias: Tensor, *shift: Tensor) -> Tensor:
        y = _activated(F.conv2d(x, weight, bias.to(x.dtype)), act)
        return y + shift[0].to(x.dtype)[:, None, None] if shift else y

    return Pair(inputs, ours, pytorch, images=2, learns=False)


_PAIRS: dict[str, Callable[..., Pair]] = {
    "depthwise": _depthwise, "act_norm": _act_norm, "mix_space": _mix_space, "mix": _mix, "multiply": _multiply,
}  # fmt: skip


def _operators() -> Any:
    return torch.ops.convmix


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's depthwise convolution, padded so that even kernels reach further to the right and below."""
    k = weight.shape[-1]
    before, after = (k - 1) // 2, k // 2
    if before != after:
        x, before = F.pad(x, (before, after, before, after)), 0
    return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=before, groups=x.shape[1])


def _activated(u: Tensor, act: str) -> Tensor:
    if not act:
        return u
    return F.gelu(u) if act == "GELU" else F.relu(u)
