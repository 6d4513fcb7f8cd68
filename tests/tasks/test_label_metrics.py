"""Scores of several labels per image, against scikit-learn where it has them and against hand counts where something is unknown."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from convmix.data.targets import UNKNOWN
from convmix.tasks.label_metrics import Judged, interval, multilabel_metrics, resamples

LABELS = ("a", "b", "c", "d")


def drawn(n: int = 200, seed: int = 0) -> Judged:
    """Answers of middling quality, with ties, to images of which one in five has no label."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 4)) < np.array([0.5, 0.3, 0.2, 0.1])).astype(np.int8)
    truth[::5] = 0
    p = np.round(1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 1.2, (n, 4))))), 2)
    return Judged(p, truth, np.array([0.5, 0.4, 0.4, 0.3]))


def test_scores_are_scikit_learns() -> None:
    judged = drawn()
    found = multilabel_metrics(judged, LABELS, intervals=False)
    said, truth, p = judged.said, judged.truth, judged.probabilities
    assert found["map"] == pytest.approx(sk.average_precision_score(truth, p, average="macro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, said, average="macro"))
    assert found["micro_f1"] == pytest.approx(sk.f1_score(truth, said, average="micro"))
    assert found["sample_f1"] == pytest.approx(sk.f1_score(truth, said, average="samples", zero_division=1))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    both = truth.any(1) & ~truth.all(1)  # scikit-learn counts the others as zero
    assert found["ranking_loss"] == pytest.approx(sk.label_ranking_loss(truth[both], p[both]))
    assert found["loss"] == pytest.approx(4 * np.mean([sk.log_loss(truth[:, c], p[:, c], labels=[0, 1]) for c in range(4)]))
    for c, label in enumerate(LABELS):
        assert found["per_class"][label]["ap"] == pytest.approx(sk.average_precision_score(truth[:, c], p[:, c]))
        assert found["per_class"][label]["precision"] == pytest.approx(sk.precision_score(truth[:, c], said[:, c]))
        assert found["per_class"][label]["support"] == truth[:, c].sum()


def test_what_nobody_knows_changes_no_score() -> None:
    """Scores of half of the answers, hidden by UNKNOWN, are those of the other half alone."""
    judged = drawn()
    truth, wild = judged.truth.copy(), judged.probabilities.copy()
    truth[100:] = UNKNOWN
    wild[100:] = 0.999
    part = Judged(judged.probabilities[:100], judged.truth[:100], judged.thresholds)
    hidden, alone = (multilabel_metrics(j, LABELS, intervals=False) for j in (Judged(wild, truth, judged.thresholds), part))
    assert hidden["unknown"] == 400 and alone["unknown"] == 0
    for name in ("map", "macro_f1", "micro_f1", "sample_f1", "subset_accuracy", "ranking_loss", "loss"):
        assert hidden[name] == pytest.approx(alone[name]), name
    assert hidden["per_class"]["a"] == pytest.approx(alone["per_class"]["a"])


def test_one_unknown_label_hides_that_label_alone() -> None:
    truth = np.array([[1, 0, UNKNOWN]], np.int8)
    found = multilabel_metrics(Judged(np.array([[0.9, 0.2, 0.8]]), truth, np.full(3, 0.5)), ("x", "y", "z"), intervals=False)
    assert (found["subset_accuracy"], found["sample_f1"], found["ranking_loss"]) == (1, 1, 0)
    assert found["loss"] == pytest.approx(-math.log(0.9) - math.log(0.8))
    assert found["per_class"]["z"] == {
        "ap": None, "f1": None, "precision": None, "recall": None, "support": 0, "said": 0, "known": 0, "threshold": 0.5,
        "calibration_error": None,
    }  # fmt: skip


def test_an_image_without_labels_is_right_where_none_is_said() -> None:
    judged = Judged(np.array([[0.1, 0.2], [0.1, 0.7]]), np.zeros((2, 2), np.int8), np.full(2, 0.5))
    assert judged.sample_f1.tolist() == [1, 0] and judged.exact.tolist() == [1, 0]
    assert np.isnan(judged.ranking_loss).all()  # there is nothing to rank


def test_equal_probabilities_are_ranked_the_wrong_way_round() -> None:
    assert Judged(np.array([[0.5, 0.5]]), np.array([[1, 0]], np.int8), np.full(2, 0.5)).ranking_loss.tolist() == [1]


def test_intervals_hold_the_score_and_narrow_with_more_images() -> None:
    widths = []
    for n in (60, 600):
        found = multilabel_metrics(drawn(n), LABELS)
        for name in ("map", "macro_f1", "micro_f1", "sample_f1", "subset_accuracy", "ranking_loss", "loss"):
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high, name
        low, high = found["per_class"]["a"]["ap_interval"]
        assert low < found["per_class"]["a"]["ap"] < high
        widths.append(found["map_interval"][1] - found["map_interval"][0])
    assert widths[1] < widths[0] / 2


def test_weights_are_repetitions() -> None:
    judged, weights = drawn(30), resamples(30, 30 * 4)[:1]
    rows = np.repeat(np.arange(30), weights[0].astype(int))
    repeated = Judged(judged.probabilities[rows], judged.truth[rows], judged.thresholds)
    by_weight, by_hand = judged.scores(weights), repeated.scores(np.ones((1, len(rows))))
    for name in by_weight:
        np.testing.assert_allclose(by_weight[name], by_hand[name], err_msg=name)


def test_no_interval_is_given_where_no_resample_differs() -> None:
    assert interval(np.ones(10)) is None and interval(np.full(3, np.nan)) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected n,k"):
        Judged(np.zeros((2, 3)), np.zeros((2, 2), np.int8), np.zeros(2))
    with pytest.raises(ValueError, match="no images"):
        multilabel_metrics(Judged(np.zeros((0, 2)), np.zeros((0, 2), np.int8), np.zeros(2)), ("a", "b"))
