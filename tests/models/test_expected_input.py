"""Weights say how images are prepared for them: beside the file, in its header, or under the model's published name."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from convmix.errors import WeightsError
from convmix.models.catalog import create_model
from convmix.models.expected_input import ExpectedInput, expected_input
from convmix.models.published import IMAGENET_MEAN, IMAGENET_STD
from convmix.training.setup import TrainingSetup, new_job
from tests.made_once import MadeOnce
from tests.tiny_run import make_run
from tests.trained_runs import scenes

CFG: dict[str, Any] = {
    "input_size": [3, 96, 80], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.75, "interpolation": "bilinear",
    "crop_mode": "border",
}  # fmt: skip
NAME = "convmixer_8_1_k3_p4"


def weights(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(create_model(NAME, num_classes=3).state_dict(), folder / "model.safetensors", metadata)
    return folder / "model.safetensors"


def facts(found: ExpectedInput) -> tuple[Any, ...]:
    return found.size, found.mean, found.std, found.crop_pct, found.interpolation, found.fit


EXPECTED = ((96, 80), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.75, "bilinear", "letterbox")


@pytest.mark.parametrize("nested", [True, False])
def test_the_config_beside_the_weights(tmp_path: Path, nested: bool) -> None:
    file = weights(tmp_path / "w")
    (file.parent / "config.json").write_text(json.dumps({"pretrained_cfg": CFG} if nested else CFG))
    for place in (file, file.parent):
        found = expected_input(NAME, place)
        assert facts(found) == EXPECTED
        assert found.origin.endswith("config.json")


@pytest.mark.parametrize("whole", [True, False])
def test_the_header_of_the_file(tmp_path: Path, whole: bool) -> None:
    single = {key: value if isinstance(value, str) else json.dumps(value) for key, value in CFG.items()}
    file = weights(tmp_path / "w", {"pretrained_cfg": json.dumps(CFG)} if whole else single)
    found = expected_input(NAME, file)
    assert facts(found) == EXPECTED
    assert found.origin == "the header of model.safetensors"


def test_a_run_of_our_own_says_it_exactly(tmp_path: Path) -> None:
    make_run(tmp_path / "run", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), fit="stretch", crop_pct=0.9)
    found = expected_input(NAME, tmp_path / "run")
    assert facts(found) == ((8, 8), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 0.9, "bicubic", "stretch")


def test_a_bare_file_is_taken_for_what_is_published_under_the_name(tmp_path: Path) -> None:
    bare = tmp_path / "w.pth"
    torch.save({}, bare)
    theirs, ours = expected_input("tf_efficientnet_lite0", bare), expected_input("convmixer_768_32", bare)
    assert facts(theirs) == ((224, 224), (0.5,) * 3, (0.5,) * 3, 0.875, "bicubic", "crop")
    assert theirs.origin == "timm's for tf_efficientnet_lite0"
    assert facts(ours) == ((224, 224), IMAGENET_MEAN, IMAGENET_STD, 0.96, "bicubic", "crop")
    unknown = expected_input(NAME, bare)
    assert (unknown.mean, unknown.std, unknown.size) == (IMAGENET_MEAN, IMAGENET_STD, None)
    assert "for lack of any other" in unknown.origin


def test_other_channels_are_prepared_as_the_stem_is_adapted() -> None:
    rgb = ExpectedInput("", (0.1, 0.2, 0.6), (0.2, 0.2, 0.5))
    assert rgb.for_channels(1).mean == pytest.approx((0.3,))
    assert rgb.for_channels(5).mean == (0.1, 0.2, 0.6, 0.1, 0.2)
    assert rgb.for_channels(3) is rgb


def test_a_description_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    file = weights(tmp_path / "w")
    for text, message in (("{", "not valid JSON"), ('["a"]', "holds a list"), ('{"mean": [1, "a"], "std": [1, 1]}', "does not describe")):
        (file.parent / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=message):
            expected_input(NAME, file)


def job(data: Path, out: Path, **overrides: object) -> TrainingSetup:
    console = Console(file=io.StringIO())
    settings = {"model": NAME, "workers": 0, **overrides}
    return new_job(str(data), recipe=None, overrides=settings, out=out, console=console, speaks=False)


def test_a_classifier_takes_all_of_it_unless_the_user_says_otherwise(photos: Path, tmp_path: Path) -> None:
    file = weights(tmp_path / "w", {"pretrained_cfg": json.dumps(CFG)})
    made = job(photos, tmp_path / "run", weights=str(file))
    p = made.preprocess
    assert (p.size, p.mean, p.std, p.crop_pct, p.interpolation, p.fit) == EXPECTED
    [line] = [note for note in made.notes if "as the weights expect" in note]
    assert "size 96x80" in line
    assert "(the header of model.safetensors)" in line
    own = job(photos, tmp_path / "run", weights=str(file), size=24, crop_pct=1.0, mean="0.5,0.5,0.5", std="0.5,0.5,0.5").preprocess
    assert (own.size, own.mean, own.crop_pct, own.interpolation) == ((24, 24), (0.5,) * 3, 1.0, "bilinear")


def test_a_detector_takes_the_normalisation_alone(made_once: MadeOnce, tmp_path: Path) -> None:
    file = weights(tmp_path / "w", {"pretrained_cfg": json.dumps(CFG)})
    made = job(scenes(made_once, "detect"), tmp_path / "run", weights=str(file), pyramid_channels=16)
    assert (made.preprocess.mean, made.preprocess.std) == (EXPECTED[1], EXPECTED[2])
    assert made.preprocess.size != (96, 80)
    assert made.run.recipe == "detect_small"
