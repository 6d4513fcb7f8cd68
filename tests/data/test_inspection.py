"""`convmix inspect`, its JSON, what other verbs say first, and what is refused before it is trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from laid_out import BOX, classes, photos, table, text

import convmix
from convmix.data.inspection import lines
from convmix.errors import DataError
from tests.command_line import Command

pytestmark = pytest.mark.usefixtures("own_cache")

KEYS = {"layout", "task", "classes", "images", "splits", "left_out", "notes", "train_command"}


def test_json_has_the_keys_that_others_build_on(tmp_path: Path, command: Command) -> None:
    classes(tmp_path)
    (tmp_path / "cat" / "paper.odt").write_bytes(b"no picture")
    done = command("inspect", tmp_path, "--format", "json")
    found = json.loads(done.out)
    assert done.code == 0 and found.keys() >= KEYS
    assert (found["layout"], found["task"], found["classes"], found["images"]) == ("folders", "classify", ["cat", "dog"], 6)
    assert found["splits"] == {"all": 6} and found["class_counts"] == {"all": {"cat": 3, "dog": 3}}
    assert found["left_out"] == [{"reason": "not an image by its extension .odt", "count": 1, "examples": ["cat/paper.odt"]}]
    assert (found["sizes"], found["modes"], found["sampled"]) == ({"32x24": 6}, {"RGB": 6}, 6)
    assert found["train_command"] == f"convmix train {tmp_path}"


def test_text_says_the_same_for_people(tmp_path: Path, command: Command) -> None:
    done = command("inspect", classes(tmp_path), "--layout", "folders")
    assert done.code == 0
    assert f"data      {tmp_path}: folders, task classify" in done.out
    assert "classes   2: cat, dog" in done.out and "all 6 (none given: training makes val and test)" in done.out
    assert f"train with: convmix train {tmp_path} --layout folders" in done.out


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path, command: Command) -> None:
    photos(tmp_path / "images")
    done = command("inspect", tmp_path)
    assert (done.code, done.out) == (2, "") and len(done.err.strip().splitlines()) == 1
    assert "which names no class" in done.err


def test_reasons_that_differ_in_names_and_numbers_are_one(tmp_path: Path) -> None:
    for path in photos(tmp_path / "images"):
        text(tmp_path / "labels" / f"{path.stem}.txt", f"0 {BOX}\n{int(path.stem) + 3} {BOX}\n")
    text(tmp_path / "classes.txt", "nut\n")
    [left_out] = convmix.inspect(tmp_path).left_out
    assert (left_out.count, len(left_out.examples)) == (4, 3) and re.fullmatch(r"of class \d, expected 0 to 0", left_out.reason)


def test_several_labels_are_columns_of_the_examples(tmp_path: Path) -> None:
    """-1 and nothing: nobody said whether the image has the label."""
    from convmix.config import Data
    from convmix.data.sources import open_source

    photos(tmp_path / "img", [f"{i}.jpg" for i in range(5)])
    rows = [("0.jpg", 1, 1), ("1.jpg", 0, 1), ("2.jpg", -1, 1), ("3.jpg", "", 0), ("4.jpg", 0, 0)]
    table(tmp_path / "t.csv", rows, header="image,scab,rust")
    source = open_source(tmp_path, Data())
    found = source.splits["all"].rows
    assert (source.task, source.classes) == ("multilabel", ("rust", "scab"))
    assert found["labels"][:] == [[0, 1], [0], [0], [], []]
    assert found["known"][:] == [[True, True], [True, True], [True, False], [True, False], [True, True]]
    assert found["label"][:] == [1, 0, 0, 0, 0]  # the rarest label, the commonest where there is none


def test_a_matrix_says_what_an_image_has_and_what_nobody_knows(tmp_path: Path) -> None:
    from convmix.config import Data
    from convmix.data.sources import open_source

    photos(tmp_path / "img", [f"{i}.jpg" for i in range(3)])
    table(tmp_path / "t.csv", [("0.jpg", 1, 0), ("1.jpg", -1, 1), ("2.jpg", 0, "")], header="image,scab,rust")
    examples = open_source(tmp_path, Data()).splits["all"]
    assert examples.label_matrix is not None
    assert examples.label_matrix.tolist() == [[0, 1], [1, -1], [-1, 0]]  # rust, scab
    assert examples.select([2, 0]).targets.tolist() == [[-1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: classes(root, ("cat",)), "one class, 'cat'"),
        (lambda root: classes(root, ("a", "b", "c"), n=1), "one image per class"),
        (lambda root: photos(root / "images"), "names no class"),
    ],
)
def test_training_is_refused_before_it_begins(tmp_path: Path, command: Command, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "set")
    done = command("train", tmp_path / "set", "--out", tmp_path / "run")
    assert done.code == 2 and said in done.err and not (tmp_path / "run").exists()


def test_doctor_says_first_how_the_data_is_read(tmp_path: Path, command: Command) -> None:
    classes(tmp_path / "set" / "data")
    done = command("doctor", tmp_path / "set", "--output", tmp_path / "page", "--workers", "0")
    assert done.code == 0
    assert done.out.splitlines()[0] == f"data      {tmp_path / 'set'}: folders, task classify, in {tmp_path / 'set' / 'data'}"
    assert "note      the class folders lie in data/" in done.out


def test_the_lines_name_what_is_left_out_with_examples(tmp_path: Path) -> None:
    for path in photos(tmp_path / "images"):
        text(tmp_path / "labels" / f"{path.stem}.txt", f"0 {BOX}\n7\n")
    said = lines(convmix.inspect(tmp_path))
    assert any(line.startswith("left out  4: ") and "labels/0.txt:2, labels/1.txt:2, labels/2.txt:2" in line for line in said)
    assert "per image 1 annotations in the middle, 1 to 1" in said


def test_a_table_of_quantities_is_no_data_of_classes(tmp_path: Path) -> None:
    photos(tmp_path / "faces", [f"{i}.jpg" for i in range(24)])
    table(tmp_path / "ages.csv", [(f"{i}.jpg", 20.5 + i // 2) for i in range(24)], header="image,age")
    with pytest.raises(DataError, match="a quantity and no classes"):
        convmix.inspect(tmp_path)
