"""Whether Triton's kernels take a tensor: on CUDA where Triton can be imported, on the CPU only through Triton's interpreter, for tests."""

import importlib.util
import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNEL_SIZES = range(3, 16)


def route_for(device_type: str) -> bool:
    """Whether tensors on "cuda", "cpu", ... go to the Triton kernels in this process.

    CONVMIX_KERNELS=off keeps every kernel of our own away. CONVMIX_KERNELS=triton with TRITON_INTERPRET=1, both set before Triton is first
    imported, sends CPU tensors here too: slow, and the way to test without a card.
    """
    asked = os.environ.get("CONVMIX_KERNELS", "on")
    if asked == "off" or importlib.util.find_spec("triton") is None:
        return False
    if device_type == "cpu":
        return asked == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    return device_type == "cuda" and torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0)


# What `torch.compiler.assume_constant_result` does, which imports the compiler: two seconds for everybody who compiles nothing.
vars(route_for)["_dynamo_marked_constant"] = True


def kernels_for(x: Tensor) -> bool:
    """Whether there are Triton kernels for images like x."""
    return x.ndim == 4 and x.dtype in DTYPES and x.numel() > 0 and x.shape[2] * x.shape[3] * x.shape[1] < 2**31 and route_for(x.device.type)


def depthwise_fits(x: Tensor, kernel_size: int) -> bool:
    """Whether a depthwise convolution of x with kernels of this size goes to the Triton kernels."""
    return kernel_size in KERNEL_SIZES and kernels_for(x)
