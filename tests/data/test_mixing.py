"""Mixing is timm's, and a pure function of the seed."""

import random

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup

from convmix.config import Augment
from convmix.data.augment.mixing import BatchMix

BOTH = Augment(mixup=0.5, cutmix=0.5)


def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 5


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("augment", [BOTH, Augment(mixup=0.8), Augment(cutmix=1.0)])
def test_mixing_is_a_pure_function_of_the_seed(n: int, augment: Augment) -> None:
    mix = BatchMix(augment, 5, 0.1)
    images, targets = batch(n)
    kept = images.clone()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    (a, ta), (b, tb) = mix(images, targets, seed=3), mix(images, targets, seed=3)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(a, b) and torch.equal(ta, tb) and torch.equal(images, kept)
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert a.shape == images.shape and ta.shape == (n, 5)
    assert torch.allclose(ta.sum(1), torch.ones(n))
    if n > 1:
        others = [mix(images, targets, seed=seed)[0] for seed in range(4, 10)]
        assert any(not torch.equal(a, other) for other in others)


def test_the_numbers_are_timms() -> None:
    images, targets = batch(8)
    mixed, soft = BatchMix(Augment(mixup=0.8), 5, 0.1)(images, targets, seed=0)
    lam = ((mixed[0] - images[7]) / (images[0] - images[7])).median().item()
    theirs = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=5)
    theirs._params_per_batch = lambda: (lam, False)  # type: ignore[method-assign]
    expected, expected_soft = theirs(images.clone(), targets)
    assert torch.allclose(mixed, expected, atol=1e-4)
    assert torch.allclose(soft, expected_soft, atol=1e-4)


def test_the_last_image_of_an_odd_batch_stays_as_it_is() -> None:
    images, targets = batch(7)
    mixed, soft = BatchMix(Augment(mixup=1.0), 5, 0.2)(images, targets, seed=1)
    assert torch.equal(mixed[6], images[6]) and not torch.equal(mixed[0], images[0])
    assert torch.allclose(soft[6], torch.tensor([0.04, 0.84, 0.04, 0.04, 0.04]))


def test_cutmix_targets_are_the_share_of_pixels() -> None:
    images, targets = batch(4)
    for seed in range(8):
        mixed, soft = BatchMix(Augment(cutmix=1.0), 5, 0.0)(images, targets, seed=seed)
        kept = (mixed[0] == images[0]).all(0).float().mean().item()
        assert soft[0, 0].item() == pytest.approx(kept, abs=1e-6)


def test_inactive_mixing_changes_no_image() -> None:
    images, targets = batch(4)
    mix = BatchMix(Augment(), 5, 0.0)
    assert not mix.active and not BatchMix(Augment(mixup=1.0, mix_prob=0.0), 5, 0.0).active and BatchMix(BOTH, 5, 0.0).active
    mixed, soft = mix(images, targets, seed=0)
    assert torch.equal(mixed, images) and torch.equal(soft.argmax(1), targets)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"images N,C,H,W and targets N, got \(2, 3, 8, 8\) and \(3,\)"):
        BatchMix(BOTH, 5, 0.0)(batch(2)[0], batch(3)[1], seed=0)
