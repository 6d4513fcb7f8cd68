"""Masks as well-known data sets and tools have them: which map is which image's, and what its values are called."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import objects
from laid_out import mask, photos, picture, text, voc_xml
from layout_cases import Case, Cases
from test_layouts import run

from convmix.config import Data
from convmix.data import rle
from convmix.data.readers.annotated import open_annotated
from convmix.data.readers.pixelmaps import read_values

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()
STEMS = ["0", "1", "2", "3"]


def values(value: int = 1, ground: int = 0) -> np.ndarray:
    pixels = np.full((24, 32), ground, np.uint8)
    pixels[4:16, 4:20] = value
    return pixels


def coloured(inside: tuple[int, ...], outside: tuple[int, ...]) -> np.ndarray:
    return np.dstack([values(a, b) for a, b in zip(inside, outside, strict=True)])


@case(layout="masks", task="segment", classes=["class_3", "class_7"], splits={"train": 2, "val": 2}, left_out=8)
def cityscapes_with_all_its_maps(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "munster")):
        for i in range(2):
            stem = f"{city}_00000{i}_000019"
            picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            for kind in ("labelIds", "instanceIds"):
                mask(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", values(7, 3))
            mask(root / "gtFine" / split / city / f"{stem}_gtFine_color.png", coloured((128, 64, 128, 255), (0, 0, 0, 255)))
            text(root / "gtFine" / split / city / f"{stem}_gtFine_polygons.json", '{"imgHeight": 24, "objects": [{"polygon": []}]}')


@case(layout="masks", classes=["class_0", "class_1"], splits={"train": 2, "val": 2}, settings={"task": "segment"})
def voc_takes_the_lists_of_segmentation(root: Path) -> None:
    for path in photos(root / "VOC2012" / "JPEGImages"):
        mask(root / "VOC2012" / "SegmentationClass" / f"{path.stem}.png")
        text(root / "VOC2012" / "Annotations" / f"{path.stem}.xml", voc_xml())
    for kind, train, val in (("Segmentation", "0\n1\n", "2\n3\n"), ("Main", "0\n", "1\n2\n3\n")):
        text(root / "VOC2012" / "ImageSets" / kind / "train.txt", train)
        text(root / "VOC2012" / "ImageSets" / kind / "val.txt", val)


@case(layout="masks", classes=["background", "nut"], splits={"train": 4, "val": 4})
def roboflow_semantic_masks(root: Path) -> None:
    for split in ("train", "valid"):
        for path in photos(root / split):
            mask(root / split / f"{path.stem}_mask.png")
        text(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, nut\n")


@case(layout="masks", classes=["_background_", "nut"], images=4)
def labelme2voc(root: Path) -> None:
    for path in photos(root / "JPEGImages"):
        (root / "SegmentationClass").mkdir(exist_ok=True)
        np.save(root / "SegmentationClass" / f"{path.stem}.npy", values().astype(np.int32))
        mask(root / "SegmentationClassPNG" / f"{path.stem}.png")
        picture(root / "SegmentationClassVisualization" / f"{path.stem}.jpg")
    text(root / "class_names.txt", "__ignore__\n_background_\nnut\n")


@case(layout="masks", classes=["urban", "water"], splits={"train": 3}, left_out=1)
def deepglobe(root: Path) -> None:
    for i in range(3):
        picture(root / "train" / f"{i}_sat.jpg")
        mask(root / "train" / f"{i}_mask.png", coloured((0, 255, 255), (0, 0, 255)))
    picture(root / "valid" / "9_sat.jpg")
    text(root / "class_dict.csv", "name, r, g, b\nurban, 0, 255, 255\nwater, 0, 0, 255\n")


@case(layout="masks", classes=["road", "sky"], images=4)
def camvid_label_colors(root: Path) -> None:
    for path in photos(root / "images"):
        mask(root / "labels" / f"{path.stem}_L.png", coloured((128, 64, 128), (64, 128, 64)))
    text(root / "label_colors.txt", "128 64 128\troad\n64 128 64\tsky\n")


@case(layout="masks", classes=["background", "tumour"], images=4, left_out=2)
def nnunet(root: Path) -> None:
    for i in range(4):
        picture(root / "imagesTr" / f"case_00{i}_0000.png")
        mask(root / "labelsTr" / f"case_00{i}.png")
    for i in range(2):
        picture(root / "imagesTs" / f"case_01{i}_0000.png")
    text(root / "dataset.json", json.dumps({"labels": {"background": 0, "tumour": 1}, "file_ending": ".png"}))


@case(layout="masks", task="segment", images=4)
def ground_truth_in_two_words(root: Path) -> None:
    for path in photos(root / "Original Images"):
        mask(root / "Ground Truth" / f"{path.stem}.tif")


@case(layout="masks", task="segment", images=4)
def potsdam_whose_names_share_a_beginning_too(root: Path) -> None:
    for i in range(4):
        picture(root / "2_Ortho_RGB" / f"top_potsdam_2_{i}_RGB.tif")
        mask(root / "5_Labels_all" / f"top_potsdam_2_{i}_label.tif", coloured((255, 255, 0), (0, 0, 255)))


@case(error="most images have several maps .such as masks/sky/.*and one is read: join them")
def a_folder_of_masks_for_every_class(root: Path) -> None:
    for path in photos(root / "images"):
        for name in ("road", "sky"):
            mask(root / "masks" / name / f"{path.stem}.png")


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")


@pytest.mark.parametrize("task", ["auto", "instances"])
def test_a_folder_per_image_with_a_mask_per_object(tmp_path: Path, task: str) -> None:
    for image in ("aa", "bb", "cc"):
        picture(tmp_path / "stage1_train" / image / "images" / f"{image}.png")
        for i in range(2):
            pixels = np.zeros((24, 32), np.uint8)
            pixels[4 + 8 * i : 9 + 8 * i, 4:9] = 255
            mask(tmp_path / "stage1_train" / image / "masks" / f"{image}{i}ff.png", pixels)
        mask(tmp_path / "stage1_train" / image / "masks" / "empty.png", np.zeros((24, 32), np.uint8))
    source = open_annotated(tmp_path, task=task, data=Data())
    assert source is not None and (source.layout, source.task, source.classes) == ("masks", "instances", ("object",))
    found = objects(source, "train" if "train" in source.splits else "all")
    assert found.boxes.tolist() == [[4, 4, 9, 9], [4, 12, 9, 17]] and rle.areas(found.masks or (), found.size).tolist() == [25, 25]
    assert [reason for _, reason in source.dropped] == ["a mask without an object"] * 3


def test_an_array_is_a_class_map_too(tmp_path: Path) -> None:
    for path in photos(tmp_path / "images"):
        (tmp_path / "masks").mkdir(exist_ok=True)
        signed = values().astype(np.int32)
        signed[0, 0] = -1
        np.save(tmp_path / "masks" / f"{path.stem}.npy", signed)
    text(tmp_path / "classes.txt", "background\nnut\n")
    source = open_annotated(tmp_path, task="auto", data=Data())
    assert source is not None and (source.task, source.classes, len(source.splits["all"])) == ("segment", ("background", "nut"), 4)
    read = read_values(tmp_path / "masks" / "0.npy")
    assert read.dtype == np.uint8 and read[0, 0] == 255 and (read[4:16, 4:20] == 1).all() and read.sum() == 255 + 12 * 16
