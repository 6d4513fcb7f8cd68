"""3x3 convolution for inference by Winograd's F(2x2, 3x3): 16 products where the definition has 36, so faster than a matrix product can be.

x B,C,H,W channels last * weight O,C,3,3 (transformed once, when the layer is made) -> act(y + bias) B,O,H,W

Lavin and Gray 2016, arXiv 1509.09308, section 4.1. In bf16 the transformed image is rounded once more than in a plain convolution.
"""

import ctypes
import functools

import torch
from torch import Tensor, nn

from convmix.ops import build
from convmix.ops.dtypes import STORAGE, real_type

VECTORS = (4, 3, 2, 1)  # of output channels in registers, the fastest first
_DTYPES = (torch.float32, torch.bfloat16)
_INTO = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)  # G of the paper: weights 3 -> 4


class WinogradConv2d(nn.Module):
    """A trained 3x3 convolution at stride 1 with padding 1, and ReLU where asked; raises LookupError where there is no kernel for it."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool, dtype: torch.dtype) -> None:
        super().__init__()
        if not fits(conv):
            raise LookupError(f"{conv} is no 3x3 convolution at stride 1 with padding 1")
        vectors = _vectors(conv.out_channels, conv.in_channels, dtype)
        if vectors is None:
            raise LookupError(f"no compiled kernel for {conv.in_channels} and {conv.out_channels} channels in {dtype}")
        self.relu, self.vectors, self.out_channels = relu, vectors, conv.out_channels
        library = _library(vectors, STORAGE[dtype])
        assert library is not None
        bias = conv.bias if conv.bias is not None else torch.zeros(conv.out_channels)
        packed = _packed(conv.weight, step=library.step(), block=library.block(), dtype=dtype if library.step() == 2 else real_type(dtype))
        self.weight = packed  # constants in the kernel's own types rather than buffers, which `.to` would convert
        self.bias = bias.detach().to(real_type(dtype)).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.convmix.winograd_conv2d(x, self.weight, self.bias, self.vectors, self.relu)


def fits(conv: nn.Module) -> bool:
    """Whether the algorithm can do it at all."""
    return type(conv) is nn.Conv2d and (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


@torch.library.custom_op("convmix::winograd_conv2d", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor, vectors: int, relu: bool) -> Tensor:
    library = _library(vectors, STORAGE[x.dtype])
    if library is None:
        raise RuntimeError("the compiled kernel that this model was made for is gone; build it again")
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    outputs = len(bias)
    if weight.numel() != 16 * channels * outputs:
        raise RuntimeError(f"expected {weight.numel() // 16 // outputs} channels, found {channels}")
    y = torch.empty((batch, outputs, height, width), dtype=x.dtype, memory_format=torch.channels_last)
    weight = _aligned(weight)  # kept here: a copy must live until the kernel has read it
    at = [t.data_ptr() for t in (x, weight, bias, y)]
    if y.numel() and library.winograd(*at, batch, height, width, channels, outputs, int(relu), torch.get_num_threads()):
        raise MemoryError("no memory for the working buffers of a convolution")
    return y


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, vectors: int, relu: bool) -> Tensor:
    batch, _, height, width = x.shape
    shape = (batch, bias.shape[0], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _packed(weight: Tensor, *, step: int, block: int, dtype: torch.dtype) -> Tensor:
    """O,C,3,3 -> O/block,16,C/step,block,step: G w G^T, in the order in which the kernel reads."""
    outputs, channels = weight.shape[:2]
    into = _INTO.to(weight.device)
    u = torch.einsum("pi,ocij,qj->pqoc", into, weight.detach().double(), into).reshape(16, outputs // block, block, channels // step, step)
    return u.permute(1, 0, 3, 2, 4).to(dtype).contiguous()  # 16,O/b,b,C/s,s -> O/b,16,C/s,b,s


def _aligned(weight: Tensor) -> Tensor:
    """On a 64-byte boundary, where PyTorch puts every tensor that it allocates itself."""
    return weight if weight.data_ptr() % 64 == 0 else weight.clone()


def _vectors(outputs: int, channels: int, dtype: torch.dtype) -> int | None:
    """How many vectors of output channels the kernel keeps in registers; None where there is none for these channels."""
    if dtype not in _DTYPES:
        return None
    for vectors in VECTORS:
        library = _library(vectors, STORAGE[dtype])
        if library is not None and outputs % library.block() == 0 and channels % library.lanes() == 0:
            return vectors
    return None


@functools.cache
def _library(vectors: int, storage: str) -> ctypes.CDLL | None:
    library = build.library("winograd", f"NR={vectors}", storage)
    if library is not None:
        library.winograd.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 5 + [ctypes.c_int] * 2
    return library
