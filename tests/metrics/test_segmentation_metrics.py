"""Scores of class maps: equal to scikit-learn's on the pixels, with intervals that cover; and the prediction by position."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from convmix.data.targets import IGNORE
from convmix.metrics.segmentation import PositionPrior, confusion, segmentation_metrics
from tests.effort import lines_run

LABELS = ("sky", "road", "car", "never", "invented")


def maps(seed: int, n: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Blocky truths with three classes and unscored pixels, predictions that are often right and sometimes a class that never is."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(n):
        h, w = rng.integers(20, 60, 2)
        truth = np.kron(rng.choice(3, (h // 6 + 1, w // 6 + 1), p=[0.6, 0.3, 0.1]), np.ones((6, 6)))[:h, :w].astype(np.uint8)
        wrong = rng.random((h, w)) < rng.uniform(0.1, 0.5)
        predictions.append(np.where(wrong, rng.choice([0, 1, 2, 4], (h, w)), truth).astype(np.uint8))
        truths.append(np.where(rng.random((h, w)) < 0.1, IGNORE, truth).astype(np.uint8))
    return truths, predictions


def scored(truths: list[np.ndarray], predictions: list[np.ndarray]) -> np.ndarray:
    return np.stack([confusion(t, p, len(LABELS)) for t, p in zip(truths, predictions, strict=True)])


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learn(seed: int) -> None:
    truths, predictions = maps(seed)
    confusions = scored(truths, predictions)
    metrics = segmentation_metrics(confusions, LABELS)
    t, p = (np.concatenate([x.ravel() for x in xs]) for xs in (truths, predictions))
    t, p = t[t != IGNORE], p[t != IGNORE]
    assert metrics["confusion"] == confusion_matrix(t, p, labels=range(5)).tolist()
    assert (metrics["n"], metrics["pixels"]) == (6, len(t))
    iou = jaccard_score(t, p, labels=range(5), average=None, zero_division=0)
    assert metrics["miou"] == pytest.approx(iou[[0, 1, 2, 4]].mean())
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy_score(t, p))
    present = np.isin(p, [0, 1, 2])  # scikit-learn warns of a class that is predicted and never true
    assert metrics["mean_accuracy"] == pytest.approx(np.mean([(p[t == c] == c).mean() for c in range(3)]))
    assert balanced_accuracy_score(t[present], p[present]) > metrics["mean_accuracy"]
    weighted = jaccard_score(t, p, labels=range(5), average="weighted", zero_division=0)
    assert metrics["frequency_weighted_iou"] == pytest.approx(weighted)
    for c, name in enumerate(LABELS):
        said = metrics["per_class"][name]
        assert said["iou"] == (None if name == "never" else pytest.approx(iou[c]))
        assert said["share"] == pytest.approx((t == c).mean())
        assert said["images"] == sum((x == c).any() for x in truths)
    assert metrics["per_class"]["never"] == {"iou": None, "accuracy": None, "share": 0, "images": 0, "iou_interval": None}
    assert metrics["per_class"]["invented"]["iou"] == 0 and metrics["per_class"]["invented"]["accuracy"] is None
    json.dumps(metrics, allow_nan=False)


def test_intervals_are_those_of_resampled_images() -> None:
    truths, predictions = maps(9, 30)
    confusions = scored(truths, predictions)
    metrics = segmentation_metrics(confusions, LABELS)
    rng = np.random.default_rng(5)
    drawn = [segmentation_metrics(confusions[rng.integers(0, 30, 30)], LABELS, intervals=False) for _ in range(500)]
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        low, high = metrics[f"{name}_interval"]
        assert low < metrics[name] < high
        assert np.percentile([d[name] for d in drawn], (2.5, 97.5)) == pytest.approx([low, high], abs=0.1 * (high - low))
    low, high = metrics["per_class"]["car"]["iou_interval"]
    cars = [d["per_class"]["car"]["iou"] for d in drawn]
    assert np.percentile(cars, (2.5, 97.5)) == pytest.approx([low, high], abs=0.1 * (high - low))
    assert metrics == segmentation_metrics(confusions, LABELS)


def test_one_image_gives_no_interval_and_none_gives_no_score() -> None:
    truths, predictions = maps(1, 1)
    assert segmentation_metrics(scored(truths, predictions), LABELS)["miou_interval"] is None
    assert "miou_interval" not in segmentation_metrics(scored(truths, predictions), LABELS, intervals=False)
    for nothing in (np.zeros((0, 5, 5), np.int64), np.zeros((2, 5, 5), np.int64)):
        with pytest.raises(ValueError, match="no pixel"):
            segmentation_metrics(nothing, LABELS)
    with pytest.raises(ValueError, match="expected n,5,5"):
        segmentation_metrics(np.zeros((2, 4, 4), np.int64), LABELS)


def test_maps_that_cannot_be_compared_are_refused() -> None:
    truth = np.array([[0, 1], [IGNORE, 1]], np.uint8)
    assert confusion(truth, np.array([[0, 0], [1, 1]]), 2).tolist() == [[1, 0], [1, 1]]
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        confusion(truth, np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match="prediction holds class 2"):
        confusion(truth, np.full((2, 2), 2, np.uint8), 2)
    with pytest.raises(ValueError, match="truth holds class 3"):
        confusion(np.array([[0, 3]], np.uint8), np.zeros((1, 2), np.uint8), 2)


def test_no_pixel_is_counted_by_itself() -> None:
    """A hundred times the pixels run no line of Python more: an image of CamVid is counted in milliseconds."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 11, (2, *size), dtype=np.uint8) for size in ((36, 48), (360, 480))]
    small, large = (lines_run(lambda image=image: confusion(*image, 11)) for image in images)  # type: ignore[misc]
    assert 0 < small == large < 20


