"""A copy of a model to be examined: hooks, gradients and new weights are the copy's, the model stays as it was found."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHIFTS = 8  # shifted copies of an image that BatchNorm statistics are taken over: one image may leave it a single value per channel


def specimen(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of `model` on `device`, in eval mode, without gradients of its own and without activations that overwrite their input.

    Overwriting (nn.ReLU(inplace=True)) changes what a hook has kept. Checkpointing is off: it would run every hook twice.
    """
    examined = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    for module in examined.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    if hasattr(examined, "set_grad_checkpointing"):
        examined.set_grad_checkpointing(False)  # type: ignore[operator]
    return examined


def randomised(examined: nn.Module, images: Tensor, *, seed: int) -> nn.Module:
    """A copy of a specimen that has forgotten what it learned: the entries of every parameter change places at random.

    So every layer keeps the distribution of its weights and loses their meaning. BatchNorm statistics are taken again over `images`
    (N,C,H,W) and shifted copies of them; with those of the trained weights the activations would run off or die out.
    """
    copied = copy.deepcopy(examined)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    norms = [m for m in copied.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if norms:
        height, width = images.shape[2:]
        shifted = [images.roll((i * height // SHIFTS, i * width // SHIFTS), (2, 3)) for i in range(SHIFTS)]
        for norm in norms:
            norm.momentum = 1.0  # the last batch alone
            norm.train()
        with torch.no_grad():
            copied(torch.cat(shifted))
        copied.eval()
    return copied


@contextmanager
def seeded(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Inside, torch's own random numbers start from `seed`; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(seed)
        yield


def images_per_pass(height: int, width: int) -> int:
    """How many copies of an image go through the model at once, so that memory stays bounded: 64 at 32x32 pixels, 3 at 224x224."""
    return max(1, min(64, 200_000 // (height * width)))
