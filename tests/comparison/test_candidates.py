"""Who is compared, and that those who are can see images of the size."""

import pytest

from convmix.comparison.candidates import contenders, default_models
from convmix.config import Data, Run, model_arguments, override
from convmix.errors import ConfigError, ModelError
from convmix.models.describe import describe
from convmix.tasks.classify import Classify


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 128])
def test_every_default_contender_takes_the_images(side: int) -> None:
    some = contenders(default_models((side, side), Classify.baselines), size=(side, side))
    assert {c.name.split("_")[0] for c in some} >= {"convmixer", "convmlp", "multiscale", "resnet18", "deit", "mixer", "resmlp", "convnext"}
    for c in some:
        run = override(Run(data=Data(size=(side, side))), c.settings)
        assert describe(run.model, size=run.data.size, num_classes=10, model_args=model_arguments(run.net)).macs > 0


@pytest.mark.parametrize(
    ("name", "size", "own", "note"),
    [
        ("deit_tiny_patch16_224", (32, 32), {"model_args": '{"patch_size": 4}'}, "patches of 4 px instead of 16"),
        ("vit_tiny_patch16_224", (7, 7), {"model_args": '{"patch_size": 1}'}, "patches of 1 px instead of 16"),
        ("mixer_s16_224", (32, 48), {"size": "128x192"}, "images enlarged to 128x192, 8x12 patches of 16 px"),
        ("mixer_s32_224", (64, 64), {"size": "256x256"}, "images enlarged to 256x256, 8x8 patches of 32 px"),
        # 24 / 4 = 6 patches would be too few
        ("resmlp_12_224", (24, 24), {"size": "192x192"}, "images enlarged to 192x192, 12x12 patches of 16 px"),
    ],
)
def test_small_images_get_as_many_patches_and_the_page_says_how(name: str, size: tuple[int, int], own: dict[str, str], note: str) -> None:
    (c,) = contenders([name], size=size)
    assert dict(c.settings) == {"model": name, **own}
    assert c.note == note


@pytest.mark.parametrize(
    ("name", "size", "pretrained"),
    [("deit_tiny_patch16_224", (224, 224), False), ("vit_tiny_patch16_224", (128, 128), False), ("mixer_s16_224", (32, 32), True)],
)
def test_where_the_published_patches_fit_they_stay(name: str, size: tuple[int, int], pretrained: bool) -> None:
    (c,) = contenders([name], size=size, pretrained=pretrained)
    assert c.settings == {"model": name} and not c.note


def test_models_without_patches_are_left_as_they_are() -> None:
    assert [dict(c.settings) for c in contenders(["resnet18", "convmixer_256_8"], size=(32, 32))] == [
        {"model": "resnet18"},
        {"model": "convmixer_256_8"},
    ]


def test_unknown_and_repeated_names_are_mistakes() -> None:
    with pytest.raises(ModelError, match="did you mean resnet18"):
        contenders(["resnet_18"], size=(32, 32))
    with pytest.raises(ConfigError, match="resnet18 given twice"):
        contenders(["resnet18", "convmlp_s", "resnet18"], size=(32, 32))
