"""Annotations of more tools, and masks as well-known data sets have them: the pixels, splits and classes are the right ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import objects
from laid_out import BOX, coco, labelme, listed, mask, photos, picture, text, voc_xml
from layout_cases import Case, Cases
from test_layouts import run

from convmix.config import Data
from convmix.data import rle
from convmix.data.examples import Source
from convmix.data.readers.annotated import open_annotated

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()
NAMES = ["0.jpg", "1.jpg"]


def opened(root: Path, task: str = "auto") -> Source:
    source = open_annotated(root, task=task, data=Data())
    assert source is not None
    return source


# VIA, CreateML, KITTI, DOTA, BDD100K


def via(shape: dict[str, Any], attributes: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        f"{name}99": {
            "filename": name,
            "size": 99,
            "file_attributes": {},
            "regions": [{"shape_attributes": shape, "region_attributes": attributes}],
        }
    }


RECT = {"name": "rect", "x": 4, "y": 5, "width": 16, "height": 11}
POLYGON = {"name": "polygon", "all_points_x": [4, 20, 20, 4], "all_points_y": [4, 4, 16, 16]}


def test_via_polygons_are_where_they_were_drawn(tmp_path: Path) -> None:
    for split, n in (("train", 2), ("val", 1)):
        photos(tmp_path / split, NAMES[:n])
        entries = [via(POLYGON, {"part": ("nut", "bolt")[i], "seen": ""}, NAMES[i]) for i in range(n)]
        text(tmp_path / split / "via_region_data.json", json.dumps({k: v for entry in entries for k, v in entry.items()}))
    source = opened(tmp_path)
    assert (source.task, source.classes, {s: len(e) for s, e in source.splits.items()}) == (
        "instances",
        ("bolt", "nut"),
        {"train": 2, "val": 1},
    )
    found = objects(source, "train")
    assert found.boxes.tolist() == [[4, 4, 20, 16]] and found.labels.tolist() == [1]
    assert rle.areas(found.masks or (), found.size).tolist() == [16 * 12]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, [4, 5, 20, 16]),
        ({"name": "circle", "cx": 16, "cy": 12, "r": 4}, [12, 8, 20, 16]),
        ({"name": "ellipse", "cx": 16, "cy": 12, "rx": 8, "ry": 2, "theta": math.pi / 2}, [14, 4, 18, 20]),
    ],
)
def test_a_via_project_and_its_csv_say_the_same(tmp_path: Path, shape: dict[str, Any], box: list[int]) -> None:
    for form in ("json", "csv"):
        root = tmp_path / form
        photos(root / "images", NAMES)
        entries = {k: v for name in NAMES for k, v in via(shape, {"kind": {"nut": True, "bolt": False}}, name).items()}
        project = {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}}
        rows = "".join(f'{n},99,{{}},1,0,"{_quoted(shape)}","{_quoted({"kind": {"nut": True}})}"\n' for n in NAMES)
        header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
        text(root / f"via.{form}", json.dumps(project) if form == "json" else header + rows)
        source = opened(root, "detect")
        assert source.layout == "via" and source.classes == ("nut",) and np.allclose(objects(source, "all").boxes, [box], atol=1e-3)


def _quoted(value: object) -> str:
    return json.dumps(value).replace('"', '""')


def test_via_regions_of_several_attributes_need_one_that_is_a_class(tmp_path: Path) -> None:
    from convmix.errors import DataError

    photos(tmp_path, NAMES)
    text(tmp_path / "via.json", json.dumps(via(RECT, {"colour": "red", "age": "3"}, "0.jpg")))
    with pytest.raises(DataError, match="have the attributes age, colour, and none is called class"):
        opened(tmp_path)
    text(tmp_path / "via.json", json.dumps(via(RECT, {"colour": "red", "type": "nut"}, "0.jpg")))
    assert opened(tmp_path).classes == ("nut",)


def test_createml_counts_from_the_centre(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        photos(tmp_path / split, NAMES)
        one = {"label": "nut", "coordinates": {"x": 12, "y": 10.5, "width": 16, "height": 11}}
        text(tmp_path / split / "_annotations.createml.json", json.dumps([{"image": name, "annotations": [one]} for name in NAMES]))
    source = opened(tmp_path)
    assert (source.layout, source.task, list(source.splits)) == ("createml", "detect", ["train", "val"])
    assert objects(source, "val", 1).boxes.tolist() == [[4, 5, 20, 16]] and source.dropped == []


KITTI = "{} 0.00 0 -1.58 4.0 5.0 20.0 16.0 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"


def test_kitti_labels_belong_to_the_left_camera(tmp_path: Path) -> None:
    for i, name in enumerate(("Car", "Pedestrian")):
        for camera in ("image_2", "image_3"):
            picture(tmp_path / "training" / camera / f"00000{i}.png")
        text(tmp_path / "training" / "label_2" / f"00000{i}.txt", KITTI.format(name) + KITTI.format("DontCare"))
    picture(tmp_path / "testing" / "image_2" / "000000.png")
    source = opened(tmp_path)
    assert (source.layout, source.classes, {s: len(e) for s, e in source.splits.items()}) == ("kitti", ("Car", "Pedestrian"), {"train": 2})
    assert source.splits["train"].name(0) == "training/image_2/000000.png"
    assert objects(source, "train").boxes.tolist() == [[4, 5, 20, 16]]
    assert "2 regions called DontCare are left out" in source.notes


def test_dota_boxes_are_the_ones_around_the_corners(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "images" / f"P{split}.png")
        lines = "imagesource:GoogleEarth\ngsd:0.15\n10 4 16 10 10 16 4 10 ship 0\n20 4 28 4 28 8 20 8 plane 1\n"
        text(tmp_path / split / "labelTxt-v1.0" / f"P{split}.txt", lines)
    source = opened(tmp_path)
    found = objects(source, "val")
    assert (source.layout, source.task, source.classes) == ("dota", "detect", ("plane", "ship"))
    assert found.boxes.tolist() == [[4, 4, 16, 16], [20, 4, 28, 8]] and found.crowd.tolist() == [False, True]
    assert any("--task instances reads their outlines" in note for note in source.notes)
    outlined = objects(opened(tmp_path, "instances"), "val")
    assert rle.areas(outlined.masks or (), outlined.size)[0] == pytest.approx(72, abs=8)


@pytest.mark.parametrize("whole", [True, False])
def test_bdd100k_as_one_file_or_one_an_image(tmp_path: Path, whole: bool) -> None:
    labels = [{"category": "car", "box2d": {"x1": 4, "y1": 5, "x2": 20, "y2": 16}}, {"category": "lane", "poly2d": [[0, 0], [1, 1]]}]
    for split in ("train", "val"):
        photos(tmp_path / "images" / "100k" / split, [f"{split}0.jpg"])
        if whole:
            text(tmp_path / "labels" / f"bdd100k_labels_images_{split}.json", json.dumps([{"name": f"{split}0.jpg", "labels": labels}]))
        else:
            text(tmp_path / "labels" / split / f"{split}0.json", json.dumps({"name": f"{split}0", "frames": [{"objects": labels}]}))
    source = opened(tmp_path)
    assert (source.layout, source.classes, list(source.splits)) == ("bdd100k", ("car",), ["train", "val"])
    assert objects(source, "val").boxes.tolist() == [[4, 5, 20, 16]]
    assert [reason for _, reason in source.dropped] == ["an object without box2d: a lane or an area"] * 2


# Others


def test_boxes_of_rolabelimg_are_the_ones_around_them(tmp_path: Path) -> None:
    box = f"<robndbox><cx>16</cx><cy>12</cy><w>8</w><h>4</h><angle>{math.pi / 2}</angle></robndbox>"
    for path in photos(tmp_path, NAMES):
        text(path.with_suffix(".xml"), f"<annotation><object><name>ship</name>{box}</object></annotation>")
    source = opened(tmp_path)
    assert np.allclose(objects(source, "all").boxes, [[14, 8, 18, 16]], atol=1e-4) and "2 oriented boxes" in source.notes[0]


def test_coco_in_shares_of_the_image(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    photos(tmp_path, names)
    one = {"category_id": 1, "bbox": [0.125, 0.25, 0.5, 0.25], "segmentation": [[0.125, 0.25, 0.625, 0.25, 0.625, 0.5, 0.125, 0.5]]}
    text(tmp_path / "all.json", coco(listed(names), [{"id": i, "image_id": i + 1, **one} for i in range(5)]))
    source = opened(tmp_path)
    found = objects(source, "all")
    assert found.boxes.tolist() == [[4, 6, 20, 12]] and rle.areas(found.masks or (), found.size).tolist() == [96]
    assert any("shares of the image" in note for note in source.notes)


@case(layout="coco", images=4, left_out=0)
def lvis_names_images_by_their_url(root: Path) -> None:
    photos(root / "train2017")
    images = [{"id": i, "coco_url": f"http://images.cocodataset.org/train2017/{i}.jpg"} for i in range(4)]
    text(root / "lvis_v1_train.json", coco(images))


@case(layout="coco", images=4, give="annotations")
def the_folder_of_annotations_beside_the_images(root: Path) -> None:
    photos(root / "images")
    text(root / "annotations" / "all.json", coco(listed(["0.jpg", "1.jpg", "2.jpg", "3.jpg"])))


@case(layout="coco", task="classify", splits={"train": 4, "val": 2}, classes=["bolt", "nut"])
def inaturalist_with_a_file_a_split(root: Path) -> None:
    photos(root / "images", [f"{i}.jpg" for i in range(6)])
    for split, ids in (("train", range(4)), ("val", range(4, 6))):
        images = [{"id": i, "file_name": f"images/{i}.jpg"} for i in ids]
        text(root / f"{split}.json", coco(images, [{"id": i, "image_id": i, "category_id": 1 + i % 2} for i in ids]))


@case(layout="yolo", annotations_per_image={"least": 1.0, "median": 1.0, "most": 1.0})
def labels_called_like_the_whole_image(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.name}.txt", f"0 {BOX}\n")


@case(layout="voc", images=4, left_out=0)
def an_xml_of_another_name_names_its_image(root: Path) -> None:
    for i, path in enumerate(photos(root / "images")):
        text(root / "annotations" / f"ann{i + 7:03d}.xml", voc_xml().replace("<size>", f"<filename>C:\\x\\{path.name}</filename><size>"))


@case(error="the classes 1 to 2 and there are 2 names, which YOLO counts from 0: take 1 from the numbers")
def yolo_classes_counted_from_one(root: Path) -> None:
    for i, path in enumerate(photos(root / "images", [f"{i}.jpg" for i in range(6)])):
        text(root / "labels" / f"{path.stem}.txt", f"{1 + i % 2} {BOX}\n")
    text(root / "classes.txt", "nut\nbolt\n")


@case(layout="labelme", task="multilabel", classes=["a", "b"], images=4)
def flags_of_labelme(root: Path) -> None:
    for i, path in enumerate(photos(root)):
        labelme(path.with_suffix(".json"), shapes=[], flags={"a": i > 0, "b": i % 2 == 1})


@case(error="is a panoptic COCO file, whose PNG files hold numbers of segments")
def panoptic_coco(root: Path) -> None:
    photos(root / "train2017")
    for i in range(4):
        mask(root / "annotations" / "panoptic_train2017" / f"{i}.png", np.zeros((24, 32, 3), np.uint8))
    one = {"image_id": 1, "file_name": "0.png", "segments_info": [{"id": 7, "category_id": 1}]}
    text(root / "annotations" / "panoptic_train2017.json", coco(listed(["0.jpg"]), [one]))


def _unread(name: str, write: Callable[[Path], Any]) -> None:
    def make(root: Path) -> None:
        photos(root / "images")
        write(root)

    make.__name__ = name.lower()
    case(error=f"in the form of {name}.*which is not read: bring them as COCO JSON")(make)


_unread("Supervisely", lambda r: text(r / "ann" / "0.jpg.json", '{"objects": [{"classTitle": "nut"}]}'))
_unread("Datumaro", lambda r: text(r / "default.json", '{"items": [{"annotations": [{"label_id": 0}]}], "categories": {}}'))
_unread("FiftyOne", lambda r: text(r / "labels.json", '{"classes": ["a"], "labels": {"0": [{"bounding_box": [0, 0, 1, 1]}]}}'))
_unread("numbers between commas", lambda r: [text(r / "annotations" / f"{i}.txt", "4,4,9,9,1,4,0,0\n") for i in range(4)])


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")
