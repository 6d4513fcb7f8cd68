"""Names -> models: convmix's own, and every image model of timm.

    create_model("convmlp_s", num_classes=10)            one of `list_models()`
    create_model("convmixer_512_12_k8_p7_relu")           any size: dim, depth, kernel, patch; GELU unless it ends in _relu
    create_model("convmlp_s.shi_in1k", pretrained=True)   a size and whose weights, as timm writes it
    create_model("vit_tiny_patch16_224", pretrained=True) timm's
    create_model("local-dir:runs/photos")                 a saved model, timm's way

All carry what timm's tools ask for; timm's factory builds those that take timm: its own, published weights, features. This file imports
neither timm nor torch until it builds: timm's own import calls it through `timm_registry`.
"""

import difflib
import fnmatch
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convmix.errors import ModelError, WeightsError, did_you_mean, first_line
from convmix.models.published import PUBLISHED
from convmix.models.timm_configs import SHI_TAG, description
from convmix.models.timm_names import timm_names

if TYPE_CHECKING:
    from torch import nn

    from convmix.models.layers import Backbone


@dataclass(frozen=True)
class Spec:
    """A family and the arguments of its constructor that a name stands for."""

    family: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ModelInput:
    """What published weights or an inflexible model want to see."""

    size: tuple[int, int]  # height, width, in pixels
    fixed_size: bool  # the model can be built for another size, but then takes that one alone


_CONVMLP_T = {
    "blocks": (2, 4, 2),
    "dims": (64, 128, 256),
    "mlp_ratios": (2, 2, 2),
    "channels": 32,
    "n_conv_blocks": 2,
}  # S at half its width
_CONVMLP_S = {"blocks": (2, 4, 2), "dims": (128, 256, 512), "mlp_ratios": (2, 2, 2), "channels": 64, "n_conv_blocks": 2}
_CONVMLP_M = {"blocks": (3, 6, 3), "dims": (128, 256, 512), "mlp_ratios": (3, 3, 3), "channels": 64, "n_conv_blocks": 3}
_CONVMLP_L = {"blocks": (4, 8, 3), "dims": (192, 384, 768), "mlp_ratios": (3, 3, 3), "channels": 96, "n_conv_blocks": 3}

