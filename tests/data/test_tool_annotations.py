"""LabelMe, Label Studio, CVAT, tables of boxes, EXIF and YOLO's other forms: the pixels are the right ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import objects
from laid_out import BOX, coco, labelme, listed, photos, picture, table, text, voc_xml
from PIL import Image

from convmix.config import Data
from convmix.data import rle
from convmix.data.examples import Source
from convmix.data.readers.annotated import open_annotated

pytestmark = pytest.mark.usefixtures("own_cache")
NAMES = ["0.jpg", "1.jpg"]


def opened(root: Path, task: str = "auto") -> Source:
    source = open_annotated(root, task=task, data=Data())
    assert source is not None
    return source


def test_labelme_shapes_are_where_they_were_drawn(tmp_path: Path) -> None:
    photos(tmp_path, NAMES)
    labelme(tmp_path / "0.json", points=((4, 4), (20, 4), (20, 16), (4, 16)))
    labelme(tmp_path / "1.json", "bolt", "circle", ((16, 12), (16, 4)))
    source = opened(tmp_path)
    assert (source.task, source.classes) == ("instances", ("bolt", "nut"))
    square, circle = objects(source, "all", 0), objects(source, "all", 1)
    assert square.boxes.tolist() == [[4, 4, 20, 16]] and square.labels.tolist() == [1]
    assert rle.areas(square.masks or (), square.size).tolist() == [16 * 12]
    assert np.allclose(circle.boxes, [[8, 4, 24, 20]]) and abs(rle.areas(circle.masks or (), circle.size)[0] - np.pi * 64) < 12


def test_label_studio_counts_in_per_cent(tmp_path: Path) -> None:
    photos(tmp_path / "images", NAMES)
    values = ({"x": 25, "y": 50, "width": 50, "height": 25, "rotation": 0}, {"x": 50, "y": 0, "width": 25, "height": 25, "rotation": 90})
    tasks = [
        {
            "id": 7 + i,
            "data": {"image": f"/data/local-files/?d=set/{i}.jpg"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {"result": [{"value": {**value, "rectanglelabels": ["nut"]}, "original_width": 32, "original_height": 24}]},
            ],
        }
        for i, value in enumerate(values)
    ]
    text(tmp_path / "export.json", json.dumps(tasks))
    source = opened(tmp_path)
    assert objects(source, "all", 0).boxes.tolist() == [[8, 12, 24, 18]]
    assert np.allclose(objects(source, "all", 1).boxes, [[10, 0, 16, 8]])  # turned about its left top corner


def test_cvat_masks_run_along_the_rows_of_their_box(tmp_path: Path) -> None:
    photos(tmp_path / "images", NAMES)
    shape = '<mask label="nut" rle="1, 3, 2, 2" left="3" top="5" width="4" height="2"/>'
    images = "".join(f'<image id="{i}" name="{i}.jpg" width="32" height="24">{shape}</image>' for i in range(2))
    text(tmp_path / "annotations.xml", f"<annotations>{images}</annotations>")
    found = objects(opened(tmp_path), "all")
    expected = np.zeros((24, 32), np.uint8)
    expected[5, 4:7], expected[6, 5:7] = 1, 1
    assert found.masks and np.array_equal(rle.decode(found.masks, found.size)[0], expected)


@pytest.mark.parametrize(
    ("header", "row", "box"),
    [
        ("filename,class,xmin,ymin,xmax,ymax", ("{}", "nut", 4, 5, 20, 16), [4, 5, 20, 16]),
        ("ImageID,LabelName,XMin,YMin,XMax,YMax", ("{}", "nut", 0.25, 0.25, 0.5, 0.75), [8, 6, 16, 18]),
        ("image_id,bbox,label", ("{}", '"[4, 5, 16, 11]"', "nut"), [4, 5, 20, 16]),
        ("image,label,bbox_x,bbox_y,bbox_width,bbox_height", ("{}", "nut", 4, 5, 16, 11), [4, 5, 20, 16]),
    ],
)
def test_tables_of_boxes_in_the_usual_columns(tmp_path: Path, header: str, row: tuple[object, ...], box: list[int]) -> None:
    photos(tmp_path / "images", NAMES)
    table(tmp_path / "boxes.csv", [[str(cell).format(name) for cell in row] for name in NAMES], header=header)
    for path in (tmp_path, tmp_path / "boxes.csv"):
        if path == tmp_path:
            source = opened(path)
            assert (source.task, source.classes, objects(source, "all").boxes.tolist()) == ("detect", ("nut",), [box])


def test_huggingface_objects_are_left_top_width_height(tmp_path: Path) -> None:
    photos(tmp_path / "train", NAMES)
    row = {"objects": {"bbox": [[4, 5, 16, 11], [1, 1, 2, 2]], "categories": ["nut", "bolt"]}}
    text(tmp_path / "train" / "metadata.jsonl", "".join(json.dumps({"file_name": name, **row}) + "\n" for name in NAMES))
    found = objects(opened(tmp_path), "train")
    assert found.boxes.tolist() == [[4, 5, 20, 16], [1, 1, 3, 3]] and found.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("orientation", "upright"), [(5, [2, 26, 22, 32]), (6, [2, 26, 22, 32]), (7, [2, 0, 22, 6]), (8, [2, 0, 22, 6])])
def test_boxes_of_the_stored_image_turn_with_it(tmp_path: Path, orientation: int, upright: list[int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / "0.jpg", exif=exif)  # 32x24 as stored, 24x32 upright
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [26, 2, 6, 20], "segmentation": [[26, 2, 32, 2, 32, 22, 26, 22]]}
    text(tmp_path / "all.json", coco(listed(["0.jpg"], width=32, height=24), [box]))
    found = objects(opened(tmp_path), "all")
    assert found.size == (32, 24) and found.boxes.tolist() == [upright]
    left, top, right, bottom = upright
    assert found.masks and rle.decode(found.masks, found.size)[0, top:bottom, left:right].all()


def test_boxes_that_fit_the_upright_image_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "0.jpg", exif=exif)
    text(tmp_path / "0.xml", voc_xml())
    assert objects(opened(tmp_path), "all").boxes.tolist() == [[4, 4, 20, 16]]


def test_corners_in_coco_are_read_as_corners(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    photos(tmp_path, names)
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [18, 10, 30, 22]} for i in range(5)]
    text(tmp_path / "all.json", coco(listed(names), boxes))
    assert objects(opened(tmp_path), "all").boxes.tolist() == [[18, 10, 30, 22]]


@pytest.mark.parametrize(
    ("line", "task", "box"),
    [
        ("0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5", "detect", [8, 6, 24, 18]),  # oriented
        (f"0 {BOX} 0.4 0.4 2 0.5 0.5 1", "detect", [9.6, 7.2, 22.4, 16.8]),  # keypoints
        (f"0 {BOX} 0.93", "detect", [9.6, 7.2, 22.4, 16.8]),  # a confidence
    ],
)
def test_other_lines_of_yolo_keep_their_box(tmp_path: Path, line: str, task: str, box: list[float]) -> None:
    for path in photos(tmp_path / "images", NAMES):
        text(tmp_path / "labels" / f"{path.stem}.txt", f"{line}\n")
    source = opened(tmp_path)
    assert source.task == task and source.dropped == [] and np.allclose(objects(source, "all").boxes, [box], atol=1e-4)
