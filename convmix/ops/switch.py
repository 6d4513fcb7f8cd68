"""CONVMIX_KERNELS: which kernels of our own may compute in this process. The one place where it is read.

    on      the default: the C kernels on the CPU; on CUDA those Triton kernels that a record has confirmed for this card (`ops.gpu.card`)
    gpu     on CUDA every Triton kernel that proves itself at its first use (`ops.gpu.trial`), confirmed or not
    triton  every Triton kernel on CUDA, unchecked: for the kernels' own tests and benchmarks
    off     none: PyTorch does everything

With TRITON_INTERPRET=1, which like this variable must be set before Triton is first imported, gpu and triton send CPU tensors to the Triton
kernels too: slow, and the way to test without a card.
"""

import os

from convmix.errors import ConfigError, did_you_mean

CHOICES = ("on", "gpu", "triton", "off")


def kernels() -> str:
    """What CONVMIX_KERNELS says, "on" where it says nothing; ConfigError for anything but CHOICES."""
    asked = os.environ.get("CONVMIX_KERNELS") or "on"
    if asked not in CHOICES:
        raise ConfigError(f"CONVMIX_KERNELS: {asked} is not one of {', '.join(CHOICES)}{did_you_mean(asked, CHOICES)}")
    return asked