NAMED: dict[str, Spec] = {
    "convmixer_1536_20": Spec("convmixer", {"dim": 1536, "depth": 20, "kernel_size": 9, "patch_size": 7}),
    "convmixer_768_32": Spec("convmixer", {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "act": "relu"}),
    "convmixer_1024_20_ks9_p14": Spec("convmixer", {"dim": 1024, "depth": 20, "kernel_size": 9, "patch_size": 14}),
    "convmixer_256_8": Spec("convmixer", {"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 2}),
    "convmlp_t": Spec("convmlp", _CONVMLP_T),
    "convmlp_s": Spec("convmlp", _CONVMLP_S),
    "convmlp_m": Spec("convmlp", _CONVMLP_M),
    "convmlp_l": Spec("convmlp", _CONVMLP_L),
    "multiscale_convmixer_t": Spec("multiscale_convmixer", {"dim": 256, "depth": 5, "patch_size": 4}),
    "multiscale_convmixer_s": Spec(
        "multiscale_convmixer", {"dim": 368, "depth": 15, "patch_size": 16, "channel_ratio": 0.5, "stem_dim": 64}
    ),
    "multiscale_convmixer_m": Spec(
        "multiscale_convmixer", {"dim": 448, "depth": 22, "patch_size": 16, "channel_ratio": 0.5, "stem_dim": 64}
    ),
}
FAMILIES = {name: Spec(name, {}) for name in ("convmixer", "convmlp", "multiscale_convmixer")}  # sizes given as model_args
TIMM_OWN = frozenset({"convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14"})  # names that plain timm knows too
SMALL = frozenset({"convmixer_256_8", "multiscale_convmixer_t"})  # made for CIFAR-10: 10 classes of 32x32 pixels

_ANY_CONVMIXER = re.compile(r"convmixer_(\d+)_(\d+)_k(\d+)_p(\d+)(_relu)?")
_NOT_ARCHITECTURE = frozenset({"drop_rate", "drop_path_rate", "global_pool"})  # timm's ConvMixer takes the first and the last
_BUILDER_KEYS = frozenset(
    {"pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "pretrained_strict", "cache_dir"}
    | {"features_only", "feature_cls", "output_fmt", "out_indices"}
)


def find(name: str) -> Spec | None:
    """The spec behind one of convmix's names, or None."""
    if match := _ANY_CONVMIXER.fullmatch(name):
        dim, depth, kernel_size, patch_size = map(int, match.groups()[:4])
        sizes = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size}
        return Spec("convmixer", sizes | {"act": "relu" if match[5] else "gelu"})
    return NAMED.get(name) or FAMILIES.get(name)


def convmixer_name(sizes: Mapping[str, Any]) -> str:
    """The name of the ConvMixer with this dim, depth, kernel_size, patch_size and act, as `find` reads it."""
    return "convmixer_{dim}_{depth}_k{kernel_size}_p{patch_size}".format_map(sizes) + ("_relu" if sizes.get("act") == "relu" else "")


def check_name(name: str) -> None:
    """Raises ModelError, naming the nearest, for a name that neither convmix nor timm has; saved models and the Hub's are not looked up."""
    if find(_without_tag(name)) is not None or ":" in name:
        return
    import timm

    if not timm.is_model(name):
        raise ModelError(_unknown(name))


def registered_names() -> list[str]:
    """The names that convmix adds to timm's registry."""
    return [name for name in (*NAMED, *FAMILIES) if name not in TIMM_OWN]


def list_models(pattern: str = "*") -> list[str]:
    """Names that fit a pattern such as "convm*": convmix's own sizes first, then timm's."""
    names = [*NAMED, *(n for n in timm_names() if n not in NAMED and n not in FAMILIES)]
    return fnmatch.filter(names, pattern)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    drop_path: float | None = None,
    dropout: float = 0.0,
    features_only: bool = False,
    out_indices: Sequence[int] | int | None = None,
    model_args: Mapping[str, object] | None = None,
) -> "nn.Module":
    """Build a model of convmix or timm; images B,in_chans,H,W -> logits B,num_classes, or with features_only a list of B,C,H,W.

    num_classes, in_chans: None is the model's own (1000 and 3, a saved model's as saved). drop_path: rate of the last block's stochastic
    depth, None is the model's default. out_indices: which features, the last n for an int. model_args: further arguments of the
    constructor, as JSON values; an activation by its name. What loading the published weights left to say is in `.load_notes`.
    Raises ModelError for unknown names and arguments, WeightsError where published weights cannot be had.
    """
    args = {**(model_args or {})}
    given = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": dropout or None}
    args |= {k: v for k, v in given.items() if v is not None}
    features: dict[str, Any] = {"features_only": True} if features_only else {}
    if features_only and out_indices is not None:
        features["out_indices"] = out_indices if isinstance(out_indices, int) else tuple(out_indices)
    name = _without_tag(name)
    spec = find(name)
    if spec is None:
        return _create_timm_model(name, pretrained, args | features, drop_path)
    if drop_path is not None:
        if "drop_path_rate" in _parameters(spec.family):
            args["drop_path_rate"] = drop_path
        elif drop_path > 0:
            raise ModelError(f"{name} has no stochastic depth; leave drop_path out")
    return build_for_timm(name, pretrained, **args, **features)


def build_for_timm(name: str, pretrained: bool = False, **kwargs: Any) -> "nn.Module":
    """Build one of convmix's names with the arguments timm hands to an entry point; raises ModelError for an unknown one."""
    spec = find(name)
    if spec is None:
        raise ModelError(_unknown(name))
    args = {k: v for k, v in kwargs.items() if k not in _BUILDER_KEYS}
    builder = {k: v for k, v in kwargs.items() if k in _BUILDER_KEYS and v is not None}
    _check_arguments(name, spec, args)
    args = {**spec.arguments, **args}
    if pretrained and not _has_source(builder):
        return _with_published_weights(name, args, builder)
    config = None if name in NAMED else describe_for_timm(name, Spec(spec.family, args))  # timm's registry has those of the named
    if not pretrained and not builder:  # nothing that takes timm, which takes seconds to import
        model = _family_class(spec.family)(**_defaults(name) | args)
        model.timm_entry = name, config
        return model
    from timm.models._builder import build_model_with_cfg

    if config is not None:
        builder.setdefault("pretrained_cfg", config)
    if builder.setdefault("feature_cls", "getter") != "getter":
        raise ModelError(f"{name}: feature_cls is {builder['feature_cls']!r}, expected getter, the only way to its features")
    if not builder.get("features_only"):
        del builder["feature_cls"]
    levels = len(args["dims"]) + 1 if spec.family == "convmlp" else min(3, args["depth"])  # features by default
    try:
        return build_model_with_cfg(_family_class(spec.family), name, pretrained, feature_cfg={"out_indices": levels}, **builder, **args)
    except AssertionError as error:  # timm's answer to an index that is out of range
        raise ModelError(f"{name}: {error}") from error


def timm_config(model: "nn.Module") -> tuple[str, dict[str, Any]]:
    """(architecture, model_args) for timm's config.json: `timm.create_model(architecture, **model_args)` rebuilds `model`.

    Plain timm can do so for its own models and for the three ConvMixers it has entries for; others need `import convmix` before
    (`needs_convmix`). Raises ModelError for a model that JSON cannot describe.
    """
    from convmix.models.layers import Backbone

    if isinstance(model, Backbone):
        return _own_config(model)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if not cfg.get("architecture") or not hasattr(model, "num_classes"):
        raise ModelError(f"{type(model).__name__} was not built by convmix.create_model or timm.create_model as a classifier")
    args = dict(getattr(model, "_model_args", None) or getattr(model, "given_args", {}))
    args["num_classes"] = model.num_classes
    args["in_chans"] = args.get("in_chans", getattr(model, "in_chans", 3))
    try:
        return cfg["architecture"], json.loads(json.dumps(args))
    except TypeError as error:
        raise ModelError(f"{cfg['architecture']}: its arguments cannot be written as JSON: {error}") from error


def needs_convmix(architecture: str, model_args: Mapping[str, object]) -> bool:
    """Whether rebuilding what `timm_config` returned takes `import convmix` beside timm."""
    return find(architecture) is not None and architecture not in TIMM_OWN


def published_input(name: str) -> ModelInput | None:
    """The image size that `name` insists on or that its published weights were trained for; None where there is none."""
    if find(name) is not None:
        return ModelInput(PUBLISHED[name].size, fixed_size=False) if name in PUBLISHED else None
    from timm.models import get_pretrained_cfg
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    source, _, place = name.partition(":")
    try:
        if source == "local-dir":
            cfg = load_model_config_from_path(place)[0]
        elif source == "hf-hub":
            cfg = load_model_config_from_hf(place)[0]
        else:
            registered = get_pretrained_cfg(name)
            cfg = registered.to_dict() if registered else {}
    except Exception:  # an unknown tag, a folder that is missing, no network: create_model says which
        return None
    size = cfg.get("input_size")
    return ModelInput((size[1], size[2]), fixed_size=bool(cfg.get("fixed_input_size", False))) if size else None


# convmix's own


def _family_class(family: str) -> "type[Backbone]":
    """Imported here and not above, because timm's import leads here and the model files import timm."""
    from convmix.models.convmixer import ConvMixer
    from convmix.models.convmlp import ConvMLP
    from convmix.models.multiscale import MultiScaleConvMixer

    classes: dict[str, type[Backbone]] = {"convmixer": ConvMixer, "convmlp": ConvMLP, "multiscale_convmixer": MultiScaleConvMixer}
    return classes[family]


def _parameters(family: str) -> dict[str, inspect.Parameter]:
    return {k: p for k, p in inspect.signature(_family_class(family).__init__).parameters.items() if k != "self"}


def _check_arguments(name: str, spec: Spec, args: Mapping[str, object]) -> None:
    parameters = _parameters(spec.family)
    for key in args:
        if key not in parameters:
            raise ModelError(f"{name} takes no argument {key}{did_you_mean(key, parameters)}; it has {', '.join(parameters)}")
    required = [k for k, p in parameters.items() if p.default is p.empty]
    missing = [k for k in required if k not in args and k not in spec.arguments]
    if missing:
        raise ModelError(f"{name} needs model_args {', '.join(missing)}; or take one of the sizes {', '.join(_sizes(spec.family))}")


def _without_tag(name: str) -> str:
    """One of our names without the tag of its published weights, of which there is one set each; other names as they are."""
    architecture, dot, tag = name.partition(".")
    if not dot or architecture not in registered_names():
        return name
    if architecture not in PUBLISHED:
        raise ModelError(f"{name}: {architecture} has no published weights; leave .{tag} out")
    if tag != SHI_TAG:
        raise ModelError(f"{name}: no published weights have the tag {tag}, did you mean {architecture}.{SHI_TAG}?")
    return architecture


def _sizes(family: str) -> list[str]:
    return [name for name, spec in NAMED.items() if spec.family == family]


def describe_for_timm(name: str, spec: Spec) -> dict[str, Any]:
    """timm's pretrained_cfg: how images are prepared for this model, and where its first and last layers are."""
    classes = _defaults(name)["num_classes"]
    return description(name, spec.family, spec.arguments, size_px=32 if name in SMALL else 224, num_classes=classes)


def _defaults(name: str) -> dict[str, Any]:
    """What timm's factory takes from a description where the caller says nothing."""
    return {"num_classes": 10 if name in SMALL else 1000, "in_chans": 3}


def _has_source(builder: Mapping[str, Any]) -> bool:
    cfgs = [c for c in (builder.get("pretrained_cfg"), builder.get("pretrained_cfg_overlay")) if isinstance(c, Mapping)]
    return any(cfg.get(key) for cfg in cfgs for key in ("file", "url", "hf_hub_id", "state_dict"))


def _with_published_weights(name: str, args: dict[str, Any], builder: dict[str, Any]) -> "nn.Module":
    """The whole model with the published weights, or its features, which take over their share."""
    from convmix.models import weights  # stands below this file in the import order, and is needed for this alone

    spec = find(name)
    own = {k: v for k, v in args.items() if spec is None or spec.arguments.get(k) != v}
    plain = {k: v for k, v in builder.items() if k not in ("features_only", "feature_cls", "output_fmt", "out_indices")}
    model = build_for_timm(name, **own, **plain)
    notes = weights.load_pretrained(model, name).notes
    if builder.get("features_only"):
        features = build_for_timm(name, **own, **builder)
        trunk = features.get_submodule("model")
        kept = trunk.state_dict()
        trunk.load_state_dict({k: v for k, v in model.state_dict().items() if k in kept})
        model = features
    model.load_notes = tuple(notes)  # type: ignore[assignment]
    return model


def _own_config(model: "Backbone") -> tuple[str, dict[str, Any]]:
    """A named size where there is one, else the family with all that is not default."""
    family = next(f for f in FAMILIES if type(model) is _family_class(f))
    args = _as_json(model.arguments | {"global_pool": model.global_pool.pool_type})
    rest = {"num_classes": model.num_classes, "in_chans": model.in_chans}
    for name in [*_sizes(family), family]:
        default = _as_json(
            {k: p.default for k, p in _parameters(family).items() if p.default is not p.empty}
            | {**NAMED.get(name, FAMILIES[family]).arguments}
        )
        changed = {k: v for k, v in args.items() if default.get(k) != v}
        if name == family or changed.keys() <= _NOT_ARCHITECTURE:
            return name, changed | rest
    raise AssertionError("unreachable: the family's own name takes any arguments")


def _as_json(args: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(args)))  # tuples become lists


