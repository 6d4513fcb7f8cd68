"""What timm's registry is told of each of our models: how images are fed to it, its first and last layers, where its weights are.

    name -> description (a timm PretrainedCfg as a dict)          what a model carries as `pretrained_cfg`
    names -> default_cfgs (name -> timm's DefaultCfg, with tags)  what `timm.list_models(pretrained=True)` reads

A published set of weights has a tag, as in `convmlp_s.shi_in1k`; the first tag is what the name alone means.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from convmix.models.published import PUBLISHED

SHI_TAG = "shi_in1k"  # trained by SHI-Labs on ImageNet-1k

_CROP_PCT = {"convmixer": 0.96, "convmlp": 0.9, "multiscale_convmixer": 0.9}  # for images of 224 pixels, as the families' papers do
_FIRST_CONV = {"convmixer": "stem.0", "convmlp": "tokenizer.block.0", "multiscale_convmixer": "stem.0"}
_PATCH = {"convmixer": 7, "multiscale_convmixer": 4}  # the constructors' defaults
_ORIGIN = {  # of the published weights: paper, repository
    "convmixer": ("arXiv:2201.09792", "https://github.com/locuslab/convmixer"),
    "convmlp": ("arXiv:2109.04454", "https://github.com/SHI-Labs/Convolutional-MLPs"),
}


def description(name: str, family: str, arguments: Mapping[str, Any], *, size_px: int, num_classes: int) -> dict[str, Any]:
    """timm's pretrained_cfg of the model `name` for square images, without a place where weights are."""
    reduction = 32 if family == "convmlp" else arguments.get("patch_size", _PATCH[family])
    side = max(1, size_px // reduction)
    return {
        "architecture": name,
        "input_size": (3, size_px, size_px),
        "pool_size": (side, side),
        "num_classes": num_classes,
        "crop_pct": _CROP_PCT[family] if size_px == 224 else 1.0,
        "interpolation": "bicubic",
        "first_conv": _FIRST_CONV[family],
        "classifier": "head",
    }


def default_cfgs(described: Sequence[tuple[str, str, dict[str, Any]]]) -> Mapping[str, Any]:
    """timm's `default_cfgs` for (name, family, description) each; a name with published weights has them under their tag."""
    from timm.models import generate_default_cfgs

    tagged: dict[str, dict[str, Any]] = {}
    for name, family, config in described:
        tag = f".{SHI_TAG}" if name in PUBLISHED else ""
        tagged[name + tag] = config | _published(name, family)
    return generate_default_cfgs(tagged)  # type: ignore[arg-type]  # dicts, as timm's own files give


def _published(name: str, family: str) -> dict[str, Any]:
    """Where the weights of `name` are and what they were trained on, in timm's words; nothing where nobody published any."""
    if name not in PUBLISHED:
        return {}
    weights = PUBLISHED[name]
    paper, repository = _ORIGIN[family]
    return {
        "hf_hub_id": weights.hub_id,
        "url": None if weights.hub_id else weights.url,
        "input_size": (len(weights.mean), *weights.size),
        "num_classes": weights.num_classes,
        "crop_pct": weights.crop_pct,
        "interpolation": weights.interpolation,
        "mean": weights.mean,
        "std": weights.std,
        "paper_ids": paper,
        "origin_url": repository,
    }
