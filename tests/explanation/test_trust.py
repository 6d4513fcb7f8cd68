"""The verdicts tell right from wrong: planted evidence is trusted; constant, random and misplaced maps and an untrained model are not."""

import numpy as np
import pytest
import torch
from evidence import PATCH, SIDE, noise

from convmix.explanation import trust
from convmix.explanation.attribution import METHODS, attribute
from convmix.explanation.hooked_copy import randomised, specimen
from convmix.explanation.stages import map_layer
from convmix.explanation.trust import FaithfulnessScore, RandomOrders, blurred, rank_correlation, score, score_random
from convmix.models.catalog import create_model

CPU = torch.device("cpu")


def probability_of(model, target):
    return lambda images: model(images).softmax(1)[:, target]


@pytest.fixture(scope="module")
def judged(seeing):
    """Images, classes, and per image the probability and its random orders."""
    images, targets = noise(4, seed=7)
    probabilities = [probability_of(seeing, int(t)) for t in targets]
    return images, targets.tolist(), probabilities, [score_random(p, x, seed=0) for p, x in zip(probabilities, images, strict=True)]


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_planted_evidence_are_trusted(seeing, judged, method):
    images, targets, probabilities, randoms = judged
    model = specimen(seeing, CPU)
    layer = map_layer(model, images[:1])
    maps = attribute(model, images, targets, method=method, layer=layer)
    scores = [score(p, x, m, r) for p, x, m, r in zip(probabilities, images, maps, randoms, strict=True)]
    assert sum(s.passes is True for s in scores) >= 3, [(s.words, s.gap, s.needed) for s in scores]
    other = attribute(randomised(model, images, seed=0), images, targets, method=method, layer=layer)
    assert np.mean([rank_correlation(a, b) for a, b in zip(maps, other, strict=True)]) < trust.SAME_MAP


def test_the_patch_itself_is_the_best_map_and_everything_else_the_worst(judged):
    images, _, probabilities, randoms = judged
    heat = torch.zeros(SIDE, SIDE)
    heat[PATCH] = 1
    right, wrong = (score(probabilities[0], images[0], h, randoms[0]) for h in (heat, -heat))
    assert right.passes is True and right.words == "better than random"
    assert right.deletion < min(randoms[0].deletion) and right.insertion > max(randoms[0].insertion)
    assert wrong.passes is False and "no better than random" in wrong.words and wrong.gap < right.gap


def test_constant_and_broken_maps_are_never_trusted(judged):
    images, _, probabilities, randoms = judged
    for heat in (torch.zeros(SIDE, SIDE), torch.full((SIDE, SIDE), 3.0), torch.full((SIDE, SIDE), float("nan"))):
        s = score(probabilities[0], images[0], heat, randoms[0])
        assert s.passes is False and s.words == "the map is the same everywhere"


def test_a_constant_map_is_not_saved_by_a_lucky_order():
    lucky = FaithfulnessScore(0.1, 0.9, RandomOrders((0.4, 0.5, 0.6), (0.4, 0.5, 0.6), moved=1.0), is_constant=True, moved=1.0)
    assert lucky.passes is False


def test_random_maps_are_seldom_trusted(judged):
    images, _, probabilities, randoms = judged
    generator = torch.Generator().manual_seed(0)
    verdicts = [
        score(p, x, torch.rand(SIDE, SIDE, generator=generator), r).passes
        for p, x, r in zip(probabilities, images, randoms, strict=True)
        for _ in range(15)
    ]
    assert sum(v is True for v in verdicts) <= 9  # of 60; one in twenty is to be expected


def test_an_untrained_model_gives_nothing_to_judge_by():
    torch.manual_seed(0)
    model = specimen(create_model("convmixer_16_2_k3_p2", num_classes=2), CPU)
    images, targets = noise(1, seed=7)
    p = probability_of(model, int(targets[0]))
    heat = attribute(model, images, [int(targets[0])], method="occlusion", layer=None)[0]
    s = score(p, images[0], heat, score_random(p, images[0], seed=0))
    assert s.passes is None and "cannot be judged" in s.words


def test_deletion_and_insertion_are_areas_under_the_probability():
    """A probability that is the share of the image left sharp: every order scores one half, whatever the map."""
    image = torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0))
    fill = blurred(image[None])

    def share(images):
        return (images != fill).double().mean((1, 2, 3))

    random = score_random(share, image, seed=0)
    s = score(share, image, torch.rand(24, 24), random)
    assert s.deletion == pytest.approx(0.5, abs=1e-6) and s.insertion == pytest.approx(0.5, abs=1e-6) and s.moved == pytest.approx(1)
    assert np.allclose(random.gaps, 0, atol=1e-6)


def test_words_say_which_score_fails():
    random = RandomOrders((0.4, 0.5, 0.6), (0.4, 0.5, 0.6), moved=1.0)

    def words(deletion, insertion):
        return FaithfulnessScore(deletion, insertion, random, is_constant=False, moved=1.0).words

    assert words(0.55, 0.54) == "deletion no better than random"
    assert words(0.45, 0.44) == "insertion no better than random"
    assert words(0.6, 0.4) == "deletion and insertion no better than random"
    wide = RandomOrders((0.2, 0.5, 0.8), (0.8, 0.5, 0.2), moved=1.0)
    doubtful = FaithfulnessScore(0.4, 0.6, wide, is_constant=False, moved=1.0)
    assert doubtful.passes is None and doubtful.words == "in doubt: hardly better than random"


def test_the_blur_keeps_the_mean_and_takes_the_detail():
    image = torch.randn(1, 3, 40, 24, generator=torch.Generator().manual_seed(0)) + 2
    smooth = blurred(image)
    assert smooth.shape == image.shape and smooth.std() < 0.35 * image.std() and abs(smooth.mean() - 2) < 0.1
    assert torch.allclose(blurred(torch.full((1, 2, 8, 9), 1.5)), torch.full((1, 2, 8, 9), 1.5))


def test_rank_correlation_is_of_ranks():
    a = torch.arange(16.0).view(4, 4)
    assert rank_correlation(a, a.exp()) == pytest.approx(1) and rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, torch.ones(4, 4)) is None


def test_a_map_of_another_size_is_refused(judged):
    images, _, probabilities, randoms = judged
    with pytest.raises(ValueError, match="expected"):
        score(probabilities[0], images[0], torch.zeros(3, 3), randoms[0])
