"""Pictures of certainty: the right width, different for different numbers, and no picture of nothing."""

import io

import numpy as np
import pytest
from PIL import Image

from convmix.evaluation.reliability import coverage_picture, reliability_picture
from convmix.metrics.calibration import coverage_curve, reliability

CONFIDENCE = np.linspace(0.2, 1.0, 200)
CORRECT = np.tile([1, 1, 0, 1], 50)


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


@pytest.mark.slow
def test_pictures_are_900_pixels_wide_whatever_there_is_to_draw() -> None:
    many, one = reliability(CONFIDENCE, CORRECT), reliability(np.array([1.0]), np.array([0]))
    for before, after in ((many, many), (many, None), (one, one)):
        assert size(reliability_picture(before, after, title="$a_b$ <b>"))[0] == 900
    for confidence, correct, thresholds in (
        (CONFIDENCE, CORRECT, (0.0, 0.5)),
        (np.ones(5), np.ones(5), (None, 1.0)),
        (np.array([0.3]), np.array([0]), (0.0, 0.5)),
    ):
        for threshold in thresholds:
            assert size(coverage_picture(coverage_curve(confidence, correct), threshold=threshold, title="x"))[0] == 900


def test_a_picture_shows_its_numbers() -> None:
    bins, curve = reliability(CONFIDENCE, CORRECT), coverage_curve(CONFIDENCE, CORRECT)
    assert reliability_picture(bins, bins, title="x") != reliability_picture(bins, bins[:-1], title="x")
    assert coverage_picture(curve, threshold=0.5, title="x") != coverage_picture(curve, threshold=0.6, title="x")


def test_no_bins_are_no_picture() -> None:
    with pytest.raises(ValueError, match="no bins"):
        reliability_picture([], None, title="x")
