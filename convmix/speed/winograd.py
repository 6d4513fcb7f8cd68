"""Winograd's algorithm for the 3x3 convolutions of a trained model that are large enough to gain by it.

model, folded -> Sequential(convolution, nothing, ReLU) becomes one WinogradConv2d; everything else stays for a compiler
"""

import torch
from torch import nn

from convmix.errors import ModelError
from convmix.ops.winograd import WinogradConv2d, fits

FEWEST_CHANNELS = {torch.float32: 32, torch.bfloat16: 48}  # below, transforming takes what the fewer products save (LOG.md)


def use_winograd(model: nn.Module, dtype: torch.dtype) -> int:
    """Replace, in place, what gains by it in a model that will compute in `dtype` on the CPU; returns how many convolutions.

    A ReLU that directly follows a convolution in a Sequential is done by the same kernel. Raises ModelError where there is none to replace
    or no kernel for it.
    """
    least = FEWEST_CHANNELS.get(dtype)
    if least is None:
        raise ModelError(f"Winograd convolutions are computed in float32 or bfloat16, not {dtype}")
    count = 0
    try:
        for sequence in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
            count += _replace(sequence, dtype, least)
    except LookupError as error:
        raise ModelError(f"no Winograd convolution here: {error}") from None
    if not count:
        raise ModelError(f"{type(model).__name__} has no 3x3 convolution that gains by Winograd's algorithm")
    return count


def _replace(sequence: nn.Sequential, dtype: torch.dtype, least: int) -> int:
    count = 0
    layers = list(sequence.named_children())
    for i, (name, layer) in enumerate(layers):
        if not isinstance(layer, nn.Conv2d) or not fits(layer) or layer.in_channels < least:
            continue
        following = next((n for n, m in layers[i + 1 :] if type(m) is not nn.Identity), None)
        act = None if following is None else sequence.get_submodule(following)
        relu = type(act) is nn.ReLU
        setattr(sequence, name, WinogradConv2d(layer, relu=relu, dtype=dtype))
        if relu:
            setattr(sequence, str(following), nn.Identity())
        count += 1
    return count
