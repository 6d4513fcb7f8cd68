import json
from dataclasses import replace

import pytest

from convmix import config
from convmix.config import ConfigError, Run, override, parse_duration, settings
from convmix.data.facts import DataFacts
from convmix.models import catalog
from convmix.recipes import RECIPES, recipe

PHOTOS = DataFacts(num_train=1300, num_classes=10, height=160, width=160, in_chans=3)


def test_every_setting_has_one_name() -> None:
    names = [s.name for s in settings()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    run = recipe(name, PHOTOS)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(run)))) == run
    assert run.recipe == name
    assert run.source


@pytest.mark.parametrize(("side", "model"), [(24, "convmixer_256_8"), (64, "convmixer_256_8_k5_p4"), (160, "convmixer_256_8_k7_p8")])
def test_several_labels_are_looked_for_all_over_the_image(side: int, model: str) -> None:
    """No crop that cuts objects away, and a pooling that a small one survives; of a model that the user names only the crop is meant."""
    facts = replace(PHOTOS, height=side, width=side)
    chosen = recipe("multilabel", facts)
    assert chosen.model == model and chosen.augment.scale == (0.85, 1.0)
    assert config.model_arguments(chosen.net) == {"global_pool": "avgmax"}
    named = recipe("multilabel", replace(facts, model="resnet18"))
    assert named.model == "resnet18" and not config.model_arguments(named.net) and named.augment.scale == (0.85, 1.0)
    assert chosen.optim == recipe("default", facts).optim


def test_many_small_images_get_the_fast_settings_and_a_short_budget_on_a_cpu_a_narrow_network() -> None:
    cifar10 = replace(PHOTOS, num_train=45_000, height=32, width=32)
    fast = recipe("default", cifar10)
    assert (fast.model, fast.optim.optimizer, fast.net.whiten) == ("convmixer_256_8", "muon", True)
    assert fast.data.mean is None  # the data's own, not CIFAR-10's
    narrow = recipe("default", replace(cifar10, cpu_budget_s=600)).model
    assert narrow == "convmixer_128_8_k5_p2" and catalog.create_model(narrow, num_classes=10)
    assert recipe("default", replace(cifar10, cpu_budget_s=3600)).model == "convmixer_256_8"
    assert recipe("convmixer_cifar10_fast", replace(cifar10, cpu_budget_s=600)).model == "convmixer_128_8_k5_p2"
    for other in (
        replace(cifar10, num_train=4_000), replace(cifar10, height=65), replace(cifar10, height=16, width=16),
        replace(cifar10, model="convmixer_256_8"),
    ):  # fmt: skip
        assert recipe("default", other).optim.optimizer == "adamw"
    assert recipe("multilabel", cifar10).optim.label_smoothing == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weigth_decay": 1}, "unknown setting weigth_decay, did you mean weight_decay?"),
        ({"optim.weigth_decay": 1}, "unknown setting optim.weigth_decay, did you mean optim.weight_decay?"),
        ({"fit": "letterbx"}, "data.fit: 'letterbx' is not one of crop, letterbox, stretch, did you mean letterbox?"),
        ({"epochs": "ten"}, "schedule.epochs: 'ten' is not a whole number"),
        ({"epochs": 0}, "schedule.epochs: 0 is too small, expected at least 1"),
        ({"epochs": True}, "schedule.epochs: True is not a whole number"),
        ({"scale": "0.8,0.2"}, "augment.scale: 0.8,0.2 is not a range inside 0..1, smaller first"),
        ({"scale": "0.5"}, "augment.scale: '0.5' is not 2 numbers"),
        ({"hflip": 1.5}, "augment.hflip: 1.5 is outside 0..1"),
        ({"budget": "soon"}, "budget: 'soon' is not a duration"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"accumulate": 3}, "does not divide the batch of 128"),
        ({"lr": "nan"}, "optim.lr: nan is too small"),
    ],
)
def test_impossible_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Run(), values)
    assert message in str(caught.value)


def test_text_becomes_the_type_of_the_setting() -> None:
    run = override(Run(), {"size": "224x320", "lr": "1e-3", "mean": "0.1,0.2", "balanced": "true", "drop_path": "none", "scale": "0.75 1"})
    assert run.data.size == (224, 320)
    assert run.data.mean == (0.1, 0.2)
    assert run.data.balanced is True
    assert run.net.drop_path is None
    assert run.augment.scale == (0.75, 1.0)
    assert override(Run(), {"size": 64}).data.size == (64, 64)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1m30s", 90)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_published_recipes_are_the_authors() -> None:
    """Rate, epsilon, weight decay, images a step, epochs without and with cooldown, warm-up: from the sources that the recipes name."""
    published = {
        "convmixer_imagenet": (0.01, 1e-3, 2e-5, 640, 150, 0, 0),
        "convmixer_cifar10": (0.05, 1e-8, 0.005, 512, 25, 0, 0),
        "convmixer_cifar10_100": (0.05, 1e-8, 0.005, 512, 100, 0, 0),
        "convmixer_cifar10_200": (0.01, 1e-3, 0.01, 64, 200, 0, 0),
        "convmlp_imagenet": (5e-4, 1e-8, 0.05, 1024, 300, 10, 5),
        "convmlp_finetune": (3e-4, 1e-8, 0.05, 1024, 50, 10, 10),
    }
    for name, numbers in published.items():
        o, s = recipe(name, PHOTOS).optim, recipe(name, PHOTOS).schedule
        assert (o.lr, o.eps, o.weight_decay, o.batch_size, s.epochs, s.cooldown_epochs, s.warmup_epochs) == numbers, name
    boxes, outlines, maps = (recipe(name, PHOTOS).optim for name in ("detect_1x", "instances_1x", "segment_40k"))
    assert boxes == outlines and (boxes.lr, boxes.weight_decay, boxes.batch_size) == (1e-4, 1e-4, 16)
    assert (maps.lr, maps.weight_decay, maps.batch_size) == (2e-4, 1e-4, 32)
    with pytest.raises(ConfigError, match="unknown recipe convmixer_cifar, did you mean convmixer_cifar10"):
        recipe("convmixer_cifar", PHOTOS)
