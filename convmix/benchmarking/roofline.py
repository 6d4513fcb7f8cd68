"""What the machine can do at most: its own measured rates of matrix products and of copying, and how far a model is from them.

The arithmetic of a model is counted (multiply-adds, twice: a product and a sum; training: three times the forward pass), so a share of the
matrix-product rate says how much of the machine a contender uses. Depthwise convolutions and norms count little and cannot reach it.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIDE = 2048  # of the square matrices
COPIED = 256 * 2**20  # bytes
REPEATS = 7


@dataclass(frozen=True)
class Rates:
    """Of one machine with all threads of the work."""

    matmul_fp32: float  # operations per second
    matmul_bf16: float
    copy: float  # bytes per second, read plus written


def measure_rates(device: torch.device) -> Rates:
    """Medians of a few products of 2048 x 2048 matrices and copies of 256 MiB."""
    return Rates(_matmul(torch.float32, device), _matmul(torch.bfloat16, device), _copy(device))


def operations(macs: int, batch_size: int, kind: str) -> int:
    """Floating-point operations of one batch."""
    return 2 * macs * batch_size * (3 if kind == "training" else 1)


def _matmul(dtype: torch.dtype, device: torch.device) -> float:
    a = torch.randn(SIDE, SIDE, device=device).to(dtype)
    out = torch.empty_like(a)
    return 2 * SIDE**3 / _median_s(lambda: torch.mm(a, a, out=out), device)


def _copy(device: torch.device) -> float:
    a = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    b = torch.zeros_like(a)
    return 2 * COPIED / _median_s(lambda: b.copy_(a), device)


def _median_s(function: Callable[[], object], device: torch.device) -> float:
    times = []
    for i in range(REPEATS + 2):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 2:  # the first ones warm the machine up
            times.append(time.perf_counter() - started)
    return statistics.median(times)
