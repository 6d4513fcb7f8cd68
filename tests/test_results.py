"""Result types refuse what is no result."""

import pytest
import torch

from convmix.results import Classes


def test_top_is_sorted_and_named() -> None:
    classes = Classes(torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]), ("a", "b", "c"))
    first, second = classes.top(2)
    assert [label for label, _ in first] == ["b", "c"]
    assert [p for _, p in first] == pytest.approx([0.5, 0.3])
    assert second[0] == ("c", pytest.approx(0.8))


def test_top_of_more_than_there_are_gives_all() -> None:
    assert len(Classes(torch.tensor([[0.4, 0.6]]), ("a", "b")).top(5)[0]) == 2


def test_an_image_is_sure_from_the_threshold_on() -> None:
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    assert Classes(p, ("a", "b"), 0.75).sure.tolist() == [False, True, True]
    assert Classes(p, ("a", "b")).sure.tolist() == [True, True, True]
    assert Classes(p, ("a", "b"), 1.0).sure.tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (torch.tensor([0.5, 0.5]), "expected n,2"),
        (torch.tensor([[0.2, 0.3, 0.5]]), "expected n,2"),
        (torch.tensor([[0.5, 0.6]]), "sum to 1"),
        (torch.tensor([[float("nan"), 0.5]]), "sum to 1"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classes(probabilities, ("a", "b"))
