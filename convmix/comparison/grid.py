"""The grid of an ablation: one base ConvMixer, and one change at a time, each beside what the paper found for it on CIFAR-10.

    patch, kernel                       neighbouring sizes
    depth                               half and twice the blocks, the width adapted to equal MACs: depth against width
    residual, norm, act                 the other choices
    scales                              several kernel sizes at once: the multi-scale ConvMixer, with a stem and mixing of its own
    augment                             each of the recipe's switched off where it is on, and on, as in the paper's recipe, where it is off

At equal MACs the width is adapted wherever a change alters the MACs: to the nearest multiple of WIDTH_STEP.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from convmix.comparison.candidates import Candidate
from convmix.config import Run, Size, model_arguments
from convmix.data.facts import DataFacts
from convmix.errors import ConfigError, did_you_mean
from convmix.models import catalog
from convmix.models.describe import count_macs
from convmix.recipes import FULL_RATIO, convmixer_cifar10_200, convmixer_cifar10_fast

AXES = ("patch", "kernel", "depth", "residual", "norm", "act", "scales", "augment", "optim")
EQUAL = ("macs", "time", "epochs")
WIDTH_STEP = 4  # channels; odd widths are slow everywhere
TOLERANCE = 0.1  # of equal MACs
KERNELS = (3, 5, 7, 9)  # the paper's sweep

Direction = Literal["better", "worse", "same", ""]

_IN_NAME = ("dim", "depth", "kernel_size", "patch_size", "act")
_PAPERS: dict[str, Any] = {"act": "gelu", "norm": "batch", "residual": "depthwise"}

# What the paper's CIFAR-10 tables (arXiv 2201.09792, ConvMixer-256/8) say, as an order from worse to better; equal ranks: no difference.
# Second: whether the sign was checked in the paper itself; the others are quoted from memory.
_ORDERS: dict[str, tuple[dict[Any, int], bool]] = {
    "residual": ({"both": 0, "depthwise": 1}, True),
    "norm": ({"layer": 0, "batch": 1}, True),
    "act": ({"relu": 0, "gelu": 1}, False),
    "mixup and CutMix": ({False: 0, True: 0}, False),
    "random erasing": ({False: 0, True: 1}, False),
    "RandAugment": ({False: 0, True: 1}, False),
    "random scaling": ({False: 0, True: 1}, False),
    "gradient clipping": ({False: 0, True: 1}, False),
}


@dataclass(frozen=True)
class Base:
    """What is varied: a ConvMixer on data of a known size."""

    sizes: Mapping[str, Any]  # arguments of the ConvMixer: dim, depth, kernel_size, patch_size, act, norm, residual
    run: Run  # as resolved: which augmentations are on
    facts: DataFacts
    contender: Candidate
    macs: int

    @property
    def size(self) -> Size:
        assert self.run.data.size is not None  # every recipe gives one
        return self.run.data.size


@dataclass(frozen=True)
class Variation:
    """One change of the base."""

    axis: str
    contender: Candidate
    expected: Direction = ""  # what the paper found for this change on CIFAR-10; "" where it says nothing
    is_sure: bool = True  # whether that sign is more than remembered


def base_of(model: str, run: Run, facts: DataFacts) -> Base:
    """The base named `model`; ConfigError where it is no ConvMixer of a size."""
    catalog.check_name(model)
    spec = catalog.find(model)
    if spec is None or spec.family != "convmixer" or "dim" not in spec.arguments:
        raise ConfigError(f"model: an ablation varies a ConvMixer of a size, such as convmixer_256_8 or convmixer_64_4_k5_p2, not {model}")
    sizes = {**_PAPERS, **spec.arguments, **model_arguments(run.net)}
    contender = Candidate("base", _settings(sizes), catalog.convmixer_name(sizes))
    assert run.data.size is not None
    return Base(sizes, run, facts, contender, _macs(sizes, run.data.size, facts))


def check(axes: Sequence[str], equal: str) -> None:
    """ConfigError, naming the nearest, for an axis or an equality that does not exist, and for no axis at all."""
    if not axes:
        raise ConfigError(f"axes: none given; expected some of {', '.join(AXES)}")
    for name, value, choices in (*(("axes", axis, AXES) for axis in axes), ("equal", equal, EQUAL)):
        if value not in choices:
            raise ConfigError(f"{name}: {value} is not one of {', '.join(choices)}{did_you_mean(value, choices)}")


def variations(base: Base, axes: Sequence[str], *, equal: str) -> tuple[list[Variation], list[str]]:
    """The changes along these axes, and a line on each that cannot be made; `check` has seen the arguments."""
    found: list[Variation] = []
    notes: list[str] = []
    for axis in dict.fromkeys(axes):
        for variation in _AXES[axis](base, equal == "macs"):
            if isinstance(variation, str):
                notes.append(variation)
            else:
                found.append(variation)
    return found, notes


def unequal_macs(base: Base, macs: Mapping[str, int | None]) -> list[str]:
    """A line on each contender, name -> MACs, that is further from the base than TOLERANCE: where a step of the width is a large one."""
    ratios = {name: value / base.macs for name, value in macs.items() if value is not None}
    return [
        f"{name}: {ratio:.2f} times the multiply-adds of the base, the nearest that the width allows"
        for name, ratio in ratios.items()
        if abs(ratio - 1) > TOLERANCE
    ]


def width_for(macs_at: Callable[[int], int], target: int) -> int:
    """The multiple of WIDTH_STEP at which `macs_at`, which grows with the width, is nearest to `target`."""
    low = high = WIDTH_STEP
    while macs_at(high) < target:
        low, high = high, 2 * high
    while high - low > WIDTH_STEP:
        middle = (low + high) // 2 // WIDTH_STEP * WIDTH_STEP
        low, high = (middle, high) if macs_at(middle) < target else (low, middle)
    return min((low, high), key=lambda width: abs(macs_at(width) - target))


# The axes: each yields its variations, or a line on why there is none


def _patch(base: Base, equal_macs: bool) -> list[Variation | str]:
    patch = base.sizes["patch_size"]
    others = [p for p in (patch // 2, 2 * patch, 4 * patch if patch == 1 else 0) if 0 < p <= min(base.size)]
    return [
        Variation("patch", _sized(base, f"patch {p}", {"patch_size": p}, equal_macs), "better" if p < patch else "worse") for p in others
    ]


def _kernel(base: Base, equal_macs: bool) -> list[Variation | str]:
    kernel = base.sizes["kernel_size"]
    return [
        Variation("kernel", _sized(base, f"kernel {k}", {"kernel_size": k}, equal_macs), "better" if k > kernel else "worse")
        for k in KERNELS
        if k != kernel
    ]


def _depth(base: Base, _: bool) -> list[Variation | str]:
    depth = base.sizes["depth"]
    return [Variation("depth", _sized(base, f"depth {d}", {"depth": d}, True)) for d in (depth // 2, 2 * depth) if d]


def _residual(base: Base, _: bool) -> list[Variation | str]:
    names = {"depthwise": "residual around depthwise alone", "none": "no residual", "both": "residual around pointwise too"}
    return [_choice(base, "residual", value, name) for value, name in names.items() if value != base.sizes["residual"]]


def _norm(base: Base, _: bool) -> list[Variation | str]:
    names = {"batch": "BatchNorm", "layer": "LayerNorm"}
    return [_choice(base, "norm", value, name) for value, name in names.items() if value != base.sizes["norm"]]


def _act(base: Base, _: bool) -> list[Variation | str]:
    names = {"gelu": "GELU", "relu": "ReLU"}
    return [_choice(base, "act", value, name) for value, name in names.items() if value != base.sizes["act"]]


def _scales(base: Base, equal_macs: bool) -> list[Variation | str]:
    sizes = base.sizes
    if sizes["patch_size"] % 2:
        return [f"scales: the multi-scale ConvMixer needs an even patch, not {sizes['patch_size']}"]
    kernels = [k for k in (1, *KERNELS) if k <= max(3, sizes["kernel_size"])]
    shared = {name: sizes[name] for name in ("dim", "depth", "patch_size", "act")} | {"kernel_sizes": kernels}

    def settings(width: int) -> dict[str, Any]:
        return {"model": "multiscale_convmixer", "model_args": json.dumps(shared | {"dim": width})}

    def macs(width: int) -> int:
        return _count("multiscale_convmixer", settings(width)["model_args"], base.size, base.facts)

    width = width_for(macs, base.macs) if equal_macs else sizes["dim"]
    note = f"multi-scale ConvMixer of width {width}, with a 7x7 stem and another channel mixing"
    return [Variation("scales", Candidate(f"kernels {'+'.join(map(str, kernels))}", settings(width), note))]


def _augment(base: Base, _: bool) -> list[Variation | str]:
    paper, run = convmixer_cifar10_200(base.facts), base.run
    switches: list[tuple[str, bool, dict[str, Any], dict[str, Any]]] = [  # name, whether it is on, settings for off and for on
        (
            "mixup and CutMix", bool(run.augment.mixup or run.augment.cutmix), {"mixup": 0.0, "cutmix": 0.0},
            {"mixup": paper.augment.mixup, "cutmix": paper.augment.cutmix},
        ),
        ("random erasing", run.augment.erasing > 0, {"erasing": 0.0}, {"erasing": paper.augment.erasing}),
        ("RandAugment", bool(run.augment.randaugment), {"randaugment": ""}, {"randaugment": paper.augment.randaugment}),
        (
            "random scaling", run.augment.scale != (1.0, 1.0), {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
            {"scale": list(paper.augment.scale), "ratio": list(FULL_RATIO)},
        ),
        ("gradient clipping", run.optim.clip_grad > 0, {"clip_grad": 0.0}, {"clip_grad": paper.optim.clip_grad}),
        ("horizontal flip", run.augment.hflip > 0, {"hflip": 0.0}, {"hflip": paper.augment.hflip}),
    ]  # fmt: skip
    return _switched(base, "augment", switches)


def _optim(base: Base, _: bool) -> list[Variation | str]:
    """What `convmixer_cifar10_fast` is made of; its settings are where these are turned on, the paper's where they are turned off."""
    fast, paper, run = convmixer_cifar10_fast(base.facts), convmixer_cifar10_200(base.facts), base.run
    names = ("optimizer", "lr", "momentum", "adamw_share")
    of_fast, of_paper = ({name: getattr(recipe.optim, name) for name in names} for recipe in (fast, paper))
    switches: list[tuple[str, bool, dict[str, Any], dict[str, Any]]] = [
        ("Muon", run.optim.optimizer.endswith("muon"), of_paper, of_fast),
        ("whitened patches", run.net.whiten, {"whiten": False}, {"whiten": True}),
        ("linear schedule", run.schedule.schedule == "linear", {"schedule": "triangular"}, {"schedule": "linear"}),
        ("label smoothing", run.optim.label_smoothing > 0, {"label_smoothing": 0.0}, {"label_smoothing": fast.optim.label_smoothing}),
    ]
    return _switched(base, "optim", switches)


