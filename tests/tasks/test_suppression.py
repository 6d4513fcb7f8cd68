"""Greedy suppression by rounds over all boxes keeps what torchvision's, box after box, keeps."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from convmix.tasks.suppression import best_apart, first, overlaps, pairwise_iou, rows, survivors


def random_boxes(n: int, k: int, *, seed: int, side: float = 100.0) -> Tensor:
    """N,K,4: many of them over one another."""
    random = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(n, k, 2, generator=random) * side, torch.rand(n, k, 2, generator=random) * side + 1
    return torch.cat([corner, corner + size], 2)


def expected(boxes: Tensor, groups: Tensor, real: Tensor, iou: float) -> Tensor:
    """By torchvision, an image at a time."""
    stays = torch.zeros_like(real)
    scores = torch.arange(boxes.shape[1], 0, -1.0)
    for i, keep in enumerate(real):
        at = keep.nonzero()[:, 0]
        stays[i, at[batched_nms(boxes[i, at], scores[at], groups[i, at], iou)]] = True
    return stays


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou", [0.1, 0.5, 0.7])
def test_random_boxes_stay_as_in_torchvision(seed: int, iou: float) -> None:
    random = torch.Generator().manual_seed(seed)
    boxes = random_boxes(3, 200, seed=seed)
    real = torch.rand(3, 200, generator=random) < 0.8
    (stays,) = survivors([overlaps(boxes, iou, real=real)])
    wanted = expected(boxes, torch.zeros(3, 200), real, iou)
    assert torch.equal(stays & real, wanted)
    assert 0 < int(wanted.sum()) < int(real.sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [10, 150])
def test_the_best_boxes_apart_are_torchvisions_first(seed: int, count: int) -> None:
    """With room for fewer than stay, and for more."""
    random = torch.Generator().manual_seed(seed)
    boxes, labels = random_boxes(3, 200, seed=seed), torch.randint(0, 4, (3, 200), generator=random)
    scores = torch.rand(3, 200, generator=random) + 0.01
    scores[torch.rand(3, 200, generator=random) < 0.3] = 0
    scores[2] = 0
    found = best_apart(count, boxes, scores, labels, 0.3)
    sizes = []
    for i in range(3):
        at = scores[i].nonzero()[:, 0]
        wanted = at[batched_nms(boxes[i, at], scores[i, at], labels[i, at], 0.3)][:count]
        n = len(wanted)
        sizes.append(n)
        for name, table in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            assert torch.equal(found[name][i, :n], table[i, wanted]) and not found[name][i, n:].any(), name
    assert (sizes == [10, 10, 0]) if count == 10 else (min(sizes[:2]) > 0 and max(sizes) < 150)


@pytest.mark.parametrize("seed", range(4))
def test_of_boxes_with_equal_scores_the_earlier_one_stays(seed: int) -> None:
    """As in torchvision, which sorts them stably; five scores for 200 boxes."""
    random = torch.Generator().manual_seed(seed)
    boxes, labels = random_boxes(2, 200, seed=seed), torch.randint(0, 3, (2, 200), generator=random)
    scores = torch.randint(1, 6, (2, 200), generator=random) / 5
    found = best_apart(200, boxes, scores, labels, 0.3)
    for i in range(2):
        order = scores[i].argsort(descending=True, stable=True)
        stays = batched_nms(boxes[i, order], torch.arange(200, 0, -1.0), labels[i, order], 0.3)
        wanted = order[stays]
        assert torch.equal(found["boxes"][i, : len(wanted)], boxes[i, wanted]) and not found["scores"][i, len(wanted) :].any()


def test_an_overlap_of_exactly_the_limit_is_allowed() -> None:
    """Two boxes that share a half of both together, as in torchvision; and a third that shares a hair more."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0], [0.0, 0.0, 8.0, 4.125]])[None]
    assert pairwise_iou(boxes, boxes)[0, 0, 1] == 0.5
    (stays,) = survivors([overlaps(boxes, 0.5, real=torch.ones(1, 3, dtype=torch.bool))])
    assert stays.tolist() == [[True, True, False]]
    found = best_apart(3, boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64), 0.5)
    assert found["scores"].tolist() == [[pytest.approx(0.9), pytest.approx(0.8), 0.0]]
    assert torch.equal(stays, expected(boxes, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 0.5))


def test_the_longest_chain_is_followed_to_its_end() -> None:
    """Each box suppresses the next alone, so that every second one stays, and whether the last does follows from all before it."""
    start = torch.arange(301.0) * 3
    boxes = torch.stack([start, torch.zeros(301), start + 10, torch.full((301,), 10.0)], 1)[None]
    real = torch.ones(1, 301, dtype=torch.bool)
    (stays,) = survivors([overlaps(boxes, 0.5, real=real)])
    assert stays[0].tolist() == [i % 2 == 0 for i in range(301)]
    assert torch.equal(stays, expected(boxes, torch.zeros(1, 301), real, 0.5))


def test_boxes_that_are_all_the_same_leave_one() -> None:
    boxes = torch.tensor([1.0, 2.0, 30.0, 40.0]).expand(2, 50, 4)
    real, labels = torch.ones(2, 50, dtype=torch.bool), torch.arange(50).expand(2, 50) % 3
    real[1, 0] = False
    (stays,) = survivors([overlaps(boxes, 0.5, real=real)])
    assert [(s & r).nonzero()[:, 0].tolist() for s, r in zip(stays, real, strict=True)] == [[0], [1]]
    scores = real * torch.linspace(1, 0.5, 50)
    found = best_apart(5, boxes, scores, labels, 0.5)
    assert found["labels"].tolist() == [[0, 1, 2, 0, 0], [1, 2, 0, 0, 0]]  # one of each label
    assert found["scores"].count_nonzero(1).tolist() == [3, 3]


def test_boxes_without_area_suppress_nothing_and_stay() -> None:
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])[None]
    (stays,) = survivors([overlaps(boxes, 0.5, real=torch.ones(1, 4, dtype=torch.bool))])
    assert stays.tolist() == [[True, True, True, False]]


def test_sets_of_boxes_are_settled_each_on_its_own() -> None:
    sets = [random_boxes(2, k, seed=k) for k in (7, 90, 33)]
    real = [torch.ones(b.shape[:2], dtype=torch.bool) for b in sets]
    together = survivors([overlaps(b, 0.3, real=r) for b, r in zip(sets, real, strict=True)])
    for boxes, there, stays in zip(sets, real, together, strict=True):
        assert torch.equal(stays, expected(boxes, torch.zeros(boxes.shape[:2]), there, 0.3))


def test_overlap_is_shared_over_joint_area() -> None:
    boxes = random_boxes(2, 40, seed=0)
    for ours, one in zip(pairwise_iou(boxes, boxes), boxes, strict=True):
        torch.testing.assert_close(ours, box_iou(one, one))


def test_the_first_rows_come_in_order_and_zeros_behind_them() -> None:
    stays = torch.tensor([[False, True, True, False, True], [False, False, True, False, False]])
    tables = {"score": torch.arange(1.0, 11).reshape(2, 5), "box": torch.arange(1, 21).reshape(2, 5, 2)}
    two = first(2, stays, tables)
    assert two["score"].tolist() == [[2, 3], [8, 0]]
    assert two["box"].tolist() == [[[3, 4], [5, 6]], [[15, 16], [0, 0]]]
    five = first(5, stays, tables)
    assert five["score"].tolist() == [[2, 3, 5, 0, 0], [8, 0, 0, 0, 0]]


def test_rows_are_each_images_own() -> None:
    table = torch.arange(12).reshape(2, 3, 2)
    assert rows(table, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
