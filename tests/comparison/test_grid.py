"""The grid of an ablation: one change at a time, at equal MACs, beside what the paper found."""

import json
from dataclasses import replace
from typing import Any

import pytest

from convmix.comparison.grid import AXES, TOLERANCE, WIDTH_STEP, Base, base_of, check, unequal_macs, variations, width_for
from convmix.config import Augment, Optim, Run, override
from convmix.data.facts import DataFacts
from convmix.errors import ConfigError, ModelError
from convmix.models.describe import count_macs
from convmix.recipes import convmixer_cifar10_200, convmixer_cifar10_fast

FACTS = DataFacts(1000, 10, 32, 32, 3)


def base(model: str = "convmixer_64_4_k5_p2", run: Run | None = None) -> Base:
    return base_of(model, run or convmixer_cifar10_200(FACTS), FACTS)


def macs_of(settings: Any) -> int:
    args = json.loads(settings.get("model_args", "{}"))
    return count_macs(settings["model"], size=(32, 32), num_classes=10, model_args=args)


def changes(
    model: str = "convmixer_64_4_k5_p2", axes: tuple[str, ...] = AXES, equal: str = "macs", run: Run | None = None
) -> dict[str, Any]:
    return {v.contender.name: v for v in variations(base(model, run), axes, equal=equal)[0]}


def test_every_axis_has_its_changes() -> None:
    found = changes()
    assert {name: v.axis for name, v in found.items() if v.axis not in ("augment", "optim")} == {
        "patch 1": "patch", "patch 4": "patch", "kernel 3": "kernel", "kernel 7": "kernel", "kernel 9": "kernel",
        "depth 2": "depth", "depth 8": "depth", "no residual": "residual", "residual around pointwise too": "residual",
        "LayerNorm": "norm", "ReLU": "act", "kernels 1+3+5": "scales",
    }  # fmt: skip
    assert [name for name, v in found.items() if v.axis == "augment"] == [
        "no mixup and CutMix", "no random erasing", "no RandAugment", "no random scaling", "no gradient clipping", "no horizontal flip",
    ]  # fmt: skip
    assert [name for name, v in found.items() if v.axis == "optim"] == [
        "with Muon", "with whitened patches", "with linear schedule", "no label smoothing",
    ]  # fmt: skip


def test_macs_are_equal_within_the_tolerance() -> None:
    target = macs_of(base().contender.settings)
    for name, v in changes().items():
        assert abs(macs_of(v.contender.settings) / target - 1) < TOLERANCE, name
    assert changes()["patch 1"].contender.settings["model"] == "convmixer_28_4_k5_p1"
    assert changes(equal="epochs")["patch 1"].contender.settings["model"] == "convmixer_64_4_k5_p1"


def test_depth_is_always_traded_against_width() -> None:
    target = macs_of(base().contender.settings)
    for equal in ("macs", "epochs", "time"):
        for name in ("depth 2", "depth 8"):
            assert abs(macs_of(changes(equal=equal)[name].contender.settings) / target - 1) < TOLERANCE


def test_the_width_is_the_nearest_step() -> None:
    for target in (0, 4, 70, 1000, 4096, 5000, 123_456):
        width = width_for(lambda w: w * w, target)
        assert width == min(range(WIDTH_STEP, 600, WIDTH_STEP), key=lambda w: abs(w * w - target))


def test_macs_that_cannot_be_equal_are_said() -> None:
    b = base()
    lines = unequal_macs(b, {"near": round(1.09 * b.macs), "far": 2 * b.macs, "failed": None})
    assert lines == ["far: 2.00 times the multiply-adds of the base, the nearest that the width allows"]


def test_a_change_changes_one_thing_of_the_training() -> None:
    run = convmixer_cifar10_200(FACTS)
    plain = override(run, base().contender.settings)
    for name, v in changes().items():
        changed = override(run, v.contender.settings)
        if v.axis == "augment":
            assert changed != plain and changed.net == plain.net and changed.model == plain.model, name
        elif v.axis == "optim":
            assert sum(getattr(changed, part) != getattr(plain, part) for part in ("net", "optim", "schedule")) == 1, name
            assert (changed.augment, changed.model) == (plain.augment, plain.model)
        else:
            assert (changed.augment, changed.optim) == (plain.augment, plain.optim)
            assert (changed.model, changed.net) != (plain.model, plain.net), name


