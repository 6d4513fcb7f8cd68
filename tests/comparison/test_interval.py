"""Intervals against values worked out by hand."""

import pytest

from convmix.comparison.interval import Mean, mean_difference, mean_of

T2, T1 = 4.302653, 12.706205  # Student's t for 2 and 1 degrees of freedom, 97.5 %


def test_a_mean_has_students_interval() -> None:
    mean = mean_of([0.7, 0.8, 0.9])  # s = 0.1
    assert (mean.value, mean.n) == (pytest.approx(0.8), 3)
    assert mean.high - mean.value == pytest.approx(T2 * 0.1 / 3**0.5, rel=1e-6)
    assert mean.value - mean.low == pytest.approx(T2 * 0.1 / 3**0.5, rel=1e-6)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert mean_of([0.5]) == Mean(0.5, 1, None, None)
    assert not mean_of([0.5]).excludes_zero
    with pytest.raises(ValueError, match="no values"):
        mean_of([])


def test_differences_are_paired_by_seed() -> None:
    found = mean_difference({0: 0.5, 1: 0.9, 2: 0.1}, {1: 0.7, 0: 0.4, 5: 0.0})  # 0.1 and 0.2: s = 0.0707
    assert (found.value, found.n) == (pytest.approx(0.15), 2)
    assert found.high - found.value == pytest.approx(T1 * 0.1 / 2**0.5 / 2**0.5, rel=1e-6)
    assert mean_difference({0: 0.5}, {1: 0.5}) is None


@pytest.mark.parametrize(
    ("values", "excludes"), [([0.1, 0.11, 0.12], True), ([-0.1, -0.11, -0.12], True), ([-0.1, 0.1], False), ([0.1, 0.1], False)]
)
def test_an_interval_excludes_zero_or_not(values: list[float], excludes: bool) -> None:
    assert mean_of(values).excludes_zero is excludes


def test_shares_stay_shares() -> None:
    mean = mean_of([0.9, 1.0]).within(0, 1)
    assert mean.high == 1 and 0 < mean.low < 0.95
