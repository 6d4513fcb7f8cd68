"""A slope, an offset and a threshold for every label, against numbers that are known beforehand."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from convmix.data.targets import UNKNOWN
from convmix.errors import ConfigError, RunError
from convmix.metrics.platt import fit_line
from convmix.tasks.label_calibration import LabelCalibration, calibrate_labels, choose


def honest(n: int = 4000, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits n,k whose sigmoid is the probability that the truth is drawn with."""
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, k, generator=draw) - 1
    return logits, (torch.rand(n, k, generator=draw) < logits.sigmoid()).to(torch.int8)


def test_scaled_and_shifted_logits_are_brought_back() -> None:
    logits, truth = honest()
    spoiled = logits * torch.tensor([3.0, 1.0, 0.5]) + torch.tensor([2.0, 0.0, -1.0])
    found = calibrate_labels(spoiled, truth, split="val")
    np.testing.assert_allclose(found.slopes, [1 / 3, 1, 2], rtol=0.1)
    np.testing.assert_allclose(found.offsets, [-2 / 3, 0, 2], atol=0.15)
    assert (found.apply(spoiled) - logits.sigmoid()).abs().max() < 0.05
    assert found.ece_after < 0.03 < found.ece_before and found.nll_after < found.nll_before


def test_the_order_of_the_images_stays() -> None:
    """Also where the logits say the opposite of the truth: a label that is learned wrong must not look learned."""
    logits, truth = honest(500, 1)
    found = calibrate_labels(-logits, truth, split="val")
    assert found.slopes[0] > 0
    assert (found.apply(-logits)[:, 0].argsort(stable=True) == (-logits)[:, 0].argsort(stable=True)).float().mean() > 0.99


def test_few_images_move_little_and_one_sided_ones_nothing() -> None:
    slope, offset = fit_line(np.array([1.0, -1.0]), np.array([True, False]))
    assert 0.6 < slope < 1.8 and abs(offset) < 0.3
    assert fit_line(np.array([1.0, 2.0]), np.array([True, True])) == (1, 0) == fit_line(np.array([]), np.array([], bool))


def test_unknown_labels_are_left_out() -> None:
    logits, truth = honest(400)
    hidden = truth.clone()
    hidden[200:] = UNKNOWN
    wild = logits.clone()
    wild[200:] = 30.0
    part, whole = calibrate_labels(logits[:200], truth[:200], split="val"), calibrate_labels(wild, hidden, split="val")
    assert dataclasses.replace(part, n=400) == whole


def test_the_threshold_of_best_f1_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    true = rng.random(300) < 0.2
    p = 1 / (1 + np.exp(-(2.0 * true - 1.5 + rng.normal(0, 1, 300))))

    def f1(threshold: float) -> float:
        said = p >= threshold
        return float(2 * (said & true).sum() / (said.sum() + true.sum()))

    threshold, reached = choose(p, true)
    assert reached and f1(threshold) == max(f1(t) for t in p)


def test_a_wanted_precision_is_kept_with_as_many_images_as_possible() -> None:
    rng = np.random.default_rng(2)
    true = rng.random(2000) < 0.3
    p = 1 / (1 + np.exp(-(2.5 * true - 1.5 + rng.normal(0, 1, 2000))))

    def precision(threshold: float) -> float:
        return float(true[p >= threshold].mean())

    threshold, reached = choose(p, true, precision=0.9)
    assert reached and precision(threshold) >= 0.9
    lower = [t for t in np.sort(p) if t < threshold and precision(t) >= 0.9]
    assert not lower
    assert choose(p, true, precision=0.9)[0] > choose(p, true, precision=0.7)[0]


def test_a_precision_that_is_not_reached_is_said_so() -> None:
    p, true = np.linspace(0.1, 0.9, 40), np.arange(40) % 2 == 0
    threshold, reached = choose(p, true, precision=0.99)
    assert not reached and 0 < threshold < 1
    assert choose(p, np.zeros(40, bool)) == (0.5, False)


def test_what_is_written_is_read_back() -> None:
    found = calibrate_labels(*honest(100), split="val", precision=0.8)
    assert LabelCalibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slopes": None}, "slopes"),
        ({"thresholds": [0.5, 0.5]}, "2 values for 3 labels"),
        ({"thresholds": [0.5, 0.5, 2]}, "0..1"),
        ({"slopes": [1, 1, -1]}, "above 0"),
        ({"n": "many"}, "calibration.n"),
        ({"temprature": 1}, "unknown key temprature"),
    ],
)
def test_what_was_changed_by_hand_is_refused(change: dict[str, object], said: str) -> None:
    values = calibrate_labels(*honest(100), split="val").to_dict() | change
    with pytest.raises(RunError, match=said):
        LabelCalibration.from_dict(values)
    with pytest.raises(RunError, match="has no offsets"):
        LabelCalibration.from_dict(
            {k: v for k, v in values.items() if k != "offsets" and k in calibrate_labels(*honest(9), split="v").to_dict()}
        )


def test_numbers_that_are_not_finite_are_refused() -> None:
    logits, truth = honest(20)
    logits[3, 1] = math.nan
    with pytest.raises(RunError, match="1 of 20 images are not finite"):
        calibrate_labels(logits, truth, split="val")
    with pytest.raises(ConfigError, match="finite"):
        LabelCalibration((math.inf,), (0.0,), (0.5,), (True,), None, "val", 1, 0, 0, 0, 0)
