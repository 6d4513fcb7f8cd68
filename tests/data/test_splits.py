"""Made splits are stratified, seeded, disjoint and recorded; given ones stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convmix.config import Data
from convmix.data.examples import Examples, Source
from convmix.data.formats import image_rows
from convmix.data.splits import was_made, with_splits
from convmix.errors import DataError


def source(**counts: list[int]) -> Source:
    """Splits with so many examples per class."""
    classes = tuple(f"c{k}" for k in range(max(map(len, counts.values()))))
    splits = {}
    for split, per_class in counts.items():
        labels = [k for k, n in enumerate(per_class) for _ in range(n)]
        names = [f"{split}[{i}]" for i in range(len(labels))]
        rows = image_rows(encoded=[n.encode() for n in names]).add_column("label", labels).add_column("name", names)
        splits[split] = Examples(rows, classes, split)
    return Source(splits, classes, dict.fromkeys(splits, "given"))


def per_class(examples: Examples) -> list[int]:
    return np.bincount(examples.labels, minlength=len(examples.classes)).tolist()


def test_unsplit_images_become_three_stratified_splits() -> None:
    made = with_splits(source(all=[100, 50, 10]), Data(val_fraction=0.1, test_fraction=0.2, split_seed=3))
    assert {s: per_class(e) for s, e in made.splits.items()} == {"train": [70, 35, 7], "val": [10, 5, 1], "test": [20, 10, 2]}
    names = [n for e in made.splits.values() for n in e.names]
    assert sorted(names) == sorted(source(all=[100, 50, 10]).splits["all"].names)
    assert made.origin["test"] == "made: 0.2 of all images, stratified, seed 3"
    assert [e.split for e in made.splits.values()] == ["train", "val", "test"]
    assert all(was_made(made, s) for s in ("val", "test"))


def test_the_same_seed_gives_the_same_splits_and_another_seed_others() -> None:
    first, again, other = (with_splits(source(all=[40, 40]), Data(split_seed=seed)).splits["test"].names for seed in (1, 1, 2))
    assert first == again != other


def test_only_missing_splits_are_made() -> None:
    data = source(train=[30, 30], test=[5, 5])
    made = with_splits(data, Data())
    assert made.splits["test"] is data.splits["test"]
    assert made.origin == {"train": "given without those of val", "test": "given", "val": "made: 0.1 of train, stratified, seed 0"}
    assert not was_made(made, "test")


def test_a_given_val_stays_val_where_test_is_missing() -> None:
    data = source(train=[30, 30], val=[5, 5])
    made = with_splits(data, Data(test_fraction=0.1))
    assert made.splits["val"] is data.splits["val"]
    assert per_class(made.splits["test"]) == [3, 3]
    assert made.origin["test"].startswith("made: 0.1 of train")


def test_complete_data_is_left_alone() -> None:
    data = source(train=[3, 3], val=[1, 1], test=[1, 1])
    made = with_splits(data, Data())
    assert {s: e.names for s, e in made.splits.items()} == {s: e.names for s, e in data.splits.items()}
    assert made.origin == dict.fromkeys(("train", "val", "test"), "given")


def test_fraction_zero_makes_no_such_split() -> None:
    made = with_splits(source(all=[20, 20]), Data(val_fraction=0.1, test_fraction=0))
    assert set(made.splits) == {"train", "val"}
    assert set(with_splits(source(all=[1, 1]), Data(val_fraction=0, test_fraction=0)).splits) == {"train"}


def test_classes_of_one_or_two_images_stay_in_train() -> None:
    made = with_splits(source(all=[100, 1, 2]), Data())
    assert per_class(made.splits["train"])[1:] == [1, 2]
    assert made.origin["val"].endswith("; 2 classes with fewer than 3 images stay in train")


def test_many_small_classes_still_give_the_whole_fraction() -> None:
    made = with_splits(source(all=[4] * 100), Data())
    assert {s: len(e) for s, e in made.splits.items()} == {"train": 320, "val": 40, "test": 40}


def test_nothing_to_hold_out_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"4 images in 3 classes are too few .* set data\.\w+_fraction to 0"):
        with_splits(source(all=[1, 2, 1]), Data())


def test_test_images_alone_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match="only the test split"):
        with_splits(source(test=[5, 5]), Data())


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    val=st.floats(0.01, 0.5, exclude_max=True),
    test=st.floats(0.01, 0.49),
    seed=st.integers(0, 99),
)
def test_every_image_lands_once_and_every_class_keeps_one_for_training(counts: list[int], val: float, test: float, seed: int) -> None:
    data = source(all=counts)
    try:
        made = with_splits(data, Data(val_fraction=val, test_fraction=test, split_seed=seed))
    except DataError:
        assert sum(n - 1 for n in counts if n >= 3) <= sum(counts) // 2 + 2  # tiny data only
        return
    assert sorted(n for e in made.splits.values() for n in e.names) == sorted(data.splits["all"].names)
    assert min(per_class(made.splits["train"])) >= 1
    assert all(len(e) for e in made.splits.values())


def test_fewer_training_images_are_stratified_and_leave_the_other_splits_alone() -> None:
    data = source(all=[100, 50, 10])
    whole = with_splits(data, Data(split_seed=3))
    some = with_splits(data, Data(split_seed=3, train_images=32))
    assert per_class(some.splits["train"]) == [20, 10, 2]
    assert set(some.splits["train"].names) < set(whole.splits["train"].names)
    assert [some.splits[s].names for s in ("val", "test")] == [whole.splits[s].names for s in ("val", "test")]
    assert some.origin["train"].endswith("; 32 of 128, stratified, seed 3")
    fewer, again = (with_splits(data, Data(split_seed=3, train_images=n)).splits["train"].names for n in (16, 32))
    assert set(fewer) < set(again) and again == some.splits["train"].names
    assert with_splits(data, Data(train_images=128)).splits["train"].names == with_splits(data, Data()).splits["train"].names


def test_too_few_training_images_name_the_class_that_would_be_empty() -> None:
    with pytest.raises(DataError, match="10 of 112 training images leave none of c2; give more"):
        with_splits(source(train=[100, 10, 2]), Data(train_images=10, val_fraction=0, test_fraction=0))
