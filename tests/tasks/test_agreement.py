"""What two answers to one image have in common: counted from both sides, so that nothing is overlooked that only one of them says."""

import pytest
import torch

from convmix.results import Boxes
from convmix.tasks.agreement import Agreement, agreement, together

LEFT, RIGHT = (0.0, 0.0, 20.0, 20.0), (50.0, 50.0, 80.0, 90.0)
Found = tuple[float, int, tuple[float, float, float, float]]  # score, class, box


def boxes(*found: Found) -> Boxes:
    rows = torch.tensor([box for *_, box in found]).reshape(-1, 4)
    columns = torch.tensor([column for _, column, _ in found], dtype=torch.int64)
    return Boxes(rows, torch.tensor([score for score, *_ in found]), columns, ("a", "b"), (100, 100))


@pytest.mark.parametrize(
    ("found", "compared"),
    [
        ((0.8, 0, RIGHT), 3),  # one more, which is elsewhere
        ((0.8, 1, LEFT), 3),  # or in the same place, of another class
        ((0.2, 0, RIGHT), 2),  # too unsure to be an object of either
    ],
)
def test_an_object_that_only_one_answer_has_counts_whichever_has_it(found: Found, compared: int) -> None:
    one, two = boxes((0.9, 0, LEFT)), boxes((0.9, 0, LEFT), found)
    assert agreement(one, two) == agreement(two, one) == Agreement(0.0, 2, compared)


def test_where_one_answer_has_nothing_nothing_is_agreed() -> None:
    nothing, two = boxes(), boxes((0.9, 0, LEFT), (0.8, 1, RIGHT))
    assert agreement(nothing, two) == agreement(two, nothing) == Agreement(0.0, 0, 2)
    assert agreement(nothing, nothing) == Agreement(0.0, 0, 0)


def test_scores_are_compared_of_objects_that_both_have() -> None:
    """The one of them that falls below the least score is found by the other all the same."""
    found = agreement(boxes((0.5, 0, LEFT)), boxes((0.25, 0, LEFT)))
    assert found == Agreement(0.25, 1, 1)
    assert together([found, Agreement(0.125, 3, 4)]) == Agreement(0.25, 4, 5)
