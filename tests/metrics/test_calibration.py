"""Temperature, calibration error, coverage and thresholds, against numbers that are known beforehand."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convmix.errors import ConfigError, RunError
from convmix.metrics.calibration import (
    Bin,
    Calibration,
    calibrate_logits,
    choose_threshold,
    coverage_curve,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def honest(n: int, *, seed: int = 0, k: int = 5) -> tuple[Tensor, Tensor]:
    """Logits n,k whose softmax is the probability that the class, drawn from it, is the truth."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(n, k, generator=draw)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]


def answers(logits: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether it is right, of each image."""
    confidence, predicted = logits.double().softmax(1).max(1)
    return confidence.numpy(), (predicted == targets).numpy()


# Temperature


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_factor_that_spoilt_honest_logits_is_found(factor: float) -> None:
    logits, targets = honest(20_000)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_makes_the_truth_more_likely() -> None:
    logits, targets = honest(3_000)
    best = fit_temperature(2 * logits, targets)
    loss = [float(F.cross_entropy(2 * logits.double() / t, targets)) for t in (0.97 * best, best, 1.03 * best)]
    assert loss[1] < min(loss[0], loss[2])


def test_a_shift_of_all_logits_of_an_image_changes_nothing() -> None:
    logits, targets = honest(100)
    assert fit_temperature(logits + 1000 * torch.rand(100, 1, dtype=torch.float64), targets) == pytest.approx(
        fit_temperature(logits, targets), rel=1e-4
    )


def test_images_without_a_mistake_do_not_make_a_model_certain_for_ever() -> None:
    """The likelihood alone would take a temperature of 0, and call an image right by 10 of 10 a certainty."""
    few, many = (fit_temperature(logits, logits.argmax(1)) for logits in (honest(10)[0], honest(5_000)[0]))
    assert 0.2 > many > 0.01  # more evidence, more confidence
    assert 1.0 > few > 0.4
    shares = (honest(10)[0] / few).softmax(1).amax(1)
    assert 0.7 < float(shares.mean()) < 0.99


def test_a_few_images_leave_the_model_much_as_it_is() -> None:
    """Of 20 samples of 15 images the temperatures scatter around the true one, none of them far off."""
    found = [fit_temperature(*honest(15, seed=seed)) for seed in range(20)]
    assert 0.85 < float(np.median(found)) < 1.18
    assert min(found) > 0.5 and max(found) < 2.0


def test_a_model_that_is_always_wrong_or_says_nothing_gets_no_confidence() -> None:
    logits, _ = honest(50)
    assert fit_temperature(logits, logits.argmin(1)) > 3
    assert fit_temperature(torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64)) == pytest.approx(1.0, rel=1e-4)


def test_one_image_and_one_class_have_an_answer() -> None:
    assert 0.01 <= fit_temperature(torch.tensor([[2.0, 0.0]]), torch.tensor([0])) <= 100
    assert fit_temperature(torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_counted(value: float) -> None:
    logits, targets = honest(20)
    logits[3, 1] = logits[7, 0] = value
    with pytest.raises(RunError, match="outputs for 2 of 20 images are not finite"):
        fit_temperature(logits, targets)


@pytest.mark.parametrize(
    ("logits", "targets"), [(torch.zeros(3), torch.zeros(3)), (torch.zeros(3, 2), torch.zeros(2)), (torch.zeros(0, 2),) * 2]
)
def test_shapes_that_do_not_fit_are_refused(logits: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match="expected n,k and n"):
        fit_temperature(logits, targets.long())


# Calibration error and reliability


def test_the_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.55, 0.6, 0.2])
    correct = np.array([True, False, True, True, False])
    # two bins: (0, .5] is 0.2 too sure, one image; (.5, 1] is 0.7125 sure and 0.75 right, four images
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.2 / 5 + 4 * 0.0375 / 5)
    low, high = reliability(confidence, correct, bins=2)
    assert low == Bin(0.0, 0.5, 1, 0.2, 0.0)
    assert (high.low, high.high, high.n, high.accuracy) == (0.5, 1.0, 4, 0.75)
    assert high.confidence == pytest.approx(0.7125)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    bins = reliability(np.array([0.0, 0.2, 0.20001, 1.0]), np.ones(4), bins=5)
    assert [(b.low, b.n) for b in bins] == [(0.0, 2), (pytest.approx(0.2), 1), (pytest.approx(0.8), 1)]


def test_bins_hold_every_image_once_and_none_is_empty() -> None:
    confidence, correct = answers(*honest(500))
    bins = reliability(confidence, correct)
    assert sum(b.n for b in bins) == 500 and all(b.n for b in bins)
    assert sum(b.n * b.accuracy for b in bins) == pytest.approx(correct.sum())
    assert all(b.low < b.confidence <= b.high for b in bins)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        (np.array([]), np.array([])),
        (np.array([0.5]), np.array([1, 0])),
        (np.array([1.2]), np.array([1])),
        (np.array([math.nan]), np.array([1])),
    ],
)
def test_what_are_no_confidences_is_refused(confidence: np.ndarray, correct: np.ndarray) -> None:
    for function in (reliability, coverage_curve):
        with pytest.raises(ValueError, match="expected"):
            function(confidence, correct)


# Coverage and threshold


def test_images_of_equal_confidence_are_answered_together() -> None:
    curve = coverage_curve(np.array([0.5, 0.9, 0.5, 0.7]), np.array([0, 1, 1, 0]))
    assert curve.threshold.tolist() == [0.9, 0.7, 0.5]
    assert curve.coverage.tolist() == [0.25, 0.5, 1.0]
    assert curve.accuracy.tolist() == [1.0, 0.5, 0.5]
    same = coverage_curve(np.full(7, 0.3), np.array([1, 0, 1, 0, 1, 0, 1]))
    assert (same.coverage.tolist(), same.accuracy.tolist()) == ([1.0], [pytest.approx(4 / 7)])


def test_the_most_images_are_sure_that_are_right_often_enough() -> None:
    confidence = np.linspace(0.99, 0.5, 50)
    correct = np.ones(50)
    correct[[12, 20, 25, 30, 31, 32]] = 0  # 27 of 30 are right, 90 %; then never again so many
    choice = choose_threshold(confidence, correct, accuracy=0.9)
    assert (choice.n, choice.accuracy, choice.coverage) == (30, 0.9, 0.6)
    assert confidence[30] < choice.threshold < confidence[29]
    assert choice.accuracy_interval[0] < 0.9 < choice.accuracy_interval[1]


def test_the_fewest_images_are_sure_that_are_enough() -> None:
    confidence, correct = answers(*honest(1_000))
    choice = choose_threshold(confidence, correct, coverage=0.75)
    assert choice.n == 750 == (confidence >= choice.threshold).sum()
    assert (choice.target, choice.wanted) == ("coverage", 0.75)
    tied = choose_threshold(np.array([0.9, 0.6, 0.6, 0.3]), np.ones(4), coverage=0.5)
    assert (tied.coverage, tied.threshold) == (0.75, pytest.approx(0.45))


def test_all_images_sure_means_whatever_comes() -> None:
    confidence, correct = answers(*honest(100))
    assert choose_threshold(confidence, correct, coverage=1.0).threshold == 0.0
    assert choose_threshold(confidence, correct, accuracy=0.1).threshold == 0.0


def test_the_target_holds_on_fresh_data_within_the_interval() -> None:
    """Chosen on 1,500 images, tried on 100,000 others: within the interval, as it should be in about 95 of 100 cases."""
    fresh = answers(*honest(100_000, seed=99))
    inside = 0
    for seed in range(20):
        choice = choose_threshold(*answers(*honest(1_500, seed=seed)), accuracy=0.9)
        sure = fresh[0] >= choice.threshold
        low, high = choice.accuracy_interval
        inside += low <= fresh[1][sure].mean() <= high
        assert sure.mean() == pytest.approx(choice.coverage, abs=0.06)
        assert fresh[1][sure].mean() == pytest.approx(0.9, abs=0.03)
    assert inside >= 17


def test_an_accuracy_out_of_reach_names_the_best() -> None:
    confidence = np.linspace(0.9, 0.1, 100)
    correct = np.tile([1.0, 1.0, 1.0, 0.0], 25)  # the first three are right, which is luck and not to be believed
    with pytest.raises(
        ConfigError, match=r"accuracy: 0\.95 is not reached on these 100 images .* the best is 0\.8182, with 11\.0% of them sure"
    ):
        choose_threshold(confidence, correct, accuracy=0.95)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({}, "either an accuracy or a coverage"),
        ({"accuracy": 0.9, "coverage": 0.5}, "either an accuracy or a coverage"),
        ({"accuracy": 95}, "accuracy: 95 is outside 0..1; give a share such as 0.95"),
        ({"coverage": 0.0}, "coverage: 0 is outside"),
        ({"coverage": math.nan}, "coverage: nan is outside"),
    ],
)
def test_impossible_wishes_are_named(wishes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_threshold(*answers(*honest(100)), **wishes)


# What a model directory keeps


def calibration() -> Calibration:
    """Of logits three times too large, with a threshold."""
    logits, targets = honest(2_000)
    fitted = calibrate_logits(3 * logits, targets, split="val")
    choice = choose_threshold(*answers(3 * logits / fitted.temperature, targets), accuracy=0.9)
    return dataclasses.replace(fitted, threshold=choice.threshold, choice=choice)


def test_calibration_mends_what_was_spoilt() -> None:
    c = calibration()
    assert c.ece_before > 0.1 and c.ece_after < 0.03
    assert c.nll_after < c.nll_before
    logits, targets = honest(20_000, seed=5)
    fresh = expected_calibration_error(*answers(3 * logits / c.temperature, targets))
    assert fresh < 0.02 < 0.1 < expected_calibration_error(*answers(3 * logits, targets))


def test_probabilities_are_those_of_the_divided_logits() -> None:
    c = dataclasses.replace(calibration(), temperature=2.0)
    p = c.apply(torch.tensor([[math.log(16), 0.0]], dtype=torch.bfloat16))
    assert p.dtype == torch.float32
    assert p[0].tolist() == pytest.approx([0.8, 0.2], abs=2e-3)


def test_a_calibration_is_read_back_exactly() -> None:
    for c in (
        calibration(),
        dataclasses.replace(calibration(), threshold=None, choice=None),
        dataclasses.replace(calibration(), choice=None),
    ):
        assert Calibration.from_dict(json.loads(json.dumps(c.to_dict()))) == c


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temprature": 1.0}, "calibration: unknown key temprature, did you mean temperature?"),
        ({"temperature": 0}, "calibration.temperature: 0 is not a number above 0"),
        ({"temperature": "2"}, "calibration.temperature: '2' is not what"),
        ({"n": 1.5}, "calibration.n: 1.5 is not what"),
        ({"split": None}, "calibration.split: None is not what"),
        ({"threshold": 7, "choice": None}, "calibration.threshold: 7 is outside 0..1"),
        ({"threshold": 0.5}, "the one that was chosen is"),
        ({"choice": {"threshold": 0.5}}, "calibration.choice has no target, wanted"),
        ({"choice": 3}, "calibration.choice: 3 is not an object"),
    ],
)
def test_a_broken_calibration_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RunError) as caught:
        Calibration.from_dict(calibration().to_dict() | changes)
    assert message in str(caught.value)


def test_a_missing_part_and_no_object_are_named() -> None:
    values = calibration().to_dict()
    del values["nll_before"]
    with pytest.raises(RunError, match="has no nll_before; fit it again"):
        Calibration.from_dict(values)
    with pytest.raises(RunError, match=r"calibration: \[\] is not an object"):
        Calibration.from_dict([])
