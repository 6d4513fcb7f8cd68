"""Scores against values worked out by hand."""

import json
import math

import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from convmix.metrics.classification import classification_metrics, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_equals_published_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_equals_its_formula() -> None:
    z, n, p = 1.959963984540054, 57, 40 / 57
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson_interval(40, 57) == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 359, 100_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_interval_equals_that_of_scipy(n: int, confidence: float) -> None:
    for correct in (0, 1, n // 2, n - 1, n):
        theirs = binomtest(correct, n).proportion_ci(confidence_level=confidence, method="wilson")
        ours = wilson_interval(correct, n, confidence=confidence)
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-14)
        assert 0 <= ours[0] <= ours[1] <= 1


@pytest.mark.parametrize("k", [2, 5, 40])
def test_scores_of_each_class_equal_those_of_scikit_learn(k: int) -> None:
    chance = torch.Generator().manual_seed(k)
    logits, targets = torch.randn(30, k, generator=chance), torch.randint(0, k - 1, (30,), generator=chance)  # the last class is absent
    theirs = precision_recall_fscore_support(targets.numpy(), logits.argmax(1).numpy(), labels=range(k), zero_division=0)
    ours = classification_metrics(logits, targets, [str(i) for i in range(k)])["per_class"].values()
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [of_class[name] for of_class in ours] == pytest.approx(values.tolist(), abs=1e-15)


def test_no_image_says_nothing_about_the_share() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    (low95, high95), (low99, high99) = wilson_interval(8, 10), wilson_interval(8, 10, confidence=0.99)
    assert low99 < low95 < high95 < high99


def test_scores_equal_those_worked_out_by_hand() -> None:
    # truth a a a b, predictions a a b b; nobody is c, and c is left out of the averages
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3]])
    m = classification_metrics(probabilities.log(), torch.tensor([0, 0, 0, 1]), ("a", "b", "c"))
    assert (m["n"], m["correct"], m["accuracy"]) == (4, 3, 0.75)
    assert m["loss"] == pytest.approx(-(math.log(0.8) + math.log(0.5) + math.log(0.2) + math.log(0.6)) / 4, abs=1e-6)
    assert m["per_class"]["a"] == pytest.approx({"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert m["per_class"]["b"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1})
    assert m["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert m["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert m["macro_precision"] == pytest.approx(0.75)
    assert m["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert m["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert m["accuracy_interval"] == list(wilson_interval(3, 4))
    assert m["top5"] == 1.0
    assert json.loads(json.dumps(m, allow_nan=False)) == m


def test_top5_counts_the_five_best_of_many_classes() -> None:
    logits = torch.arange(8.0).repeat(8, 1)  # the five best columns are 3 to 7
    m = classification_metrics(logits, torch.arange(8), [str(i) for i in range(8)])
    assert m["top5"] == 5 / 8
    assert m["accuracy"] == 1 / 8


def test_scores_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        classification_metrics(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), ("a", "b"))


@pytest.mark.parametrize(("k", "targets"), [(1, [0, 0]), (2, [1, 1]), (3, [2])])
def test_a_split_with_one_class_is_scored_without_a_warning(k, targets, recwarn):
    targets = torch.tensor(targets)
    metrics = classification_metrics(torch.eye(k)[targets], targets, [f"c{i}" for i in range(k)])
    assert not recwarn.list
    expected = [[0] * k for _ in range(k)]
    expected[targets[0]][targets[0]] = len(targets)
    assert metrics["confusion"] == expected and metrics["accuracy"] == 1


def test_the_confusion_has_the_truth_in_its_rows():
    logits = torch.eye(3)[torch.tensor([1, 1, 2])]
    assert classification_metrics(logits, torch.tensor([0, 0, 2]), ["a", "b", "c"])["confusion"] == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]
