"""The space-mixing half of a trained ConvMixer block as one kernel: convolution, activation, BN and residual in one pass over the image.

x B,C,H,W -> carry * x + scale * act(bias + depthwise(x)) + shift, x having the value `pad` outside the image
"""

import torch
from torch import Tensor

from convmix.ops import depthwise
from convmix.ops.dtypes import STORAGE


class MixKernel:
    """The kernel for one kernel size, activation ("gelu" or "relu") and type; raises LookupError where there is none for this machine."""

    def __init__(self, kernel_size: int, act: str, dtype: torch.dtype) -> None:
        library = depthwise.library(kernel_size, STORAGE[dtype], act.upper()) if dtype in STORAGE else None
        if library is None:
            raise LookupError(f"no compiled kernel of size {kernel_size} for {act} in {dtype}")
        self.library, self.kernel_size, self.dtype = library, kernel_size, dtype

    def __call__(self, x: Tensor, taps: Tensor, bias: Tensor, pad: Tensor, carry: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """x: B,C,H,W, any layout. taps: k,k,C and pad: C, of x's type. The others: C float32 (float64 for float64).

        Returns B,C,H,W, channels last.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x)
        batch, channels, height, width = x.shape
        at = [t.data_ptr() for t in (x, taps, bias, pad, carry, scale, shift, y)]
        if x.numel() and self.library.convolve(*at, batch, height, width, channels, (self.kernel_size - 1) // 2, torch.get_num_threads()):
            raise MemoryError("no memory for the working buffers of a depthwise convolution")
        return y
