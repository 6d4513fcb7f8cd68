"""The classifier that is fitted to features is scikit-learn's, with a penalty that held-out images chose."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from convmix.training.linear_head import FOLDS, LinearHead, fit_linear_head


def clouds(n: int, *, d: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n points around a centre per class, far from the origin and of no usual scale."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    labels = np.arange(n) % classes
    return (7 + 30 * (centres[labels] + spread * rng.normal(size=(n, d)))).astype(np.float32), labels


def logits(head: LinearHead, x: np.ndarray) -> np.ndarray:
    return x @ head.weight.T + head.bias


@pytest.mark.parametrize(("n", "d", "classes"), [(60, 8, 3), (30, 80, 3), (40, 50, 2)])
def test_it_is_the_fit_of_scikit_learn_on_standardised_features(n: int, d: int, classes: int) -> None:
    x, labels = clouds(n, d=d, classes=classes, spread=1.5)
    head = fit_linear_head(x[:, None], labels, num_classes=classes)
    middle = x.astype(np.float64).mean(0)
    scale = x.astype(np.float64).std(0)
    theirs = LogisticRegression(C=head.strength, tol=1e-8, max_iter=5000).fit((x - middle) / scale, labels)
    mine = np.exp(logits(head, x))
    np.testing.assert_allclose(mine / mine.sum(1, keepdims=True), theirs.predict_proba((x - middle) / scale), atol=5e-3)


def test_the_penalty_is_chosen_by_held_out_loss() -> None:
    noisy, labels = clouds(200, d=40, classes=4, spread=6.0)
    clear, _ = clouds(200, d=40, classes=4, spread=0.05)
    of_noisy, of_clear = (fit_linear_head(x[:, None], labels, num_classes=4) for x in (noisy, clear))
    assert of_noisy.strength < of_clear.strength
    assert of_clear.held_out_accuracy == 1.0
    assert of_noisy.folds == FOLDS
    assert of_noisy.held_out_loss is not None
    fresh, truth = clouds(2000, d=40, classes=4, spread=6.0, seed=1)
    z = logits(of_noisy, fresh)
    z -= z.max(1, keepdims=True)
    loss = float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), truth]))
    assert loss == pytest.approx(of_noisy.held_out_loss, abs=0.1)  # what it promised


def test_views_of_an_image_count_as_one_image() -> None:
    x, labels = clouds(60, d=8, classes=3, spread=1.5)
    once = fit_linear_head(x[:, None], labels, num_classes=3)
    twice = fit_linear_head(np.stack([x, x], 1), labels, num_classes=3)
    np.testing.assert_allclose(logits(twice, x), logits(once, x), atol=1e-2)
    assert twice.strength == once.strength


def test_the_same_features_give_the_same_bits() -> None:
    x, labels = clouds(60, d=90, classes=3, spread=1.5)
    a, b = (fit_linear_head(x[:, None], labels, num_classes=3) for _ in range(2))
    assert np.array_equal(a.weight, b.weight)
    assert np.array_equal(a.bias, b.bias)


def test_a_class_without_an_image_is_improbable_and_not_impossible() -> None:
    x, labels = clouds(60, d=8, classes=3, spread=1.0)
    head = fit_linear_head(x[:, None], np.where(labels == 1, 3, labels), num_classes=4)
    z = np.exp(logits(head, x))
    share = (z / z.sum(1, keepdims=True))[:, 1]
    assert not head.weight[1].any()
    assert 0 < share.max() < 0.2


def test_too_few_images_to_validate_with_are_fitted_all_the_same() -> None:
    x, labels = clouds(3, d=8, classes=3, spread=0.1)
    head = fit_linear_head(x[:, None], labels, num_classes=3)
    assert (head.folds, head.held_out_loss) == (0, None)
    assert (logits(head, x).argmax(1) == labels).all()


def test_balanced_classes_weigh_the_same() -> None:
    x, labels = clouds(400, d=2, classes=2, spread=3.0)
    few = np.r_[np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:20]]
    plain, balanced = (fit_linear_head(x[few][:, None], labels[few], num_classes=2, balanced=b) for b in (False, True))
    found = [(logits(head, x)[labels == 1].argmax(1) == 1).mean() for head in (plain, balanced)]
    assert found[1] > found[0] + 0.2
