"""Whether Triton's kernels may take a tensor: on CUDA where they are on, on the CPU only through Triton's interpreter, for tests.

What may be taken is not yet trusted: `trial` decides that, shape by shape.
"""

import importlib.util
import os
from collections.abc import Collection

import torch
from torch import Tensor

from convmix.ops import switch
from convmix.ops.gpu.card import INTERPRETER, confirmed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNEL_SIZES = range(3, 16)


def route_for(device_type: str) -> bool:
    """Whether tensors on "cuda", "cpu", ... may go to the Triton kernels in this process: as CONVMIX_KERNELS says (`switch`), and where
    that is "on" only with kernels confirmed for this card. ConfigError where it says what there is not.
    """
    asked = switch.kernels()
    if asked == "off" or importlib.util.find_spec("triton") is None:
        return False
    if device_type == "cpu":
        return asked in ("gpu", "triton") and os.environ.get("TRITON_INTERPRET") == "1"
    return can_run(device_type) and (asked != "on" or bool(confirmed(torch.cuda.get_device_name())))


# What `torch.compiler.assume_constant_result` does, which imports the compiler: two seconds for everybody who compiles nothing.
vars(route_for)["_dynamo_marked_constant"] = True


def can_run(device_type: str) -> bool:
    """Whether the kernels could be launched there at all: a CUDA card from compute capability 8.0 on, and Triton."""
    found = device_type == "cuda" and torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
    return found and torch.cuda.get_device_capability() >= (8, 0)


def said(device_type: str) -> str | None:
    """The line about these kernels in the log of a training or a benchmark; None where there is nothing to say."""
    if route_for("cpu"):
        return line(switch.kernels(), INTERPRETER, ())
    if not can_run(device_type):
        return None
    name = torch.cuda.get_device_name()
    return line(switch.kernels(), name, confirmed(name))


def line(asked: str, card_name: str, confirmed: Collection[str]) -> str | None:
    """The same for what CONVMIX_KERNELS says, on this card, where these kernels are confirmed."""
    if asked == "off":
        return None
    if asked == "on" and not confirmed:
        return f"GPU kernels: off, they are unmeasured on {card_name}; CONVMIX_KERNELS=gpu tries each at its first use"
    measured = f"confirmed on {card_name}: {', '.join(sorted(confirmed))}" if confirmed else f"unmeasured on {card_name}"
    if asked == "triton":
        return f"GPU kernels: all on and none checked (CONVMIX_KERNELS=triton), {measured}"
    which = "all" if asked == "gpu" else "those confirmed"
    return f"GPU kernels: {which} on, {measured}; each is checked at its first use, PyTorch takes what differs or is slower"


def kernels_for(x: Tensor) -> bool:
    """Whether there are Triton kernels for images like x."""
    if not route_for(x.device.type):  # first: where there is no route, torch.compile learns nothing about the shape
        return False
    return x.ndim == 4 and x.dtype in DTYPES and x.numel() > 0 and x.shape[2] * x.shape[3] * x.shape[1] < 2**31


def depthwise_fits(x: Tensor, kernel_size: int) -> bool:
    """Whether there are Triton kernels for a depthwise convolution of x with kernels of this size."""
    return kernels_for(x) and KERNEL_SIZES[0] <= kernel_size <= KERNEL_SIZES[-1]
