"""What an annotated data set is taken for: never a classification folder, and never silently something else than was asked for."""

from pathlib import Path

import numpy as np
import pytest
from drawn import coco, draw, save_map, write

from convmix.data.readers.annotated import open_annotated
from convmix.errors import DataError


def class_folders(root: Path, *classes: str) -> None:
    for name in classes:
        draw(root / name / "1.png")
        draw(root / name / "2.png", seed=1)


@pytest.mark.parametrize(
    "classes",
    [
        ("cat", "dog"),
        ("train/cat", "train/dog", "val/cat", "val/dog"),
        ("face", "face_mask"),  # same names in both, but photographs
    ],
)
def test_class_folders_are_left_to_their_reader(tmp_path: Path, classes: tuple[str, ...]) -> None:
    class_folders(tmp_path, *classes)
    write(tmp_path / "classes.json", '{"cat": "a cat", "dog": "a dog"}')
    write(tmp_path / "data.json", '{"images": 4, "annotations": "none"}')
    write(tmp_path / "notes.json", "{broken")
    write(tmp_path / "notes.xml", "<notes/>")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    write(tmp_path / "data.yaml", "names: [cat, dog]\n")
    assert open_annotated(tmp_path, task="auto") is None


@pytest.mark.parametrize("classes", [("images", "labels"), ("train", "train_masks")])
def test_folders_called_like_masks_that_hold_photographs_are_refused(tmp_path: Path, classes: tuple[str, ...]) -> None:
    class_folders(tmp_path, *classes)
    with pytest.raises(DataError, match=f"{classes[1]}/ mirror the images but hold no class maps: 600 different values.*--layout folders"):
        open_annotated(tmp_path, task="auto")


def test_grey_photographs_are_no_class_maps(tmp_path: Path) -> None:
    class_folders(tmp_path, "face")
    for name in ("1", "2"):
        save_map(tmp_path / "face_mask" / f"{name}.png", np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8))
    assert open_annotated(tmp_path, task="auto") is None


def test_classes_in_a_coco_file_without_boxes_are_no_objects(tmp_path: Path) -> None:
    """As in iNaturalist: images in class folders, annotations that name a category alone."""
    class_folders(tmp_path, "cat", "dog")
    coco(tmp_path / "train.json", [{"id": 1, "file_name": "cat/1.png"}], [{"id": 1, "image_id": 1, "category_id": 1}])
    assert open_annotated(tmp_path, task="auto") is None


@pytest.mark.parametrize(
    ("task", "message"),
    [("detect", r"task detect; expected COCO"), ("instances", r"COCO with outlines"), ("segment", r"images/ \+ masks/")],
)
def test_a_named_task_says_what_was_expected(tmp_path: Path, task: str, message: str) -> None:
    class_folders(tmp_path, "cat", "dog")
    with pytest.raises(DataError, match=message):
        open_annotated(tmp_path, task=task)


def test_other_files_are_left_to_other_readers(tmp_path: Path) -> None:
    assert open_annotated(write(tmp_path / "list.csv", "path,label\na.png,cat\n"), task="auto") is None
    with pytest.raises(DataError, match=r"list\.csv: no data for the task detect"):
        open_annotated(tmp_path / "list.csv", task="detect")


def test_outlines_in_a_json_win_over_the_maps_beside_it(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "a.png")
    save_map(tmp_path / "train_masks" / "a.png", np.eye(20, 30, dtype=np.uint8))
    square = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    coco(tmp_path / "annotations" / "instances_train.json", [{"id": 1, "file_name": "a.png"}], [square])
    for task, taken in (("auto", "instances"), ("segment", "segment")):
        source = open_annotated(tmp_path, task=task)
        assert source is not None and source.task == taken


def test_a_relative_path_is_read_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "train" / "a.png")
    listed = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]
    coco(tmp_path / "train" / "_annotations.coco.json", [{"id": 1, "file_name": "a.png"}], listed)
    monkeypatch.chdir(tmp_path)
    source = open_annotated(Path("train"), task="auto")
    assert source is not None and {split: e.names for split, e in source.splits.items()} == {"all": ["a.png"]}
    assert Path(str(source.splits["all"].source(0))) == tmp_path / "train" / "a.png"


def test_a_split_without_usable_images_is_listed_and_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "train" / "a.png")
    write(tmp_path / "images" / "val" / "a.png", "no picture")
    for split in ("train", "val"):
        write(tmp_path / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.4")
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and list(source.splits) == ["train"]
    assert ("val", "none of its images can be used") in source.dropped


def test_names_that_are_not_utf8_can_be_read(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    draw(tmp_path / "images" / "b.png").rename(tmp_path / "images" / name)
    write(tmp_path / "labels" / f"{name[:-4]}.txt", "0 0.5 0.5 0.2 0.4\n9 0 0 0 0")
    source = open_annotated(tmp_path, task="detect")
    assert source is not None and source.splits["all"].names == ["images/caf\\xe9.png"]
    assert Path(str(source.splits["all"].source(0))).is_file()
    assert source.dropped[0][0] == "labels/caf\\xe9.txt:2"
