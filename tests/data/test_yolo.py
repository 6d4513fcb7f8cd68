"""YOLO's text files: layouts, names, boxes and outlines, and every fault listed by file and line while the rest is read."""

from pathlib import Path

import numpy as np
import pytest
from drawn import draw, objects, write

from convmix.data import rle
from convmix.data.examples import Source
from convmix.data.readers.annotated import open_annotated
from convmix.errors import DataError

NAMES = "names: [dog, cat]\n"


def one(root: Path, *lines: str, task: str = "auto") -> Source:
    draw(root / "images" / "a.png")
    write(root / "labels" / "a.txt", "\n".join(lines))
    write(root / "data.yaml", NAMES)
    source = open_annotated(root, task=task)
    assert source is not None
    return source


def test_shares_of_the_image_become_pixels(tmp_path: Path) -> None:
    source = one(tmp_path, "1 0.5 0.5 0.2 0.4", "", "0 0.5 0.5 1 1")
    found = objects(source, "all")
    assert (source.task, source.classes, source.dropped, found.size) == ("detect", ("dog", "cat"), [], (20, 30))
    assert np.allclose(found.boxes, [[12, 6, 18, 14], [0, 0, 30, 20]]) and found.labels.tolist() == [1, 0]


def test_polygons_become_masks_and_boxes_around_them(tmp_path: Path) -> None:
    source = one(tmp_path, "1 0.2 0.5 0.4 0.5 0.4 0.8 0.2 0.8")
    found = objects(source, "all")
    expected = np.zeros((20, 30), np.uint8)
    expected[10:16, 6:12] = 1
    assert source.task == "instances" and found.masks is not None
    assert np.allclose(found.boxes, [[6, 10, 12, 16]])
    assert np.array_equal(rle.decode(found.masks, found.size)[0], expected)
    only_boxes = open_annotated(tmp_path, task="detect")
    assert only_boxes is not None and objects(only_boxes, "all").masks is None


def test_boxes_among_polygons_make_it_boxes_unless_outlines_are_asked_for(tmp_path: Path) -> None:
    lines = ("1 0.2 0.5 0.4 0.5 0.4 0.8", "0 0.5 0.5 0.2 0.4")
    assert one(tmp_path, *lines).task == "detect"
    source = one(tmp_path, *lines, task="instances")
    assert objects(source, "all").crowd.tolist() == [False, True]  # neither learned from nor scored, and no background
    assert source.dropped == [("labels/a.txt:2", "a box without an outline")]


@pytest.mark.parametrize(("images", "labels"), [("images/{}", "labels/{}"), ("{}/images", "{}/labels")])
def test_both_orders_of_the_folders_are_found(tmp_path: Path, images: str, labels: str) -> None:
    for split in ("train", "valid"):
        draw(tmp_path / images.format(split) / "a.png")
        write(tmp_path / labels.format(split) / "a.txt", "0 0.5 0.5 0.2 0.4")
    write(tmp_path / "data.yaml", NAMES)
    for path in (tmp_path, tmp_path / "data.yaml"):
        source = open_annotated(path, task="auto")
        assert source is not None and {s: e.names for s, e in source.splits.items()} == {
            "train": [f"{images.format('train')}/a.png"],
            "val": [f"{images.format('valid')}/a.png"],
        }


@pytest.mark.parametrize(
    ("file", "text", "classes"),
    [
        ("data.yaml", "names:\n  0: dog\n  1: cat\n", ("dog", "cat")),
        ("data.yaml", "names: [dog, cat]\nnc: 2\n", ("dog", "cat")),
        ("classes.txt", "dog\ncat\n\n", ("dog", "cat")),
        ("obj.names", "dog\ncat\n", ("dog", "cat")),
        ("README.md", "", ("0", "1")),
    ],
)
def test_names_come_from_the_usual_files_or_are_numbers(tmp_path: Path, file: str, text: str, classes: tuple[str, ...]) -> None:
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.2 0.4")
    write(tmp_path / file, text)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.classes == classes and objects(source, "all").labels.tolist() == [1]


