"""What a training begins with: published weights for photos, where they can be had; a line where they cannot."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from convmix import recipes
from convmix.config import Run, from_dict, override, to_dict
from convmix.data.facts import DataFacts
from convmix.errors import ConvmixError
from convmix.models.catalog import create_model
from convmix.models.published import PUBLISHED, Published
from convmix.tasks.classify import Classify
from convmix.tasks.detect import Detect
from convmix.training import start
from convmix.training.setup import TrainingSetup, new_job
from convmix.training.start import MANY_IMAGES, Start, choose_start, model_for_photos
from tests.conftest import make_photos

PHOTOS = DataFacts(num_train=200, num_classes=3, height=160, width=213, in_chans=3)
TINY = DataFacts(num_train=200, num_classes=3, height=32, width=32, in_chans=3)


def chosen(pretrained: str = "auto", facts: DataFacts = PHOTOS, kind: Any = Classify, **more: Any) -> Start:
    asked = override(Run(), {"pretrained": pretrained, **({"weights": more.pop("weights")} if "weights" in more else {})})
    return choose_start(asked, facts, kind, **{"named_model": None, "named_recipe": False, "accelerator": False, **more})


@pytest.mark.parametrize(
    ("more", "model", "pretrained"),
    [
        ({}, "convmlp_s", True),
        ({"named_model": "resnet18"}, "resnet18", True),
        ({"facts": TINY}, None, False),
        ({"facts": DataFacts(200, 3, 160, 160, in_chans=1)}, None, False),
        ({"kind": Detect}, None, False),
        ({"named_recipe": True}, None, False),
        ({"pretrained": "no"}, None, False),
        ({"pretrained": "yes", "facts": TINY, "named_model": "resnet18"}, "resnet18", True),
        ({"pretrained": "yes"}, "convmlp_s", True),
        ({"weights": "a.pth"}, None, False),
    ],
    ids=str,
)
def test_photos_start_from_published_weights(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], model: str | None, pretrained: bool
) -> None:
    monkeypatch.setattr(start, "why_out_of_reach", lambda place: "")
    assert chosen(**more) == Start(model, pretrained)


def test_the_model_fits_machine_and_number_of_images() -> None:
    assert model_for_photos(MANY_IMAGES, accelerator=False) == "convmlp_s"
    assert model_for_photos(MANY_IMAGES - 1, accelerator=True) == "convmlp_s"
    assert model_for_photos(MANY_IMAGES, accelerator=True) == "convmlp_m"


def test_out_of_reach_weights_are_one_line_that_says_what_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "why_out_of_reach", lambda place: "HF_HUB_OFFLINE is set")
    found = chosen()
    assert (found.model, found.pretrained) == (None, False)
    assert "convmlp_s would have been better: HF_HUB_OFFLINE is set; fetch https://" in found.note
    assert found.note.endswith("give it with --model convmlp_s --weights FILE")
    unpublished = chosen(named_model="convmixer_256_8")
    assert (unpublished.model, unpublished.pretrained) == ("convmixer_256_8", False)
    assert "has no published weights; convmlp_s has" in unpublished.note


def test_runs_of_earlier_versions_say_true_or_false() -> None:
    values = to_dict(Run())
    for old, new in ((True, "yes"), (False, "no")):
        values["net"]["pretrained"] = old
        assert from_dict(values).net.pretrained == new


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ConvMLP-T as if somebody had published it for 32 pixels; its file lies in the cache."""
    url = "http://127.0.0.1:9/convmlp_t_imagenet.pth"
    monkeypatch.setitem(PUBLISHED, "convmlp_t", Published(None, url, None, 1.0, None, "nobody", 0.8, size=(32, 32), mean=(0.1, 0.2, 0.3)))
    monkeypatch.setattr(start, "model_for_photos", lambda n, accelerator: "convmlp_t")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    file = tmp_path / "torch/checkpoints/convmlp_t_imagenet.pth"
    file.parent.mkdir(parents=True)
    torch.manual_seed(1)
    torch.save(create_model("convmlp_t", num_classes=1000).state_dict(), file)
    return file


def job(data: Path, out: Path, **overrides: object) -> TrainingSetup:
    console = Console(file=io.StringIO())
    return new_job(str(data), recipe=None, overrides={"workers": 0, **overrides}, out=out, console=console, speaks=False)


def test_a_folder_of_photos_takes_the_weights_of_the_cache(tmp_path: Path, published: Path) -> None:
    data = make_photos(tmp_path / "photos", per_class=6, side=72)
    made = job(data, tmp_path / "run")
    assert (made.run.model, made.run.recipe, made.run.net.pretrained) == ("convmlp_t", "finetune", "yes")
    state = torch.load(published, weights_only=True)
    assert torch.equal(made.model.state_dict()["tokenizer.block.0.weight"], state["tokenizer.block.0.weight"])
    assert (made.preprocess.size, made.preprocess.crop_pct, made.preprocess.mean) == ((32, 32), 0.8, (0.1, 0.2, 0.3))
    assert any("as the weights expect: mean 0.1, 0.2, 0.3" in note and "published for convmlp_t" in note for note in made.notes)
    scratch = job(data, tmp_path / "other", pretrained="no")
    assert (scratch.run.model, scratch.run.recipe, scratch.run.net.pretrained) == ("convmixer_256_8_k7_p8", "default", "no")


def test_a_folder_of_photos_without_weights_starts_as_ever_and_says_so(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    published.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = make_photos(tmp_path / "photos", per_class=6, side=72)
    made = job(data, tmp_path / "run")
    assert (made.run.model, made.run.recipe, made.run.net.pretrained) == ("convmixer_256_8_k7_p8", "default", "no")
    assert [n for n in made.notes if "HF_HUB_OFFLINE is set" in n and "--model convmlp_t --weights FILE" in n]
    with pytest.raises(ConvmixError, match="convmlp_t could not be fetched"):
        job(data, tmp_path / "other", pretrained="yes")


def test_a_narrower_network_for_a_short_budget_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos(tmp_path / "photos", per_class=10)
    monkeypatch.setattr(recipes, "FAST_FROM", 10)
    monkeypatch.setattr(recipes, "SHORT_S", 10.0)

    def notes(**more: object) -> list[str]:
        return [note for note in job(photos, tmp_path / "run", **{"budget": "1m", **more}).notes if "instead of" in note]

    [note] = notes()
    assert note == "convmixer_128_8_k5_p2 instead of convmixer_256_8, for which 1m on a CPU are too short; --model takes another"
    assert not notes(model="convmixer_16_1_k3_p4") and not notes(budget="1h")
