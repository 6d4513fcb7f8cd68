"""An output that is not the original's is objected to, with the reason."""

import pytest
import torch

from convmix.errors import ModelError
from convmix.speed.check import LIMITS, FirstClass, Original, OutputTolerance

LOOSE = OutputTolerance(difference=10.0, changed=0.1, lost=0.05)


def original(*, targets: torch.Tensor | None = None, is_noise: bool = False) -> Original:
    """40 images of 4 classes, ten each; the right class has the logit 2, the others 0."""
    outputs = 2.0 * torch.eye(4).repeat_interleave(10, 0)  # 40,4
    return Original(torch.zeros(40, 3, 8, 8), outputs, None if is_noise else FirstClass(targets))


def with_wrong(count: int) -> torch.Tensor:
    """The original's outputs with another first class for `count` images."""
    outputs = original().outputs.clone()
    outputs[:count] = outputs[:count].roll(1, dims=1)
    return outputs


def test_differences_are_shares_of_the_largest_logit() -> None:
    plain = original()
    shifted = plain.outputs.clone()
    shifted[3, 1] -= 0.5
    assert plain.difference(shifted) == pytest.approx(0.25)
    assert plain.difference(shifted[:3]) == 0
    assert plain.compare(shifted, OutputTolerance(0.26, 0.0)).objection is None
    assert "differs by 2.5e-01 of the largest, 2e-01 is allowed" in str(plain.compare(shifted, OutputTolerance(0.24, 0.0)).objection)


def test_nan_is_objected_to() -> None:
    outputs = original().outputs.clone()
    outputs[0, 0] = torch.nan
    assert "wrong" in str(original().compare(outputs, LOOSE).objection)
    with pytest.raises(ModelError, match="not finite"):
        Original(torch.zeros(40, 3, 8, 8), outputs)


def test_too_many_changed_classes_are_objected_to() -> None:
    assert original().compare(with_wrong(4), LOOSE).objection is None
    assert "another answer for 5 of 40, 10 % are allowed" in str(original().compare(with_wrong(5), LOOSE).objection)
    assert original(is_noise=True).compare(with_wrong(40), LOOSE).objection is None
    assert original().compare(with_wrong(5)[:39], LOOSE).objection is None  # a part of the images is no basis for a share


def test_lost_accuracy_is_objected_to_where_classes_are_known() -> None:
    truth = torch.arange(4).repeat_interleave(10)
    limits = OutputTolerance(10.0, 1.0, lost=0.05)
    assert original(targets=truth).compare(with_wrong(2), limits).objection is None
    assert "accuracy 92.50 % on 40 images, the original's is 100.00 %; 5 points are allowed" in str(
        original(targets=truth).compare(with_wrong(3), limits).objection
    )
    assert original(targets=truth.roll(1)).compare(with_wrong(2), limits).objection is None
    strict = OutputTolerance(10.0, 1.0, lost=0.0)
    assert original(targets=truth).compare(with_wrong(1), strict).objection is None  # a single image is no evidence
    assert original(targets=truth).compare(with_wrong(2), strict).objection is not None


def test_limits_widen_with_coarser_arithmetic() -> None:
    assert LIMITS["fp32"].difference < LIMITS["bf16"].difference < LIMITS["int8"].difference
    assert LIMITS["int8"].lost == 0.005  # half a point
