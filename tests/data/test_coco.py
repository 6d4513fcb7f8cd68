"""COCO JSON: its usual layouts are found, and every fault is listed by file and id while the rest is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import coco, draw, objects, unpacked, write

from convmix.data import rle
from convmix.data.readers.annotated import open_annotated
from convmix.errors import DataError

SQUARE = [[2, 3, 12, 3, 12, 9, 2, 9]]
IMAGE = {"id": 7, "file_name": "a.png", "height": 20, "width": 30}


def annotation(**changes: Any) -> dict[str, Any]:
    """A good one with `changes`; None takes a field away."""
    whole = {"id": 17, "image_id": 7, "category_id": 1, "bbox": [2, 3, 10, 6], "iscrowd": 0, "segmentation": SQUARE, **changes}
    return {key: value for key, value in whole.items() if value is not None}


def one(folder: Path, *annotations: Any, image: dict[str, Any] | None = None, task: str = "auto") -> Any:
    draw(folder / "a.png")
    return open_annotated(coco(folder / "list.json", [image or IMAGE], list(annotations)), task=task)


def test_boxes_become_edges_classes_follow_their_ids_and_outlines_are_masks(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(), annotation(id=18, category_id=3, iscrowd=1))
    found = objects(source, "all")
    assert (source.task, source.classes, source.dropped) == ("instances", ("dog", "cat"), [])
    assert found.boxes.dtype == np.float32 and found.boxes.tolist() == [[2, 3, 12, 9]] * 2
    assert found.labels.dtype == np.int64 and found.labels.tolist() == [0, 1]
    assert found.crowd.tolist() == [False, True]
    expected = np.zeros((20, 30), np.uint8)
    expected[3:9, 2:12] = 1
    assert found.masks and np.array_equal(rle.decode(found.masks, found.size)[0], expected)


@pytest.mark.parametrize(("task", "has_masks"), [("auto", True), ("instances", True), ("detect", False)])
def test_the_task_decides_whether_outlines_are_read(tmp_path: Path, task: str, has_masks: bool) -> None:
    source = one(tmp_path, annotation(), task=task)
    assert (objects(source, "all").masks is not None) is has_masks
    assert source.task == ("instances" if has_masks else "detect")


def test_without_outlines_boxes_are_what_is_learned(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(), annotation(id=18, segmentation=[], bbox=[0, 0, 5, 5]))
    assert source.task == "detect" and len(objects(source, "all")) == 2


def test_asked_for_instances_objects_without_outline_are_dropped(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(), annotation(id=18, segmentation=[], bbox=[0, 0, 9, 9]), task="instances")
    assert objects(source, "all").crowd.tolist() == [False, True]  # neither learned from nor scored, and no background
    assert source.dropped == [("list.json: annotation 18", "without an outline (segmentation)")]


def test_an_outline_without_box_gets_the_box_around_it(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(bbox=None), task="detect")
    assert objects(source, "all").boxes.tolist() == [[2, 3, 12, 9]]


@pytest.mark.parametrize("text", [False, True])
def test_run_lengths_are_read_packed_or_not(tmp_path: Path, text: bool) -> None:
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 4:8, 5:9] = True
    counts: Any = rle.encode(mask)[0].decode()
    if not text:
        edges = np.flatnonzero(np.diff(np.r_[0, mask[0].T.ravel(), 0]))
        counts = np.diff(np.r_[0, edges, mask.size]).tolist()
    source = one(tmp_path, annotation(segmentation={"size": [20, 30], "counts": counts}))
    assert np.array_equal(rle.decode(objects(source, "all").masks or (), (20, 30)), mask)


def test_a_box_that_overhangs_is_cut_to_the_image(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(bbox=[-5, 10, 100, 50], segmentation=None))
    assert objects(source, "all").boxes.tolist() == [[0, 10, 30, 20]] and source.dropped == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [30, 3, 10, 6]}, "outside the image of 30x20"),
        ({"bbox": [2, 3, 0, 6]}, "without area, 0x6"),
        ({"bbox": [2, 3, 10, -6]}, "negative size, 10x-6"),
        ({"bbox": [2, float("nan"), 10, 6]}, "finite"),
        ({"bbox": [2, 3, float("inf"), 6]}, "finite"),
        ({"bbox": [2, 3, 10]}, "expected x, y, width, height"),
        ({"bbox": [2, 3, 10, "wide"]}, "wide, expected numbers"),
        ({"bbox": None, "segmentation": None}, "without an outline"),
        ({"category_id": 9}, "of category 9, which is not listed"),
        ({"category_id": None}, "without category_id"),
        ({"category_id": [1]}, "which is not listed"),
        ({"image_id": 8}, "of image 8, which is not listed"),
        ({"image_id": None}, "without image_id"),
        ({"segmentation": [[2, 3, 12, 9]]}, "at least 3 points"),
        ({"segmentation": [[100, 100, 120, 100, 120, 120]]}, "without area inside the image"),
        ({"segmentation": {"size": [30, 20], "counts": [600]}}, "height, width"),
        ({"segmentation": {"size": [20, 30], "counts": [500]}}, "500 pixels"),
        ({"segmentation": "polygon"}, "expected a list of polygons"),
        ({"segmentation": 3}, "expected a list of polygons"),
        ({}, "the same object twice"),
    ],
)
def test_a_faulty_annotation_is_listed_by_its_id_and_the_others_are_read(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    source = one(tmp_path, annotation(id=1), annotation(**changes), task="instances")
    assert len(objects(source, "all")) == 1
    assert [name for name, _ in source.dropped] == ["list.json: annotation 17"]
    assert reason in source.dropped[0][1]


def test_an_annotation_that_is_no_annotation_is_listed_by_its_place(tmp_path: Path) -> None:
    source = one(tmp_path, annotation(), "nonsense", None)
    assert [name for name, _ in source.dropped] == ["list.json: annotation at index 1", "list.json: annotation at index 2"]


def test_images_without_objects_stay_at_any_position(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png", "3.png"]
    images = [{"id": i, "file_name": draw(tmp_path / name, seed=i).name} for i, name in enumerate(names)]
    source = open_annotated(coco(tmp_path / "list.json", images, [annotation(image_id=1), annotation(image_id=2)]), task="auto")
    assert source is not None and source.splits["all"].names == names
    assert [len(objects(source, "all", i)) for i in range(4)] == [0, 1, 1, 0]
    empty = objects(source, "all", 3)
    assert empty.boxes.shape == (0, 4) and empty.boxes.dtype == np.float32 and empty.masks == () and empty.size == (20, 30)
    assert len(objects(source, "all", 0)) == len(source.splits["all"].select([3]).annotation(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"id": 8, "file_name": "gone.png"}, "no such file: gone.png; its 1 annotations are left out"),
        ({"id": 8, "file_name": "broken.png"}, "not an image of a known format; its 1 annotations are left out"),
        ({"id": 8, "file_name": "b.png", "height": 30, "width": 20}, "annotated at 20x30, the upright image is 30x20; its 1"),
        ({"id": 8, "file_name": "a.png"}, "the same file as image 7"),
        ({"id": 8, "file_name": "x" * 300}, "no such file"),
    ],
)
def test_an_image_that_cannot_be_used_takes_its_annotations_with_it(tmp_path: Path, image: dict[str, Any], reason: str) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    write(tmp_path / "broken.png", "no picture")
    listed = [IMAGE, image]
    source = open_annotated(coco(tmp_path / "list.json", listed, [annotation(), annotation(id=18, image_id=8)]), task="auto")
    assert source is not None and source.splits["all"].names == ["a.png"]
    assert source.dropped[0][0] == "list.json: image 8" and source.dropped[0][1].startswith(reason)


@pytest.mark.parametrize("image", ["nonsense", {"id": 8}, {"file_name": "a.png"}, {"id": 7, "file_name": "a.png"}])
def test_an_entry_that_is_no_image_is_listed_by_its_place(tmp_path: Path, image: Any) -> None:
    draw(tmp_path / "a.png")
    source = open_annotated(coco(tmp_path / "list.json", [IMAGE, image], [annotation()]), task="auto")
    assert source is not None and [name for name, _ in source.dropped] == ["list.json: image at index 1"]


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("annotations/instances_{}2017.json", "{}2017/a.png"),
        ("annotations/instances_{}.json", "{}/a.png"),
        ("{}/_annotations.coco.json", "{}/a.png"),
        ("{}.json", "images/{}/a.png"),
        ("{}.json", "images/a_{}.png"),
        ("annotations/{}.json", "images/a_{}.png"),
    ],
)
def test_the_usual_layouts_are_found(tmp_path: Path, file: str, image: str) -> None:
    for seed, split in enumerate(("train", "val")):
        picture = draw(tmp_path / image.format(split), seed=seed)
        coco(tmp_path / file.format(split), [{"id": 7, "file_name": picture.name}], [annotation()])
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.dropped == []
    assert {split: e.names for split, e in source.splits.items()} == {s: [image.format(s)] for s in ("train", "val")}
    assert Path(str(source.splits["val"].source(0))) == tmp_path / image.format("val")


@pytest.mark.parametrize("written", ["sub/a.png", "sub\\a.png", "/somewhere/else/sub/a.png", "C:\\data\\a.png"])
def test_paths_of_another_machine_are_found_by_their_name(tmp_path: Path, written: str) -> None:
    draw(tmp_path / ("sub/a.png" if written.startswith("sub") else "a.png"))
    source = open_annotated(coco(tmp_path / "list.json", [{"id": 7, "file_name": written}], [annotation()]), task="auto")
    assert source is not None and len(objects(source, "all")) == 1


def test_objects_of_classes_that_training_does_not_have_are_dropped(tmp_path: Path) -> None:
    for split, categories in (("train", [{"id": 1, "name": "dog"}]), ("val", [{"id": 5, "name": "dog"}, {"id": 1, "name": "dogs"}])):
        picture = draw(tmp_path / split / "a.png")
        mine = [annotation(id=c["id"], category_id=c["id"]) for c in categories]
        coco(tmp_path / f"{split}.json", [{"id": 7, "file_name": picture.name}], mine, categories)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.classes == ("dog",)
    assert objects(source, "val").labels.tolist() == [0]
    assert source.dropped == [("val.json: annotation 1", "of category 'dogs', which the training images do not have, did you mean dog?")]


def test_a_heading_over_the_categories_is_no_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "dog", "supercategory": "pets"}]
    categories.append({"id": 2, "name": "person", "supercategory": "person"})  # without objects, yet no heading
    draw(tmp_path / "a.png")
    source = open_annotated(coco(tmp_path / "list.json", [IMAGE], [annotation()], categories), task="auto")
    assert source is not None and source.classes == ("dog", "person")


@pytest.mark.parametrize("task", ["auto", "detect"])
def test_broken_json_is_named_with_its_line(tmp_path: Path, task: str) -> None:
    write(tmp_path / "train.json", '{"images": [],\n "annotations": [\n {"id": 1,}]}')
    with pytest.raises(DataError, match=r"train\.json:3: is broken JSON"):
        open_annotated(tmp_path, task=task)


@pytest.mark.parametrize("categories", [{}, [{"id": 1}], [{"name": "dog"}], ["dog"]])
def test_categories_without_id_or_name_are_refused(tmp_path: Path, categories: Any) -> None:
    draw(tmp_path / "a.png")
    file = write(tmp_path / "l.json", json.dumps({"images": [IMAGE], "annotations": [annotation()], "categories": categories}))
    with pytest.raises(DataError, match="categories"):
        open_annotated(file, task="detect")


def test_two_files_for_one_split_are_refused_and_one_for_none_is_listed(tmp_path: Path) -> None:
    for name in ("train.json", "other.json"):
        draw(tmp_path / "train" / "a.png")
        coco(tmp_path / name, [IMAGE], [annotation()])
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.dropped == [("other.json", "its name tells no split")]
    coco(tmp_path / "training.json", [IMAGE], [annotation()])
    with pytest.raises(DataError, match=r"train\.json and .*training\.json both describe the train split"):
        open_annotated(tmp_path, task="auto")


def test_images_that_are_nowhere_are_an_error_that_says_where_they_were_looked_for(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "b.png")
    coco(tmp_path / "list.json", [IMAGE], [annotation()])
    with pytest.raises(DataError, match=r"none of its 1 images is in .*images/"):
        open_annotated(tmp_path, task="auto")


def test_only_faulty_annotations_are_an_error_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no object can be used: list.json: annotation 17: of category 9"):
        one(tmp_path, annotation(category_id=9))


def test_nuclei(shared: Path, tmp_path: Path) -> None:
    source = open_annotated(unpacked(shared / "data" / "nuclei_coco.tar.gz", tmp_path), task="auto")
    assert source is not None and (source.task, source.classes, source.dropped) == ("instances", ("nucleus",), [])
    assert {split: len(e) for split, e in source.splits.items()} == {"train": 88, "val": 22}
    counts = {split: sum(len(objects(source, split, i)) for i in range(len(e))) for split, e in source.splits.items()}
    assert counts == {"train": 2775, "val": 760}
    found = objects(source, "train")
    assert found.masks and len(found.masks) == len(found)
    off = np.abs(rle.boxes(found.masks, found.size) - found.boxes)
    assert np.median(off) <= 1 and off.max() <= 3  # its polygons run through the corners of pixels and cut some off
