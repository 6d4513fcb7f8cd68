"""Masks survive the way into run lengths and back; run lengths and polygons from files are checked before they are trusted."""

from typing import Any

import numpy as np
import pytest

from convmix.data import rle

MASKS = np.random.default_rng(0).random((3, 7, 11)) < 0.3


def test_masks_survive_the_way_there_and_back() -> None:
    counts = rle.encode(MASKS)
    assert all(isinstance(c, bytes) for c in counts)
    assert np.array_equal(rle.decode(counts, (7, 11)), MASKS.astype(np.uint8))
    assert rle.areas(counts, (7, 11)).tolist() == MASKS.sum((1, 2)).tolist()


def test_boxes_are_edges_around_the_pixels() -> None:
    mask = np.zeros((2, 6, 9), np.uint8)
    mask[0, 2:5, 3:8] = 255
    assert rle.boxes(rle.encode(mask), (6, 9)).tolist() == [[3, 2, 8, 5], [0, 0, 0, 0]]


def test_no_masks_are_no_masks() -> None:
    assert rle.encode(np.zeros((0, 6, 9))) == ()
    assert rle.decode((), (6, 9)).shape == (0, 6, 9)
    assert rle.areas((), (6, 9)).shape == (0,)
    assert rle.boxes((), (6, 9)).shape == (0, 4)


def test_polygons_of_one_object_are_one_mask() -> None:
    counts = rle.from_polygons([[0, 0, 4, 0, 4, 4, 0, 4], [6, 0, 8, 0, 8, 2, 6, 2]], (6, 9))
    expected = np.zeros((6, 9), np.uint8)
    expected[:4, :4] = expected[:2, 6:8] = 1
    assert np.array_equal(rle.decode([counts], (6, 9))[0], expected)


@pytest.mark.parametrize("as_text", [False, True])
def test_runs_go_down_the_columns(as_text: bool) -> None:
    written = rle.from_runs([1, 3, 5], [3, 3], (3, 3))
    counts = rle.from_runs(written.decode(), [3, 3], (3, 3)) if as_text else written
    assert rle.decode([counts], (3, 3))[0].tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("polygons", "reason"),
    [
        ([[0, 0, 4, 4]], "4 numbers"),
        ([[0, 0, 4, 0, 4, 4, 1]], "7 numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], "nan"),
        ([[0, 0, 4, 0, 4, "4"]], "'4'"),
        ([[0, 0, 1e9, 0, 4, 4]], r"far outside the image of 9x6"),
        (["0 0 4 4 5 5"], "a polygon of '0 0"),
        ([], "a list of polygons"),
    ],
)
def test_a_polygon_that_cannot_be_drawn_says_why(polygons: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rle.from_polygons(polygons, (6, 9))


@pytest.mark.parametrize(
    ("counts", "size", "reason"),
    [
        ([1, 3, 5], [3, 4], "height, width"),
        ([1, 3, 4], [3, 3], "8 pixels, the image has 9"),
        ([1, -3, 11], [3, 3], "not counts of pixels"),
        ([1, 3.5, 4.5], [3, 3], "not counts of pixels"),
        ("zzzz~~", [3, 3], "do not fill"),
        ("", [3, 3], "do not fill"),
        ("\u00e4", [3, 3], "do not fill"),
        (7, [3, 3], "expected a text or a list"),
        ([9], None, "height, width None"),
    ],
)
def test_run_lengths_of_another_image_say_why(counts: Any, size: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rle.from_runs(counts, size, (3, 3))
