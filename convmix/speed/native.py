"""A trained ConvMixer on the CPU with kernels of our own: two passes over memory per block, no BN left as an operation.

    stem -> g;  per block: mix(g) -> y (one kernel), then act(pointwise(y)) -> g (one oneDNN call);  mean of g -> classes

The stream between blocks is g, what the last activation gave. The BN behind it, a * g + b, is carried into whatever reads it: the kernel's
weights (outside the image g is -b/a, which is BN's zero padding), the residual, and at the end, through the mean, the classifier.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.errors import ModelError
from convmix.models.convmixer import ConvMixer
from convmix.ops.dtypes import real_type
from convmix.ops.mix import MixKernel

DTYPES = (torch.float32, torch.bfloat16)
SMALLEST_SCALE = 1e-4  # of a over b: below it g outside the image, -b/a, would be too large to be rounded well


def native(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """An evaluating copy of `model` for the CPU: B,C,H,W float32 -> B,num_classes float32, computed in `dtype`.

    Raises ModelError for a model that is no ConvMixer of the paper's blocks with average pooling, a type that is neither float32 nor
    bfloat16, and a machine without a C compiler.
    """
    if type(model) is not ConvMixer:
        raise ModelError(f"the native backend runs ConvMixer, not {type(model).__name__}")
    if not model.is_published:
        raise ModelError("the native backend runs ConvMixers with the paper's norms and residuals alone")
    if dtype not in DTYPES:
        raise ModelError(f"the native backend computes in float32 or bfloat16, not {dtype}")
    if model.global_pool.pool_type != "avg" or not isinstance(model.head, nn.Linear):
        raise ModelError("the native backend needs average pooling and a classifier")
    with torch.no_grad():
        return _NativeConvMixer(model, dtype)


class _NativeConvMixer(nn.Module):
    def __init__(self, model: ConvMixer, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.act = dtype, str(model.arguments["act"])
        try:
            self.kernel = MixKernel(model.arguments["kernel_size"], self.act, dtype)
        except LookupError as error:
            raise ModelError(f"the native backend cannot run here: {error}") from None
        conv, norm = _pair(model.stem)
        self.patch_size = int(model.arguments["patch_size"])
        self.stem_weight, self.stem_bias = _laid_out(conv.weight, dtype), conv.bias.to(dtype)
        self.blocks = nn.ModuleList()
        a, b = _affine(norm)
        for block in model.blocks.children():
            mix_space, pointwise, _, norm = block.children()
            self.blocks.append(_Block(mix_space.get_submodule("fn"), pointwise, (a, b), kernel=self.kernel, act=self.act, dtype=dtype))
            a, b = _affine(norm)
        head: Any = model.head
        weight = head.weight.double()  # classes,C
        self.head_weight = (weight * a).float()
        self.head_bias = ((head.bias.double() if head.bias is not None else 0) + weight @ b).float()

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        g = _act(F.conv2d(x, self.stem_weight, self.stem_bias, stride=self.patch_size), self.act)  # B,dim,h,w
        for block in self.blocks:
            g = block(g)
        return F.linear(g.mean((2, 3), dtype=torch.float32), self.head_weight, self.head_bias)  # B,dim,h,w -> B,dim -> B,num_classes


class _Block(nn.Module):
    """g -> g of the next block, both B,dim,h,w; `before` is the BN (a, b) that stands unapplied in front of it."""

    def __init__(self, mix: Any, pointwise: Any, before: tuple[Tensor, Tensor], *, kernel: MixKernel, act: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel = kernel
        conv, norm = _pair(mix)
        a, b = before
        self.explicit = bool((a.abs() <= SMALLEST_SCALE * b.abs()).any())  # then this BN is applied as an operation of its own
        real = real_type(dtype)
        if self.explicit:
            self.a, self.b = a.to(real)[:, None, None], b.to(real)[:, None, None]
            a, b = torch.ones_like(a), torch.zeros_like(b)
        taps = conv.weight.double().squeeze(1)  # C,k,k
        scale, shift = _affine(norm)
        self.taps = (taps * a[:, None, None]).permute(1, 2, 0).to(dtype).contiguous()  # k,k,C
        self.bias = (conv.bias.double() + b * taps.sum((1, 2))).to(real)
        self.pad = torch.where(b == 0, 0, -b / a).to(dtype)
        self.carry, self.scale, self.shift = a.to(real), scale.to(real), (shift + b).to(real)
        self.pointwise = _Pointwise(_laid_out(pointwise.weight, dtype), pointwise.bias.to(dtype), act)

    def forward(self, g: Tensor) -> Tensor:
        if self.explicit:
            g = (g * self.a + self.b).to(g.dtype)
        y = self.kernel(g, self.taps, self.bias, self.pad, self.carry, self.scale, self.shift)
        return self.pointwise(y)


def _pair(part: Any) -> tuple[Any, Any]:
    """The convolution and the BN of convolution, activation, BN."""
    conv, _, norm = part
    return conv, norm


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """A trained BN as a * x + b, float64."""
    a = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return a, norm.bias.double() - norm.running_mean.double() * a


def _laid_out(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)


def _act(x: Tensor, act: str) -> Tensor:
    return F.gelu(x) if act == "gelu" else F.relu_(x)


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN, if PyTorch was built with it, takes packed weights of this type on this processor: bf16 needs AVX-512 or the like."""
    return torch.backends.mkldnn.is_available() and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Pointwise:
    """act(1x1 convolution) in one pass where oneDNN can, whose blocks the weights are packed into."""

    def __init__(self, weight: Tensor, bias: Tensor, act: str) -> None:
        self.weight, self.bias, self.act = weight, bias, act
        self.packed, self.packed_for = weight, torch.Size()

    def __call__(self, y: Tensor) -> Tensor:
        if not _packs(y.dtype):
            return _act(F.conv2d(y, self.weight, self.bias), self.act)
        if y.shape != self.packed_for:  # the best blocks depend on the size of the image
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, [0, 0], [1, 1], [1, 1], 1, list(y.shape))
            self.packed_for = y.shape
        algorithm = "none" if self.act == "gelu" else ""
        return torch.ops.mkldnn._convolution_pointwise(y, self.packed, self.bias, [0, 0], [1, 1], [1, 1], 1, self.act, [], algorithm)
