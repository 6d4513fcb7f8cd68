"""Who is compared: names of models, and what of them has to fit the images.

Attention and token mixing are built for one grid of patches. At 32 pixels the published patch of 16 leaves 4 tokens, which nobody would
train. So for smaller images the patches are smaller, or, where timm builds a model with its published patch alone, the images are
enlarged until as many patches fit; the page says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convmix.config import Size
from convmix.errors import ConfigError
from convmix.models import catalog

SMALL_PX = 64  # up to here the models made for CIFAR-10 stand for convmix
_ANY_PATCH = re.compile(r"(vit|deit|deit3)_.*")  # timm's models that take a patch_size
_OWN_PATCH = re.compile(r"(mixer|gmixer|resmlp|gmlp)_.*")  # and those that do not
_PATCHES = (16, 8, 4, 2, 1)
FEWEST_PATCHES = 8  # per side, of the 14 that these models have at 224 pixels


@dataclass(frozen=True)
class Candidate:
    """One column of an experiment: what is trained, once per seed."""

    name: str  # in tables; no two of an experiment are equal
    settings: Mapping[str, Any] = field(default_factory=dict)  # of config.Run, on top of those that all share: JSON values
    note: str = ""  # what a reader should know about it

    @property
    def folder(self) -> str:
        """A name for files."""
        return re.sub(r"[^\w.-]+", "_", self.name)


def default_models(size: Size, baselines: Sequence[str]) -> tuple[str, ...]:
    """convmix's three families and the baselines of about their size, for images of this height and width."""
    small = max(size) <= SMALL_PX
    ours = ("convmixer_256_8", "multiscale_convmixer_t") if small else ("convmixer_256_8_k7_p8", "multiscale_convmixer_s")
    return (*ours, "convmlp_s", *baselines)


def contenders(models: Sequence[str], *, size: Size, pretrained: bool = False) -> tuple[Candidate, ...]:
    """One per name; ModelError for an unknown one, ConfigError for one given twice.

    With published weights (`pretrained`) a model keeps the patches that these were made for.
    """
    for name in models:
        catalog.check_name(name)
    if twice := sorted({name for name in models if list(models).count(name) > 1}):
        raise ConfigError(f"models: {', '.join(twice)} given twice; every model is trained once per seed")
    return tuple(_contender(name, size, pretrained) for name in models)


def _contender(name: str, size: Size, pretrained: bool) -> Candidate:
    any_patch, own_patch = _ANY_PATCH.fullmatch(name), _OWN_PATCH.fullmatch(name)
    published = catalog.published_input(name) if (any_patch or own_patch) and not pretrained else None
    if published is None or max(size) >= min(published.size):
        return Candidate(name, {"model": name})
    found = re.search(r"(?:patch|mixer_[a-z])(\d+)", name)
    theirs = int(found[1]) if found else 16  # resmlp_12_224 is named by its depth
    fits = (p for p in _PATCHES if p <= theirs and size[0] % p == 0 and size[1] % p == 0 and min(size) // p >= FEWEST_PATCHES)
    patch = next(fits, 1)
    if patch == theirs:
        return Candidate(name, {"model": name})
    if any_patch:
        return Candidate(
            name, {"model": name, "model_args": json.dumps({"patch_size": patch})}, f"patches of {patch} px instead of {theirs}"
        )
    h, w = (side * theirs // patch for side in size)
    return Candidate(
        name, {"model": name, "size": f"{h}x{w}"}, f"images enlarged to {h}x{w}, {h // theirs}x{w // theirs} patches of {theirs} px"
    )