def _switched(base: Base, axis: str, switches: list[tuple[str, bool, dict[str, Any], dict[str, Any]]]) -> list[Variation | str]:
    """One change each: off where it is on, else on."""
    return [
        Variation(
            axis, Candidate(f"{'no' if is_on else 'with'} {name}", {**base.contender.settings, **(off if is_on else on)}),
            *_expected(name, is_on, not is_on),
        )
        for name, is_on, off, on in switches
    ]  # fmt: skip


_AXES: dict[str, Callable[[Base, bool], list[Variation | str]]] = {
    "patch": _patch,
    "kernel": _kernel,
    "depth": _depth,
    "residual": _residual,
    "norm": _norm,
    "act": _act,
    "scales": _scales,
    "augment": _augment,
    "optim": _optim,
}


def _choice(base: Base, axis: str, value: str, name: str) -> Variation:
    """Another value of an argument that leaves the MACs alone."""
    return Variation(axis, Candidate(name, _settings({**base.sizes, axis: value})), *_expected(axis, base.sizes[axis], value))


def _expected(what: str, old: Any, new: Any) -> tuple[Direction, bool]:
    """What the paper found for a change from `old` to `new`, and how sure that is."""
    ranks, is_sure = _ORDERS.get(what, ({}, True))
    if old not in ranks or new not in ranks:
        return "", True
    change = ranks[new] - ranks[old]
    return ("better" if change > 0 else "worse" if change < 0 else "same"), is_sure


def _sized(base: Base, name: str, change: Mapping[str, Any], equal_macs: bool) -> Candidate:
    """The base with another size, and with the width that leaves its MACs where they are."""
    sizes = {**base.sizes, **change}
    if equal_macs:
        sizes["dim"] = width_for(lambda width: _macs({**sizes, "dim": width}, base.size, base.facts), base.macs)
    return Candidate(name, _settings(sizes), catalog.convmixer_name(sizes))


def _settings(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """As settings of a training: the name says the sizes and the activation, model_args whatever else is not the paper's."""
    own = {name: value for name, value in sizes.items() if name not in _IN_NAME and _PAPERS.get(name) != value}
    return {"model": catalog.convmixer_name(sizes)} | ({"model_args": json.dumps(own)} if own else {})


def _macs(sizes: Mapping[str, Any], size: Size, facts: DataFacts) -> int:
    return _count(catalog.convmixer_name(sizes), "{}", size, facts)


@functools.cache  # searches for the width of one axis pass through those of another
def _count(model: str, model_args: str, size: Size, facts: DataFacts) -> int:
    return count_macs(model, size=size, num_classes=facts.num_classes, in_chans=facts.in_chans, model_args=json.loads(model_args))