def test_the_commonest_class_of_each_place_is_predicted() -> None:
    sky_over_road = np.repeat([[0], [1]], 50, 0) * np.ones((1, 130), np.uint8)
    small = np.array([[0, 0], [1, 1]], np.uint8)
    odd = np.full((40, 40), 2, np.uint8)
    prior = PositionPrior.of([sky_over_road.astype(np.uint8), odd, small], 3, grid=(8, 8))
    for size in ((2, 2), (100, 130), (31, 17)):
        predicted = prior.predict(size)
        assert predicted.shape == size and predicted.dtype == np.uint8
        half = size[0] // 2
        assert (predicted[:half] == 0).all() and (predicted[half + 1 :] == 1).all()


def test_unscored_places_take_the_commonest_class_and_each_map_counts_once() -> None:
    hole = np.full((32, 32), 1, np.uint8)
    hole[:16] = IGNORE
    assert (PositionPrior.of([hole], 3, grid=(4, 4)).predict((8, 8)) == 1).all()
    large, small = np.zeros((400, 400), np.uint8), np.full((10, 10), 2, np.uint8)
    assert (PositionPrior.of([large, small, small], 3).predict((5, 5)) == 2).all()
    with pytest.raises(ValueError, match="no pixel"):
        PositionPrior.of([np.full((4, 4), IGNORE, np.uint8)], 3)


def test_no_other_map_that_ignores_the_image_is_right_more_often() -> None:
    rng = np.random.default_rng(3)
    training = [np.where(rng.random((16, 16)) < 0.7, np.arange(16)[:, None] // 6, rng.integers(0, 3, (16, 16))) for _ in range(25)]
    training = [m.astype(np.uint8) for m in training]
    prior = PositionPrior.of(training, 3, grid=(16, 16)).predict((16, 16))
    per_pixel = np.stack([(np.stack(training) == c).sum(0) for c in range(3)])  # k,H,W
    assert (np.take_along_axis(per_pixel, prior[None].astype(int), 0)[0] == per_pixel.max(0)).all()
