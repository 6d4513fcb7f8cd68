"""The authors' detectors and segmenters, written by mmdetection and mmsegmentation -> the networks here.

backbone.X                                         backbone.features.model.X, X being the names of `models.convmlp`
neck.lateral_convs.i.conv  neck.fpn_convs.i.conv   pyramid.fpn.inner_blocks.i.0  .layer_blocks.i.0  .extra_blocks.convs.j
bbox_head.*                                        head.* of RetinaNet
rpn_head.*  roi_head.*                             rpn.*  roi_heads.* of Mask R-CNN
decode_head.*                                      the same without decode_head, of SemanticFpn

Channels mean the same on both sides: anchors by ratio and then by scale, for each the classes or dx, dy, dw, dh. The one exception is
Mask R-CNN's classifier, with the background last there and first here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from convmix.errors import WeightsError
from convmix.models.checkpoint import read_checkpoint
from convmix.tasks.pyramid import DenseNetwork

_HEADS = ("bbox_head.", "rpn_head.", "roi_head.", "decode_head.")
_BACKGROUND_LAST = "roi_head.bbox_head.fc_cls."

# our name -> theirs, the first that fits
_RULES = (
    (r"backbone\.features\.model\.(.+)", r"backbone.\1"),
    (r"pyramid\.fpn\.inner_blocks\.(\d+)\.0\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
    (r"pyramid\.fpn\.layer_blocks\.(\d+)\.0\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
    (r"head\.classification_head\.conv\.(\d+)\.0\.(\w+)", r"bbox_head.cls_convs.\1.conv.\2"),
    (r"head\.classification_head\.cls_logits\.(\w+)", r"bbox_head.retina_cls.\1"),
    (r"head\.regression_head\.conv\.(\d+)\.0\.(\w+)", r"bbox_head.reg_convs.\1.conv.\2"),
    (r"head\.regression_head\.bbox_reg\.(\w+)", r"bbox_head.retina_reg.\1"),
    (r"rpn\.head\.conv\.0\.0\.(\w+)", r"rpn_head.rpn_conv.\1"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"rpn_head.rpn_cls.\1"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.fc6\.(\w+)", r"roi_head.bbox_head.shared_fcs.0.\1"),
    (r"roi_heads\.box_head\.fc7\.(\w+)", r"roi_head.bbox_head.shared_fcs.1.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(\w+)", _BACKGROUND_LAST + r"\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(\w+)", r"roi_head.bbox_head.fc_reg.\1"),
    (r"roi_heads\.mask_head\.(\d+)\.0\.(\w+)", r"roi_head.mask_head.convs.\1.conv.\2"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_head.mask_head.upsample.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_head.mask_head.conv_logits.\1"),
    (r"(scale_heads\..+|conv_seg\..+)", r"decode_head.\1"),
)
_EXTRA = re.compile(r"pyramid\.fpn\.extra_blocks\.convs\.(\d+)\.(\w+)")


def is_mmlab(path: str | Path) -> bool:
    """Whether a weight file or model directory holds a detector or segmenter in these names; WeightsError where it cannot be read."""
    return _in_their_names(read_checkpoint(path))


def load_mmlab(network: DenseNetwork, path: str | Path) -> tuple[str, ...]:
    """Load a published file into `network`, in place; returns what is to be said of it. Raises WeightsError where it does not fit."""
    state = from_mmlab(read_checkpoint(path), network, source=str(path))
    network.load_state_dict(state)
    return (f"all weights are those of {path}",)


def from_mmlab(state: Mapping[str, Tensor], network: DenseNetwork, *, source: str = "these weights") -> dict[str, Tensor]:
    """`state` in mmdetection's or mmsegmentation's names -> a state dict of `network`; every tensor on both sides is accounted for.

    Raises WeightsError, naming them in their names, for tensors that are missing, that the network has no place for, or of other shape.
    """
    if not _in_their_names(state):
        raise WeightsError(f"{source}: no names of mmdetection or mmsegmentation (backbone.* with one of {', '.join(_HEADS)})")
    if network.backbone.taps != "authors":
        raise WeightsError(f"{source}: the authors' networks tap raw features; the network has to be built with taps=authors")
    ours = network.state_dict()
    laterals = sum(bool(re.fullmatch(r"pyramid\.fpn\.inner_blocks\.\d+\.0\.weight", name)) for name in ours)
    theirs = {name: _their_name(name, laterals) for name in ours}
    missing = [t for name, t in theirs.items() if t not in state and not name.endswith("num_batches_tracked")]  # old files lack it
    unexpected = sorted(state.keys() - theirs.values())
    shapes = [(t, tuple(state[t].shape), tuple(ours[name].shape)) for name, t in theirs.items() if t in state]
    other = [f"{t} {has} for {wants}" for t, has, wants in shapes if has != wants]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shape", other))
    if missing or unexpected or other:
        found = "; ".join(f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for kind, names in kinds if names)
        raise WeightsError(
            f"{source}: does not fit {type(network).__name__} on {network.backbone.name} with {network.num_classes} classes ({found})"
        )
    return {name: _values(state[t], t) if t in state else ours[name] for name, t in theirs.items()}


def _in_their_names(state: Mapping[str, Tensor]) -> bool:
    return any(k.startswith("backbone.") for k in state) and any(k.startswith(_HEADS) for k in state)


def _their_name(name: str, laterals: int) -> str:
    if extra := _EXTRA.fullmatch(name):
        return f"neck.fpn_convs.{laterals + int(extra[1])}.conv.{extra[2]}"
    for pattern, theirs in _RULES:
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    raise AssertionError(f"{name} has no counterpart: a tensor was added to a network and not to the rules")


def _values(tensor: Tensor, their_name: str) -> Tensor:
    """Background first: classes 0..k-1, background -> background, classes 0..k-1."""
    return torch.cat([tensor[-1:], tensor[:-1]]) if their_name.startswith(_BACKGROUND_LAST) else tensor
