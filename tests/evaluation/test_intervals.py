"""Intervals hold the truth as often as they say, and are those that others compute."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from convmix.evaluation.intervals import RESAMPLES, mean_interval, resample, with_intervals
from convmix.metrics.classification import classification_metrics, wilson_interval


def answers(n: int, k: int, seed: int, *, right: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of n images, of classes that are not equally frequent nor equally hard."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    hit = rng.random(n) < right + 0.3 * (truth / k - 0.5)
    return truth, np.where(hit, truth, rng.integers(0, k, n))


def scored(truth: np.ndarray, predicted: np.ndarray, k: int) -> dict[str, Any]:
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), k).float()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth), reduction="none").numpy()
    metrics = classification_metrics(logits, torch.from_numpy(truth), [f"c{i}" for i in range(k)])
    return with_intervals(metrics, truth, predicted, loss)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("balanced_accuracy_interval", balanced_accuracy_score),
        ("macro_f1_interval", lambda truth, predicted: f1_score(truth, predicted, average="macro")),
    ],
)
def test_averages_over_classes_have_scipys_interval(name: str, score: Any) -> None:
    truth, predicted = answers(150, 3, seed=1)
    expected = stats.bootstrap(
        (truth, predicted), score, paired=True, vectorized=False, method="percentile", n_resamples=600, rng=np.random.default_rng(5)
    ).confidence_interval
    assert scored(truth, predicted, 3)[name] == pytest.approx(list(expected), abs=0.012)  # both are random draws


def test_the_interval_of_a_class_is_scipys() -> None:
    truth, predicted = answers(150, 3, seed=1)
    expected = stats.bootstrap(
        (truth, predicted),
        lambda t, p: f1_score(t, p, labels=[0], average=None)[0],
        paired=True, vectorized=False, method="percentile", n_resamples=600, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    per_class = scored(truth, predicted, 3)["per_class"]["c0"]
    assert per_class["f1_interval"] == pytest.approx(list(expected), abs=0.03)
    hits, images, said = ((truth == 0) & (predicted == 0)).sum(), (truth == 0).sum(), (predicted == 0).sum()
    assert per_class["recall_interval"] == list(wilson_interval(int(hits), int(images)))
    assert per_class["precision_interval"] == list(wilson_interval(int(hits), int(said)))


def test_the_mean_has_scipys_interval() -> None:
    values = np.random.default_rng(2).exponential(size=200)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(5)).confidence_interval
    assert mean_interval(values) == pytest.approx(list(expected), abs=0.02)


@pytest.mark.slow
def test_the_interval_holds_the_true_score_19_times_in_20() -> None:
    """Samples of a population whose balanced accuracy is known, 300 of them; 95 % +- three standard errors of that many tries."""
    k = 4
    rng = np.random.default_rng(3)
    population, said = answers(200_000, k, seed=4)
    true = balanced_accuracy_score(population, said)
    held = 0
    for i in range(300):
        chosen = rng.integers(0, len(population), 400)
        low, high = np.percentile(resample(population[chosen], said[chosen], k, seed=i).balanced_accuracy, (2.5, 97.5))
        held += low <= true <= high
    assert 0.91 <= held / 300 <= 0.985


def test_the_middle_of_the_resamples_is_the_score() -> None:
    truth, predicted = answers(2000, 5, seed=6)
    drawn = resample(truth, predicted, 5)
    assert drawn.f1.shape == (RESAMPLES, 5)
    assert drawn.balanced_accuracy.mean() == pytest.approx(balanced_accuracy_score(truth, predicted), abs=0.002)
    assert drawn.macro_f1.mean() == pytest.approx(f1_score(truth, predicted, average="macro"), abs=0.002)
    assert drawn.f1.mean(0) == pytest.approx(f1_score(truth, predicted, average=None), abs=0.003)


def test_the_seed_decides() -> None:
    truth, predicted = answers(300, 3, seed=7)
    assert scored(truth, predicted, 3) == scored(truth, predicted, 3)
    one, other = (resample(truth, predicted, 3, seed=s).macro_f1 for s in (0, 1))
    assert not np.array_equal(one, other)


def test_classes_without_images_have_no_interval_and_do_not_count() -> None:
    truth, predicted = answers(200, 3, seed=8)
    metrics = scored(truth, predicted, 4)
    assert "recall_interval" not in metrics["per_class"]["c3"]
    assert metrics["balanced_accuracy_interval"] == scored(truth, predicted, 3)["balanced_accuracy_interval"]


def test_a_rare_class_that_a_resample_lacks_is_left_out_of_it() -> None:
    """One image of class 1: a third of the resamples have none, and their balanced accuracy is that of class 0 alone."""
    truth, predicted = np.array([0] * 9 + [1]), np.array([0] * 9 + [0])
    drawn = resample(truth, predicted, 2)
    assert set(np.unique(drawn.balanced_accuracy)) == {0.5, 1.0}
    assert np.isnan(drawn.f1[:, 1]).mean() == pytest.approx(0.9**10, abs=0.04)


def test_where_all_is_right_the_averages_get_no_interval() -> None:
    truth = np.arange(30) % 3
    metrics = scored(truth, truth, 3)
    assert metrics["balanced_accuracy_interval"] is None and metrics["macro_f1_interval"] is None
    assert metrics["accuracy_interval"][0] < 0.9  # Wilson's knows that 30 images are few
    assert metrics["per_class"]["c0"]["recall_interval"][0] < 0.75


def test_many_images_and_classes_stay_in_memory() -> None:
    """10,000 images of 1,000 classes, most of them in cells of their own."""
    import tracemalloc

    truth, predicted = answers(10_000, 1000, seed=9, right=0.5)
    tracemalloc.start()
    drawn = resample(truth, predicted, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6
    assert drawn.macro_f1.mean() == pytest.approx(f1_score(truth, predicted, average="macro"), abs=0.05)
