"""The first convolution made of the training images' own patches."""

import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import convmix
from convmix.errors import ConfigError
from convmix.models.catalog import create_model
from convmix.training import loop
from convmix.training.whitening import first_convolution, patch_statistics, whitening_filters
from tests.tiny_run import write_folder


def test_filters_answer_with_about_unit_variance_and_mean_zero():
    torch.manual_seed(0)
    images = 500 + torch.randn(200, 3, 16, 16).cumsum(2).cumsum(3)  # neighbours are alike, as in photographs, and none is dark
    layer = nn.Conv2d(3, 40, 2, stride=2)
    mean, covariance = patch_statistics(images.split(64), layer)
    patches = images.double().unfold(2, 2, 2).unfold(3, 2, 2).permute(1, 4, 5, 0, 2, 3).reshape(12, -1)
    torch.testing.assert_close(covariance, torch.cov(patches, correction=0), rtol=1e-9, atol=1e-6)
    filters = whitening_filters(covariance, 40, seed=1)
    layer.double().weight.data = filters.reshape(layer.weight.shape)
    layer.bias.data = -(filters @ mean)
    answers = layer(images.double()).transpose(0, 1).flatten(1)
    assert answers.mean(1).abs().max() < 1e-9
    variances, _ = torch.linalg.eigh(covariance)
    kept = variances / (variances + 0.01 * variances[-1])  # of each component, what the added share leaves
    assert answers.var(1).min() > kept.min() * 0.99 and answers.var(1).max() < 1
    plain = create_model("convmixer_40_1_k3_p2", num_classes=2).stem[0].double()
    spread = plain(images.double()).transpose(0, 1).flatten(1).std(1)
    assert answers.std(1).max() / answers.std(1).min() < spread.max() / spread.min()


def test_the_first_layer_is_that_of_all_channels():
    assert first_convolution(create_model("convmixer_16_2_k3_p4")).kernel_size == (4, 4)
    assert first_convolution(nn.Linear(3, 4)) is None


def test_images_that_are_gone_are_refused():
    with pytest.raises(ConfigError, match="none of the training images"):
        patch_statistics([], nn.Conv2d(3, 4, 2))


def test_images_without_contrast_are_refused():
    with pytest.raises(ConfigError, match="no contrast to whiten"):
        whitening_filters(torch.zeros(12, 12, dtype=torch.float64), 4, seed=0)


@pytest.mark.slow
def test_a_training_begins_with_it_and_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    """Whitened, with Muon and the linear schedule: begun twice, the second time stopped inside an epoch and resumed."""
    photos = write_folder(tmp_path / "photos", {"ant": 10, "bee": 10}, seed=3)
    settings = {
        "model": "convmixer_16_1_k3_p4", "size": 16, "epochs": 2, "batch_size": 4, "whiten": True, "optimizer": "muon", "adamw_share": 0.25,
        "schedule": "linear", "precision": "fp32", "workers": 0, "device": "cpu",
    }  # fmt: skip
    convmix.train(photos, out=tmp_path / "whole", quiet=True, **settings)
    real = loop.train_step

    def step_then_signal(t, batch):
        real(t, batch)
        if t.position.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", step_then_signal)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 3"):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, **settings)
    convmix.train(photos, out=tmp_path / "parts", quiet=True, resume=True, device="cpu")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    convmix.train(photos, out=tmp_path / "plain", quiet=True, **{**settings, "whiten": False})
    plain = load_file(tmp_path / "plain" / "model.safetensors")["stem.0.weight"]
    assert not torch.allclose(whole["stem.0.weight"], plain, atol=0.1)
    with pytest.raises(ConfigError, match="--no-whiten or no weights"):
        convmix.train(photos, out=tmp_path / "d", quiet=True, weights=str(tmp_path / "whole"), **settings)
