"""Splits of images with several labels: every label in proportion, also the rare ones, and images without any."""

import numpy as np
import pytest

from convmix.data.stratified import stratify


def drawn(n: int = 400, k: int = 12, seed: int = 0) -> np.ndarray:
    """n,k bool: labels from frequent to rare, that come together more often than chance would bring them."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    present: np.ndarray = rng.normal(size=(n, k)) + 0.7 * common > np.linspace(0, 2.6, k)
    return present


def test_every_label_has_its_share_of_every_split() -> None:
    present = drawn()
    to = stratify(present, (0.1, 0.2, 0.7), seed=1)
    for i, share in enumerate((0.1, 0.2, 0.7)):
        assert abs((to == i).sum() - share * len(present)) <= 3
        apart = present[to == i].sum(0) - share * present.sum(0)
        assert abs(apart).max() <= 2.5, (share, apart)
    # what chance alone does to the same labels, several times as much
    by_chance = np.random.default_rng(0).permutation(len(present)) < 40
    assert abs(present[by_chance].sum(0) - 0.1 * present.sum(0)).max() > 5


def test_images_without_any_label_are_dealt_out_too() -> None:
    present = drawn() & (np.arange(400) % 2 == 0)[:, None]
    bare = ~present.any(1)
    to = stratify(present, (0.25, 0.75), seed=0)
    assert (to >= 0).all() and abs((to[bare] == 0).mean() - 0.25) < 0.05


def test_labels_of_too_few_images_stay_in_the_last_split() -> None:
    present = np.zeros((40, 2), bool)
    present[:2, 0] = True
    present[10:, 1] = True
    to = stratify(present, (0.5, 0.5), keep=3, seed=0)
    assert to[:2].tolist() == [1, 1]
    assert 0 in stratify(present, (0.5, 0.5), seed=0)[:2]


def test_the_seed_decides_and_nothing_else() -> None:
    present = drawn()
    first, again, other = (stratify(present, (0.1, 0.9), seed=s) for s in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_shares_that_are_no_parts_of_a_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        stratify(drawn(), (0.5, 0.6), seed=0)