@pytest.mark.parametrize("text", ["names: [dog", "nc: 2\n", "names: dog\n", "names: {1: dog, 2: cat}\n", "names: []\n", "- dog\n"])
def test_a_file_of_names_that_holds_none_is_refused(tmp_path: Path, text: str) -> None:
    one(tmp_path, "0 0.5 0.5 0.2 0.4")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=r"data\.yaml: cannot be read as class names"):
        open_annotated(tmp_path, task="detect")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.2 0.4", "of class 2, expected 0 to 1"),
        ("-1 0.5 0.5 0.2 0.4", "of class -1"),
        ("0.5 0.5 0.5 0.2 0.4", "of class 0.5"),
        ("dog 0.5 0.5 0.2 0.4", "a class of 'dog'"),
        ("0 0.5 0.5 0.2", "4 numbers, expected class cx cy width height"),
        ("0 0.5 0.5 0.2 0.4 0.9", "6 numbers"),
        ("0 0.5 0.5 0.2 wide", "'wide', expected a number"),
        ("0 0.5 0.5 nan 0.4", "nan, expected a share"),
        ("0 15 10 6 8", "15, expected a share of the image in 0..1"),
        ("0 0.5 0.5 0 0.4", "without area"),
        ("0 0.5 0.5 -0.2 0.4", "negative size"),
        ("0 1.5 0.5 0.2 0.4", "outside the image"),
        ("1 0.5 0.5 0.2 0.4", "the same object twice"),
        ("1 0.2 0.5 0.4 0.5 0.3", "6 numbers"),
        ("1 0.2 0.5 0.4 0.5 0.3 0.5", "without area"),
    ],
)
def test_a_faulty_line_is_listed_by_its_number(tmp_path: Path, line: str, reason: str) -> None:
    source = one(tmp_path, "1 0.5 0.5 0.2 0.4", "", line)
    assert len(objects(source, "all")) == 1
    assert [name for name, _ in source.dropped] == ["labels/a.txt:3"]
    assert reason in source.dropped[0][1]


def test_a_box_that_overhangs_is_cut_to_the_image(tmp_path: Path) -> None:
    source = one(tmp_path, "0 0.9 0.9 0.4 0.4")
    assert np.allclose(objects(source, "all").boxes, [[21, 14, 30, 20]]) and source.dropped == []


def test_images_without_text_have_no_objects_and_other_strays_are_listed(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "b.png", seed=1)
    draw(tmp_path / "images" / "a.bmp", seed=2)
    write(tmp_path / "images" / "c.png", "no picture")
    write(tmp_path / "labels" / "c.txt", "0 0.5 0.5 0.2 0.4")
    write(tmp_path / "labels" / "gone.txt", "0 0.5 0.5 0.2 0.4")
    write(tmp_path / "labels" / "classes.txt", "dog\ncat\n")
    draw(tmp_path / "images" / "d.png", seed=3)
    (tmp_path / "labels" / "d.txt").write_bytes(b"0 \xff\xfe")
    source = one(tmp_path, "0 0.5 0.5 0.2 0.4")
    assert source.splits["all"].names == ["images/a.bmp", "images/b.png"]
    assert [len(objects(source, "all", i)) for i in range(2)] == [1, 0]
    dropped = dict(source.dropped)
    assert dropped.pop("labels/d.txt").endswith("its image is left out")
    assert dropped == {
        "images/a.png": "its text file is that of a.bmp too",
        "images/c.png": "not an image of a known format; its 1 annotations are left out",
        "labels/gone.txt": "no image of this name",
    }


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for split in ("val", "valid"):
        draw(tmp_path / split / "images" / "a.png")
        write(tmp_path / split / "labels" / "a.txt", "0 0.5 0.5 0.2 0.4")
    with pytest.raises(DataError, match="both look like the val split"):
        open_annotated(tmp_path, task="auto")
