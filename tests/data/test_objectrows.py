"""Objects on their way into rows: boxes are cut, rows keep their types whatever they hold, an image counts as its rarest class."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from convmix.data.examples import Examples
from convmix.data.readers.objectrows import Fault, ObjectRows, fit_box, image_labels
from convmix.data.targets import Objects


def rows_of(*labels: list[int], crowd: bool = False, with_masks: bool = False) -> ObjectRows:
    rows = ObjectRows(with_masks=with_masks)
    for i, of_image in enumerate(labels):
        rows.image(Path(f"{i}.png"), f"{i}.png", (10, 20))
        for j, label in enumerate(of_image):
            rows.object((0.0, 0.0, 1.0, j + 1.0), label, crowd=crowd, mask=b"x" if with_masks else None)
    return rows


def test_an_image_counts_as_the_rarest_class_it_holds() -> None:
    splits = {"train": rows_of([0, 0, 1], [0, 2], [], [1, 2]), "val": rows_of([0, 1], [2], [])}  # 4 of 0, 3 of 1, 3 of 2
    labels = image_labels(splits, 4)
    assert {split: of_split.tolist() for split, of_split in labels.items()} == {"train": [1, 2, 0, 2], "val": [1, 2, 0]}


def test_crowds_do_not_count() -> None:
    labels = image_labels({"train": rows_of([0], [0, 0], [1]), "val": rows_of([1], crowd=True)}, 2)
    assert labels["train"].tolist() == [0, 0, 1] and labels["val"].tolist() == [0]


@pytest.mark.parametrize("with_masks", [False, True])
def test_rows_without_objects_join_rows_with_them(with_masks: bool) -> None:
    parts = [rows_of([], with_masks=with_masks).rows(np.zeros(1)), rows_of([1, 0], with_masks=with_masks).rows(np.ones(1))]
    assert parts[0].features == parts[1].features
    examples = Examples(datasets.concatenate_datasets(parts), ("a", "b"), "train")
    first, second = examples.annotation(0), examples.annotation(1)
    assert isinstance(first, Objects) and isinstance(second, Objects)
    assert first.boxes.shape == (0, 4) and first.size == (10, 20) and first.masks == (() if with_masks else None)
    assert second.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 1, 2]] and second.labels.tolist() == [1, 0]
    assert second.masks == ((b"x", b"x") if with_masks else None)


def test_examples_of_classes_give_the_class() -> None:
    rows = rows_of([0], [1]).rows(np.array([1, 0])).select_columns(["image", "label", "name"])
    assert [Examples(rows, ("a", "b"), "train").annotation(i) for i in range(2)] == [1, 0]


def test_the_same_object_twice_is_a_fault_only_within_one_image() -> None:
    rows = rows_of([0], [0])
    with pytest.raises(Fault, match="twice"):
        rows.object((0.0, 0.0, 1.0, 1.0), 0)
    rows.object((0.0, 0.0, 1.0, 1.0), 1)
    assert rows.image_of.tolist() == [0, 1, 1]


def test_a_box_that_vanishes_in_float32_is_outside() -> None:
    assert fit_box(-3, 2.5, 7, 100, (10, 20)) == (0, 2.5, 7, 10)
    with pytest.raises(Fault, match="outside"):
        fit_box(20 - 1e-9, 0, 25, 5, (10, 20))