def test_augmentations_are_switched_off_where_they_are_on_and_on_where_they_are_off() -> None:
    paper = convmixer_cifar10_200(FACTS)
    without = override(paper, {"mixup": 0, "cutmix": 0, "erasing": 0, "randaugment": "", "scale": "1,1", "clip_grad": 0, "hflip": 0})
    off, on = changes(axes=("augment",)), changes(axes=("augment",), run=without)
    assert list(on) == [name.replace("no ", "with ") for name in off]
    switched_off = override(paper, {k: x for v in off.values() for k, x in v.contender.settings.items()})
    assert switched_off.augment == Augment(random_interpolation=True, erasing_mode="pixel") and switched_off.optim.clip_grad == 0
    switched_on = override(without, {k: x for v in on.values() for k, x in v.contender.settings.items()})
    assert (switched_on.augment, switched_on.optim) == (paper.augment, paper.optim)
    assert [v.expected for v in off.values()] == ["same", "worse", "worse", "worse", "worse", ""]
    assert [v.expected for v in on.values()] == ["same", "better", "better", "better", "better", ""]
    assert not off["no RandAugment"].is_sure


def test_what_the_fast_recipe_is_made_of_is_switched_off_there() -> None:
    fast = convmixer_cifar10_fast(FACTS)
    off = changes(axes=("optim",), run=fast)
    assert list(off) == ["no Muon", "no whitened patches", "no linear schedule", "no label smoothing"]
    switched_off = override(fast, {k: x for v in off.values() for k, x in v.contender.settings.items()})
    assert switched_off.optim == replace(convmixer_cifar10_200(FACTS).optim, label_smoothing=0.0)
    assert not switched_off.net.whiten and switched_off.schedule.schedule == "triangular"


def test_the_papers_findings_turn_with_the_base() -> None:
    found = {name: v.expected for name, v in changes().items()}
    assert found["patch 1"] == found["kernel 7"] == "better"
    assert found["patch 4"] == found["kernel 3"] == found["LayerNorm"] == found["ReLU"] == found["residual around pointwise too"] == "worse"
    assert found["no residual"] == found["depth 2"] == found["kernels 1+3+5"] == ""
    other = Run(net=override(Run(), {"model_args": {"norm": "layer", "residual": "both"}}).net, data=convmixer_cifar10_200(FACTS).data)
    turned = {name: v.expected for name, v in changes("convmixer_64_4_k5_p2_relu", ("norm", "act", "residual"), run=other).items()}
    assert turned == {"BatchNorm": "better", "GELU": "better", "residual around depthwise alone": "better", "no residual": ""}


def test_further_arguments_of_the_base_stay_in_every_change() -> None:
    run = override(convmixer_cifar10_200(FACTS), {"model_args": {"norm": "layer", "drop_rate": 0.1}})
    assert json.loads(changes(axes=("kernel",), run=run)["kernel 3"].contender.settings["model_args"]) == {
        "norm": "layer",
        "drop_rate": 0.1,
    }
    assert json.loads(changes(axes=("norm",), run=run)["BatchNorm"].contender.settings["model_args"]) == {"drop_rate": 0.1}


def test_what_cannot_be_made_is_said() -> None:
    found, notes = variations(base("convmixer_64_4_k5_p1"), ("scales", "patch"), equal="macs")
    assert notes == ["scales: the multi-scale ConvMixer needs an even patch, not 1"]
    assert [v.contender.name for v in found] == ["patch 2", "patch 4"]


@pytest.mark.parametrize("model", ["convmlp_s", "resnet18", "convmixer", "multiscale_convmixer_t"])
def test_the_base_is_a_convmixer_of_a_size(model: str) -> None:
    with pytest.raises(ConfigError, match=f"a ConvMixer of a size, .*, not {model}"):
        base(model)


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean convmixer_256_8"):
        base("convmixer_256_9")
    for axes, equal, message in ((("kernal",), "macs", "kernel"), ((), "macs", "none given"), (("kernel",), "mac", "did you mean macs")):
        with pytest.raises(ConfigError, match=message):
            check(axes, equal)


def test_the_switch_of_clipping_leaves_the_rest_of_the_optimiser() -> None:
    assert override(Run(optim=Optim(clip_grad=5.0)), changes()["no gradient clipping"].contender.settings).optim == Optim(clip_grad=0.0)
