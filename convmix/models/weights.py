"""Published and own checkpoints of every origin -> a model built here.

    file or directory -> tensors (checkpoint.py) -> our names (origins.py) -> fitted to classes and channels -> loaded, or one clear error

docs/how_to/weights.md is the page for users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from convmix.errors import ModelError, WeightsError, did_you_mean
from convmix.models.checkpoint import open_checkpoint, read_checkpoint
from convmix.models.layers import Backbone
from convmix.models.origins import activation_evidence, family_of, is_convmixer, to_our_names
from convmix.models.published import PUBLISHED
from convmix.models.published_files import Place, fetch

__all__ = ["LoadReport", "load_pretrained", "load_weights", "read_checkpoint"]


@dataclass(frozen=True)
class LoadReport:
    """What was loaded, and what the user should know of it."""

    origin: str  # whose names the file had
    notes: tuple[str, ...]  # one line each: a classifier that starts at random, a stem that was adapted


def load_weights(
    model: nn.Module, state_or_path: Mapping[str, Tensor] | str | Path, *, source: str = "", activation: str | None = None
) -> LoadReport:
    """Load tensors, or a file or model directory, into `model`, in place; nothing is changed where an error is raised.

    A classifier for another number of classes is left as the model initialised it, and a stem for another number of input channels is
    adapted as timm does (`in_chans` 1: summed over RGB; N: repeated and scaled); both are noted. `source` is how messages call the
    weights. `activation` states what they were trained with, over what the file declares or its statistics show.
    Raises WeightsError for an unreadable file, for tensors of another architecture, and for weights of another activation.
    """
    if isinstance(state_or_path, (str, Path)):
        checkpoint = open_checkpoint(state_or_path)
        tensors: Mapping[str, Tensor] = checkpoint.tensors
        source, activation = source or str(state_or_path), activation or checkpoint.activation
    else:
        tensors = state_or_path
    source = source or "these weights"
    origin, state = to_our_names(tensors)
    target = model.state_dict()
    notes = [*_fit_classifier(model, state, target), *_fit_stem(model, state, target, source)]
    _check_names_and_shapes(model, state, target, source)
    if is_convmixer(state):
        _check_activation(model, state, source, activation)
    model.load_state_dict(state, strict=False)  # what may be missing was checked above
    return LoadReport(origin, tuple(notes))


def load_pretrained(model: nn.Module, name: str) -> LoadReport:
    """Fetch the published ImageNet weights of `name` (or take them from the cache) and load them into `model`.

    Raises ModelError where nobody published weights for `name`, WeightsError where they cannot be fetched or do not fit.
    """
    if name not in PUBLISHED:
        raise ModelError(f"{name} has no published weights{did_you_mean(name, PUBLISHED)}; those that have: {', '.join(PUBLISHED)}")
    published = PUBLISHED[name]
    report = load_weights(model, fetched(name), source=published.hub_id or published.url, activation=published.activation)
    return LoadReport(published.hub_id or published.url, report.notes)


def fetched(name: str) -> Path:
    """The file of the published weights of `name`, from the cache or its host; WeightsError where it cannot be fetched."""
    published = PUBLISHED[name]
    return fetch(Place(name, published.hub_id, published.url))


# fitting


def _fit_classifier(model: nn.Module, state: dict[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
    """Leave out a classifier for other classes; `state` is changed. A classifier of another width is an error for later."""
    name = _classifier_name(model)
    ours, theirs = target.get(f"{name}.weight"), state.get(f"{name}.weight")
    in_file = [k for k in state if k.startswith(f"{name}.")]
    if ours is None:
        for key in in_file:
            del state[key]
        return ["the file's classifier is left out: the model has none"] if in_file else []
    if not in_file:
        state |= {k: v for k, v in target.items() if k.startswith(f"{name}.")}
        return [f"the file has no classifier: the model's, for {len(ours)} classes, starts at random"]
    if theirs is None or theirs.shape[1:] != ours.shape[1:] or len(theirs) == len(ours):
        return []
    state |= {k: v for k, v in target.items() if k.startswith(f"{name}.")}
    return [f"the file's classifier is for {len(theirs)} classes: the model's, for {len(ours)}, starts at random"]


def _classifier_name(model: nn.Module) -> str:
    if isinstance(model, Backbone):
        return "head"
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    name = config.get("classifier") if isinstance(config, Mapping) else getattr(config, "classifier", None)
    return name if isinstance(name, str) else "head"


def _fit_stem(model: nn.Module, state: dict[str, Tensor], target: Mapping[str, Tensor], source: str) -> list[str]:
    """Adapt the first convolution to the model's channels; `state` is changed."""
    first = next((n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), "")
    key = f"{first}.weight"
    ours, theirs = target.get(key), state.get(key)
    if ours is None or theirs is None or theirs.ndim != 4 or ours.shape[1] == theirs.shape[1]:
        return []
    if ours.shape[0] != theirs.shape[0] or ours.shape[2:] != theirs.shape[2:]:
        return []  # another architecture: told by its other tensors too
    from timm.models import adapt_input_conv

    channels, wanted = theirs.shape[1], ours.shape[1]
    if channels != 3:
        raise WeightsError(f"{source}: the stem is for {channels} channels and only RGB weights can be adapted, here to {wanted}")
    state[key] = adapt_input_conv(wanted, theirs)
    return [f"the stem is adapted from {channels} to {wanted} input channels, as timm does"]


# refusing


def _check_names_and_shapes(model: nn.Module, state: Mapping[str, Tensor], target: Mapping[str, Tensor], source: str) -> None:
    missing = [k for k in target if k not in state and not k.endswith("num_batches_tracked")]  # old files lack the counter
    unexpected = [k for k in state if k not in target]
    both = [k for k in target if k in state]
    other = [f"{k} {tuple(state[k].shape)} for {tuple(target[k].shape)}" for k in both if state[k].shape != target[k].shape]
    if not (missing or unexpected or other):
        return
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shape", other))
    found = "; ".join(f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for kind, names in kinds if names)
    raise WeightsError(f"{source}: does not fit the model: {_likely_cause(model, state, target)} ({found})")


def _likely_cause(model: nn.Module, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    theirs, ours = family_of(state), family_of(target)
    if theirs and theirs == ours:
        return f"both are {ours}, but single tensors differ; the file may be incomplete or changed"
    return f"the file holds {theirs or 'another architecture or size'}, the model is {ours or type(model).__name__}"


def _check_activation(model: nn.Module, state: Mapping[str, Tensor], source: str, declared: str | None) -> None:
    """A state dict does not carry its activation, and loading ReLU weights into a GELU model only shows as bad accuracy."""
    stem = getattr(model, "stem", None)
    kinds = {nn.ReLU: "relu", nn.GELU: "gelu"}
    ours = next((kinds[type(m)] for m in stem.modules() if type(m) in kinds), None) if isinstance(stem, nn.Module) else None
    if ours is None:
        return
    evidence = activation_evidence(state)
    if declared is not None:
        theirs, why = declared, "as they declare"
    elif ours == "relu" and evidence == "not relu":
        theirs, why = "gelu", "their BN means are negative in places, which ReLU cannot give"
    elif ours != "relu" and evidence == "relu":
        theirs, why = "relu", "none of their BN means is negative"
    else:
        return
    if theirs != ours:
        rename = "convmixer_768_32 or a name that ends in _relu" if theirs == "relu" else "a name without _relu"
        raise WeightsError(
            f"{source}: trained with {theirs.upper()} ({why}), the model uses {ours.upper()}; "
            f"choose {rename}, or in Python state load_weights(..., activation={ours!r})"
        )
