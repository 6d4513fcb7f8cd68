"""What is right and wrong in one image, and what cannot be matched; the scores of whole sets are tested in test_detection_metrics."""

import numpy as np
import pytest
import torch

from convmix.data import rle
from convmix.data.targets import Objects
from convmix.metrics.matching import assign, match, match_image
from convmix.results import Boxes, Masks

SIZE = (100, 100)


def objects(*named: tuple[int, tuple[int, int, int, int]], crowd: tuple[int, ...] = ()) -> Objects:
    boxes = np.array([b for _, b in named], np.float32).reshape(-1, 4)
    return Objects(SIZE, boxes, np.array([c for c, _ in named], np.int64), np.array([i in crowd for i in range(len(named))], bool))


def found(*named: tuple[int, float, tuple[int, int, int, int]]) -> Boxes:
    boxes = torch.tensor([b for *_, b in named], dtype=torch.float32).reshape(-1, 4)
    return Boxes(boxes, torch.tensor([s for _, s, _ in named]), torch.tensor([c for c, *_ in named], dtype=torch.int64), ("a", "b"), SIZE)


def test_right_confused_false_and_missed_are_told_apart() -> None:
    truth = objects(
        (0, (0, 0, 20, 20)), (1, (40, 40, 60, 60)), (0, (70, 70, 90, 90)), (0, (0, 60, 30, 90)), (1, (40, 0, 60, 20)), crowd=(3, 4)
    )
    verdict = match_image(
        found(
            (0, 0.9, (1, 0, 20, 20)),  # right
            (0, 0.8, (0, 1, 20, 20)),  # the same object again
            (0, 0.7, (41, 40, 60, 60)),  # of the other class
            (0, 0.6, (5, 65, 15, 75)),  # in the crowd
            (1, 0.5, (80, 0, 99, 10)),  # nothing there
            (0, 0.3, (70, 70, 90, 90)),  # too unsure
        ),
        truth,
        threshold=0.5,
    )
    assert (verdict.right.tolist(), verdict.confused.tolist(), verdict.false.tolist()) == ([0], [2], [1, 4])
    assert verdict.missed.tolist() == [2]
    assert verdict.partner.tolist() == [0, -1, 1, -1, -1, -1]
    assert verdict.errors == 4


def test_the_surest_takes_the_object_it_overlaps_most() -> None:
    truth = objects((0, (0, 0, 20, 20)), (0, (4, 0, 24, 20)))
    verdict = match_image(found((0, 0.5, (0, 0, 20, 20)), (0, 0.9, (3, 0, 23, 20))), truth, threshold=0)
    assert verdict.partner.tolist() == [0, 1] and verdict.right.tolist() == [1, 0]
    assert match_image(found((0, 0.9, (3, 0, 23, 20))), truth, threshold=0, iou=0.95).false.tolist() == [0]


def test_nothing_found_and_nothing_there() -> None:
    truth = objects((0, (0, 0, 20, 20)))
    assert match_image(found(), truth, threshold=0).missed.tolist() == [0]
    assert match_image(found((0, 0.9, (0, 0, 20, 20))), objects(), threshold=0).false.tolist() == [0]
    assert match_image(found(), objects(), threshold=0).errors == 0


def test_masks_are_matched_by_their_pixels() -> None:
    upper = np.triu(np.ones((40, 40), np.uint8))
    canvas = np.zeros((2, *SIZE), np.uint8)
    canvas[0, :40, :40], canvas[1, :40, :40] = upper, 1 - upper
    masks = rle.encode(canvas)
    box = (0, 0, 40, 40)
    truth = objects((0, box))
    truth = Objects(SIZE, truth.boxes, truth.labels, truth.crowd, masks[:1])
    boxes = found((0, 0.9, box))
    result = Masks(boxes.boxes, boxes.scores, boxes.columns, boxes.labels, SIZE, masks[1:])
    assert len(match_image(result, truth, threshold=0).right) == 1
    assert len(match_image(result, truth, threshold=0, masks=True).right) == 0


def test_an_ignored_object_is_taken_only_where_no_other_is_left() -> None:
    overlap = np.array([[0.6, 0.9, 0.7], [0.6, 0.9, 0.7], [0.6, 0.9, 0.7], [0.6, 0.9, 0.7]])
    ignored = np.array([[False, True, False]])
    assert assign(overlap, ignored, np.zeros(3, bool), np.array([0.5])).tolist() == [[2, 0, 1, -1]]
    crowd = np.array([False, True, False])
    assert assign(overlap, ignored, crowd, np.array([0.5])).tolist() == [[2, 0, 1, 1]]
    assert assign(overlap, np.repeat(ignored, 2, 0), crowd, np.array([0.65, 0.95])).tolist() == [[2, 1, 1, 1], [-1, -1, -1, -1]]


def test_of_equal_overlaps_the_later_object_is_taken() -> None:
    overlap = np.array([[0.2, 0.7, 0.7, 0.6], [0.7, 0.7, 0.7, 0.7], [0.7, 0.7, 0.0, 0.0]])
    nothing = np.zeros(4, bool)
    assert assign(overlap, nothing[None], nothing, np.array([0.5])).tolist() == [[2, 3, 1]]


def test_results_of_another_image_are_refused() -> None:
    truth = Objects((50, 100), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    with pytest.raises(ValueError, match=r"\(50, 100\)"):
        match([found()], [truth], 2)
    with pytest.raises(ValueError, match="result holds boxes alone"):
        match([found()], [objects()], 2, masks=True)
