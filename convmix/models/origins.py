"""Where a state dict comes from, its names in ours, and what its numbers say of the activation.

locuslab  0.*  2.*  {3+i}.0.fn.*  {3+i}.1.*  {3+i}.3.*  {5+d}.*          -> stem.*  blocks.i.*  head.*
mmpretrain  backbone.stem.*  backbone.stages.i.*  head.fc.*              -> stem.*  blocks.i.*  head.*
timm and the Hub (ConvMixer), SHI-Labs (ConvMLP), convmix itself          are ours already
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

GELU_MIN = -0.17  # the smallest value of GELU is -0.16997
ENOUGH_CHANNELS = 512  # 2.5 % or more of the channels of GELU models had a negative mean, from the first training step on


def to_our_names(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The origin, in words, and the tensors under our names (order kept, tensors shared); detected by names alone."""
    if "0.weight" in tensors and "3.0.fn.0.weight" in tensors:
        return "locuslab (sequential names)", _rename_sequential(tensors)
    if "backbone.stem.0.weight" in tensors or "stages.0.0.fn.0.weight" in tensors:
        return "mmpretrain", {_rename_mmpretrain(k): v for k, v in tensors.items() if not k.startswith("data_preprocessor.")}
    if "stem.0.weight" in tensors and "blocks.0.0.fn.0.weight" in tensors:
        return "timm names", dict(tensors)
    if "tokenizer.block.0.weight" in tensors:
        return "SHI-Labs ConvMLP names", dict(tensors)
    return "names as they are", dict(tensors)


def _rename_sequential(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """nn.Sequential counts stem conv, act, BN as 0, 1, 2, then the blocks; pool and flatten take two places before the classifier."""
    depth = len([k for k in tensors if re.fullmatch(r"\d+\.0\.fn\.0\.weight", k)])

    def ours(name: str) -> str:
        first, rest = name.split(".", 1)
        if not first.isdigit():
            return name
        place = int(first)
        if place < 3:
            return f"stem.{name}"
        return f"blocks.{place - 3}.{rest}" if place < 3 + depth else f"head.{rest}"

    return {ours(k): v for k, v in tensors.items()}


def _rename_mmpretrain(name: str) -> str:
    name = name.removeprefix("backbone.")
    if name.startswith("stages."):
        return "blocks." + name.removeprefix("stages.")
    return "head." + name.removeprefix("head.fc.") if name.startswith("head.fc.") else name


def is_convmixer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors under our names are those of a plain ConvMixer."""
    return "stem.2.running_mean" in tensors and "blocks.0.0.fn.0.weight" in tensors


def activation_evidence(tensors: Mapping[str, Tensor]) -> Literal["relu", "not relu", "unknown"]:
    """What the BN statistics of a ConvMixer, taken after each activation, say of that activation.

    The mean of a ReLU's outputs is never negative, so one negative mean settles "not relu". GELU gives negative means in some channels
    already after one step, so none among `ENOUGH_CHANNELS` or more means "relu". Untrained statistics (all 0), few channels, and
    statistics that no GELU could give either (below its minimum: written by hand) stay "unknown".
    """
    names = [k for k in tensors if re.fullmatch(r"stem\.2\.running_mean|blocks\.\d+\.(0\.fn\.2|3)\.running_mean", k)]
    means = torch.cat([tensors[k].float().flatten() for k in names]) if names else torch.empty(0)
    if not means.numel() or not means.isfinite().all() or not means.any() or means.min() < GELU_MIN:
        return "unknown"
    if means.min() < 0:
        return "not relu"
    return "relu" if means.numel() >= ENOUGH_CHANNELS else "unknown"


def family_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The architecture with its sizes read off the shapes, 'ConvMixer of dim 256, depth 8, ...'; None for one not known here."""
    shape = {k: tuple(v.shape) for k, v in tensors.items()}
    if is_convmixer(tensors):
        depth = _count(tensors, r"blocks\.(\d+)\.0\.fn\.0\.weight")
        dim, _, patch, _ = shape["stem.0.weight"]
        return f"ConvMixer of dim {dim}, depth {depth}, kernel {shape['blocks.0.0.fn.0.weight'][-1]}, patch {patch}"
    if "tokenizer.block.0.weight" in tensors and "stages.0.blocks.0.norm1.weight" in tensors:
        stages = range(_count(tensors, r"stages\.(\d+)\.blocks\.0\.norm1\.weight"))
        blocks = ",".join(str(_count(tensors, rf"stages\.{s}\.blocks\.(\d+)\.norm1\.weight")) for s in stages)
        dims = ",".join(str(shape[f"stages.{s}.blocks.0.norm1.weight"][0]) for s in stages)
        return f"ConvMLP of blocks {blocks} and dims {dims}"
    return None


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for k in tensors if (m := re.fullmatch(pattern, k))})
