"""Inputs of the tests of the Triton kernels: fresh numbers, odd sizes, and every layout in which an image may come."""

import os

import pytest
import torch
from torch import Tensor

# The interpreter takes up to a minute for what a card does at once. There each kernel runs once forward and once backward, in a shape with
# the edges that matter.
ASKED = os.environ.get("CONVMIX_TEST_KERNELS")  # all or few
EVERYTHING = ASKED == "all" or (torch.cuda.is_available() and ASKED != "few")
everything = pytest.mark.skipif(not EVERYTHING, reason="on a card, or with CONVMIX_TEST_KERNELS=all")
SHAPES = [(1, 3, 5, 5), (3, 17, 7, 9), (1, 5, 31, 9), (1, 256, 3, 4), (1, 8, 9, 31), (2, 4, 1, 1)]
# ||ours - exact|| / ||exact||: float32's own sums, and one rounding of the result to 8 or 11 bits. A whole unit of bfloat16, because the
# interpreter cuts where the card rounds.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11}


def images(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """New normal numbers, B,C,H,W channels last. In memory an image of NaN lies on either side, for whoever reads beyond."""
    batch, *rest = shape
    store = torch.full((batch + 2, *rest), torch.nan, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    within = store[1:-1]
    assert within.is_contiguous(memory_format=torch.channels_last)
    return within.copy_(torch.randn(shape, device=device))
