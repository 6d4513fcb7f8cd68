"""Folders of images beside folders of maps: the usual layouts are found, what does not fit is listed."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import draw, objects, save_map, unpacked, write

from convmix.data import rle
from convmix.data.readers.annotated import open_annotated
from convmix.data.readers.pixelmaps import read_regions
from convmix.data.targets import IGNORE, Regions
from convmix.errors import DataError

MAP = np.zeros((20, 30), np.uint8)
MAP[:, :10], MAP[0, 0] = 2, 255
NAMES = json.dumps({"names": ["sky", "road", "car", "void"], "ignore_index": 3})


def pair(image: Path, path: Path, values: np.ndarray = MAP) -> None:
    draw(image)
    save_map(path, values)


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        ("images/{}/a.jpg", "masks/{}/a.png"),
        ("images/{}/a.jpg", "annotations/{}/a.png"),
        ("images/{}/a.jpg", "labels/{}/a.png"),
        ("{}/images/a.jpg", "{}/masks/a.png"),
        ("{}/a.jpg", "{}annot/a.png"),
        ("{}/a.jpg", "{}_masks/a.png"),
        ("{}/a.jpg", "{}_labels/a_L.png"),
    ],
)
@pytest.mark.parametrize("words", [("train", "val"), ("training", "validation")])
def test_the_usual_layouts_are_found(tmp_path: Path, images: str, maps: str, words: tuple[str, str]) -> None:
    for word in words:
        pair(tmp_path / images.format(word), tmp_path / maps.format(word))
    write(tmp_path / "classes.json", NAMES)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and (source.task, source.classes, source.dropped) == ("segment", ("sky", "road", "car"), [])
    for split, word in zip(("train", "val"), words, strict=True):
        examples = source.splits[split]
        assert examples.names == [images.format(word)] and examples.labels.tolist() == [0]
        found = examples.annotation(0)
        assert isinstance(found, Regions) and found.path == str(tmp_path / maps.format(word))
        assert np.array_equal(read_regions(found), MAP)


@pytest.mark.parametrize(("images", "maps"), [("images", "masks"), ("photos", "photos_masks")])
def test_folders_without_splits_are_one(tmp_path: Path, images: str, maps: str) -> None:
    pair(tmp_path / images / "a.jpg", tmp_path / maps / "a.png")
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and list(source.splits) == ["all"]
    assert source.classes == ("class_0", "class_2")
    found = source.splits["all"].annotation(0)
    assert isinstance(found, Regions) and set(np.unique(read_regions(found))) == {0, 1, IGNORE}


def test_coloured_maps_are_read_with_their_palette(tmp_path: Path) -> None:
    write(tmp_path / "class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,0,0,9\ncar,200,0,0\n")
    pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png", np.eye(3, dtype=np.uint8)[MAP % 3] * np.uint8([0, 0, 9]))
    source = open_annotated(tmp_path, task="auto")
    assert source is not None
    found = source.splits["all"].select([0]).annotation(0)
    assert isinstance(found, Regions) and np.array_equal(read_regions(found), (MAP == 2) * 1)


def test_numbers_beside_a_palette_are_read_as_numbers(tmp_path: Path) -> None:
    write(tmp_path / "class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,0,0,9\ncar,200,0,0\n")
    pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png")
    source = open_annotated(tmp_path, task="auto")
    assert source is not None
    found = source.splits["all"].annotation(0)
    assert isinstance(found, Regions) and np.array_equal(read_regions(found), MAP)


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "classes.json", NAMES)
    for name in ("a", "b", "c", "d"):
        pair(tmp_path / "images" / f"{name}.jpg", tmp_path / "masks" / f"{name}.png")
    save_map(tmp_path / "masks" / "b.png", MAP.T)
    write(tmp_path / "masks" / "c.png", "no picture")
    write(tmp_path / "images" / "d.jpg", "no picture")
    draw(tmp_path / "images" / "e.jpg")
    save_map(tmp_path / "masks" / "f.png", MAP)
    source = open_annotated(tmp_path, task="segment")
    assert source is not None and source.splits["all"].names == ["images/a.jpg"]
    assert sorted(source.dropped) == [
        ("images/b.jpg", "its map b.png is 20x30, the image 30x20"),
        ("images/c.jpg", "its map c.png: not an image of a known format"),
        ("images/d.jpg", "not an image of a known format"),
        ("images/e.jpg", "an image without map"),
        ("masks/f.png", "a map without image"),
    ]


def test_maps_of_0_and_255_are_two_classes_with_or_without_names(tmp_path: Path) -> None:
    values = np.where(MAP == 2, 255, 0).astype(np.uint8)
    pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png", values)
    for names in (None, '{"0": "background", "255": "object"}'):
        if names:
            write(tmp_path / "classes.json", names)
        source = open_annotated(tmp_path, task="segment")
        assert source is not None and source.classes == (("background", "object") if names else ("class_0", "class_255"))
        assert any("255 is read as a class" in note for note in source.notes) is (names is None)
        found = source.splits["all"].annotation(0)
        assert isinstance(found, Regions) and np.array_equal(read_regions(found), values // 255)


def test_maps_of_one_value_are_refused_with_a_way_out(tmp_path: Path) -> None:
    pair(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png", MAP * 0)
    with pytest.raises(DataError, match=r"hold the values 0; expected two or more classes.*classes\.json"):
        open_annotated(tmp_path, task="segment")


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for word in ("val", "valid"):
        pair(tmp_path / word / "a.jpg", tmp_path / f"{word}_masks" / "a.png")
    with pytest.raises(DataError, match="both look like the val split"):
        open_annotated(tmp_path, task="segment")


@pytest.mark.parametrize(("names", "classes"), [(None, ("object",)), ("nucleus\n", ("nucleus",))])
def test_object_maps_are_read_where_instances_are_asked_for(tmp_path: Path, names: str | None, classes: tuple[str, ...]) -> None:
    values = np.zeros((20, 30), np.uint16)
    values[2:5, 3:9], values[10:, 20:] = 7, 900
    pair(tmp_path / "train" / "a.jpg", tmp_path / "train_masks" / "a.png", values)
    pair(tmp_path / "train" / "b.jpg", tmp_path / "train_masks" / "b.png", values * 0)
    pair(tmp_path / "train" / "c.jpg", tmp_path / "train_masks" / "c.png", values.T)
    if names:
        write(tmp_path / "classes.txt", names)
    source = open_annotated(tmp_path, task="instances")
    assert source is not None and (source.task, source.classes) == ("instances", classes)
    found = objects(source, "train")
    assert found.boxes.tolist() == [[3, 2, 9, 5], [20, 10, 30, 20]] and found.labels.tolist() == [0, 0]
    assert found.masks and np.array_equal(rle.decode(found.masks, found.size), [values == 7, values == 900])
    assert len(objects(source, "train", 1)) == 0
    assert source.dropped == [("train/c.jpg", "the object map is 20x30, the image 30x20")]


def test_several_names_are_those_of_class_maps(tmp_path: Path) -> None:
    pair(tmp_path / "train" / "a.jpg", tmp_path / "train_masks" / "a.png")
    write(tmp_path / "classes.txt", "sky\nroad\ncar\n")
    with pytest.raises(DataError, match="class maps are for the task segment"):
        open_annotated(tmp_path, task="instances")


@pytest.mark.slow
def test_camvid(shared: Path, tmp_path: Path) -> None:
    source = open_annotated(unpacked(shared / "data" / "camvid.tar.gz", tmp_path), task="auto")
    assert source is not None and (source.task, len(source.classes), source.dropped) == ("segment", 11, [])
    assert {split: len(e) for split, e in source.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert source.classes[0] == "Sky" and source.classes[-1] == "Bicyclist"
    found = source.splits["train"].annotation(0)
    assert isinstance(found, Regions) and found.classes[11] == IGNORE
    read = read_regions(found)
    assert read.shape == (360, 480) and set(np.unique(read)) <= {*range(11), IGNORE}
