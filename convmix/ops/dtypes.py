"""The types that the kernels store and compute in."""

import torch

STORAGE = {torch.bfloat16: "STORAGE_BF16", torch.float32: "STORAGE_F32", torch.float64: "STORAGE_F64"}  # definitions for the C compiler


def real_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums and per-channel values are kept: float32, and float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32