# timm's


def _create_timm_model(name: str, pretrained: bool, args: dict[str, Any], drop_path: float | None) -> "nn.Module":
    import timm

    check_name(name)
    wanted = args | ({"drop_path_rate": drop_path} if drop_path else {})
    try:
        model = timm.create_model(name, pretrained=pretrained, **wanted)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        word = {"drop_path_rate": "drop_path", "drop_rate": "dropout"}.get(unknown[1], unknown[1]) if unknown else ""
        raise ModelError(f"{name} has no {word}; leave it out" if unknown else f"{name}: {error}") from error
    except ModelError:
        raise
    except Exception as error:
        if pretrained and ":" not in name:
            raise WeightsError(
                f"{name}: the published weights could not be fetched or do not fit ({first_line(error)}); "
                "go online once, or give a file with weights=PATH"
            ) from error
        raise ModelError(f"{name}: {first_line(error)}") from error
    if drop_path and not any(getattr(m, "drop_prob", 0) for m in model.modules()):
        raise ModelError(f"{name} has no stochastic depth; leave drop_path out")  # some of timm's swallow the argument
    model.given_args = wanted  # type: ignore[assignment]
    model.load_notes = _timm_notes(model) if pretrained else ()  # type: ignore[assignment]
    return model


def _timm_notes(model: "nn.Module") -> tuple[str, ...]:
    """What timm's loader does without a word."""
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    classes, wanted = cfg.get("num_classes"), getattr(model, "num_classes", None)
    if classes == wanted or not wanted:
        return ()
    return (f"the published classifier is for {classes} classes: the model's, for {wanted}, starts at random",)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, dict.fromkeys([*NAMED, *FAMILIES, *timm_names()]), n=3, cutoff=0.6)
    form = "; other sizes are written convmixer_DIM_DEPTH_kKERNEL_pPATCH" if name.startswith("convmixer") else ""
    return f"unknown model {name}{', did you mean ' + ' or '.join(near) + '?' if near else ''}{form}"
