"""Targets of a batch behave as tensors of targets do, whatever they hold."""

import numpy as np
import pytest
import torch

from convmix.data.targets import InstanceTargets, PerImage, as_batch
from convmix.inference.batches import in_order, joined


def instances(n: int) -> InstanceTargets:
    return InstanceTargets(torch.full((n, 4), float(n)), torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize(("images", "parts"), [(7, 2), (8, 4), (5, 3), (2, 4), (1, 1)])
def test_parts_are_as_many_and_as_large_as_those_of_the_images(images: int, parts: int) -> None:
    targets = PerImage(instances(i) for i in range(images))
    chunks = targets.chunk(parts)
    assert [len(c) for c in chunks] == [len(c) for c in torch.zeros(images).chunk(parts)]
    assert [len(t.boxes) for c in chunks for t in c] == list(range(images))


def test_classes_become_one_tensor_and_maps_of_one_size_another() -> None:
    assert torch.equal(as_batch([2, np.int64(0), 1]), torch.tensor([2, 0, 1]))
    maps = [torch.full((3, 4), i, dtype=torch.uint8) for i in range(2)]
    assert as_batch(maps).shape == (2, 3, 4)
    assert isinstance(as_batch([instances(1), instances(2)]), PerImage)
    assert as_batch([]).shape == (0,)


def test_batches_join_and_are_put_in_order() -> None:
    order = torch.tensor([2, 0, 1])
    assert in_order(joined([torch.tensor([5, 6]), torch.tensor([7])]), order).tolist() == [7, 5, 6]
    assert in_order(joined([["a", "b"], ["c"]]), order) == ["c", "a", "b"]
    together = joined([PerImage([instances(1)]), PerImage([instances(2), instances(3)])])
    assert isinstance(together, PerImage) and [len(t.boxes) for t in in_order(together, order)] == [3, 1, 2]
