"""Names that nearly match, several labels, mixed and foreign annotations: read right, or refused in one sentence."""

import json
from pathlib import Path

import pytest
from laid_out import BOX, OUTLINE, classes, coco, labelme, listed, photos, picture, table, text, voc_xml
from layout_cases import Case, Cases
from PIL import Image
from test_layouts import run

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()

# Names that nearly match


@case(layout="coco", images=4, left_out=0)
def coco_names_with_backslashes_and_other_letter_case(root: Path) -> None:
    photos(root / "images", ["A.JPG", "b.jpg", "c d.jpg", "e.jpeg"])
    text(root / "all.json", coco(listed(["images\\a.jpg", "IMAGES/B.JPG", "c%20d.jpg?size=64", "e.jpg"])))


@case(layout="folders", classes=["cafe\u0301"[:3] + "\u00e9", "dog"], splits={"train": 6, "val": 6})
def unicode_forms_of_one_class_in_two_splits(root: Path) -> None:
    classes(root / "train", ("caf\u00e9", "dog"))
    classes(root / "val", ("cafe\u0301", "dog"))


@case(layout="folders", classes=["Cat", "dog"], splits={"train": 6, "val": 6}, note="cat in the val split is taken for the class Cat")
def letter_case_of_one_class_in_two_splits(root: Path) -> None:
    classes(root / "train", ("Cat", "dog"))
    classes(root / "val", ("cat", "dog"))


@case(layout="table", classes=["1", "2"], images=4, note="1.0 and 1")
def labels_with_and_without_a_fraction(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [("0.jpg", "1.0"), ("1.jpg", "1"), ("2.jpg", "2.0"), ("3.jpg", "2")])


@case(layout="table", classes=["1", "2"], images=4, left_out=0)
def ids_that_a_spreadsheet_took_for_numbers(root: Path) -> None:
    photos(root / "img", ["0001.jpg", "0002.jpg", "0010.jpg", "0100.jpg"])
    table(root / "t.csv", [("1.0", "1"), ("2", "2"), ("10", "1"), ("100", "2")], header="id,label")


@case(layout="table", classes=["001", "01"], images=4)
def leading_zeros_of_labels_stay(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(f"{i}.jpg", ("001", "01")[i % 2]) for i in range(4)])


@case(layout="table", classes=["no", "yes"], images=4)
def a_table_from_excel(root: Path) -> None:
    photos(root / "img")
    rows = "".join(f"{i}.jpg;{('no', 'yes')[i % 2]}\r\n" for i in range(4))
    text(root / "t.csv", f"sep=;\r\nimage;label\r\n{rows}", "utf-8-sig")


@case(layout="table", classes=["größer", "klein"], images=4)
def a_table_in_utf16(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(f"{i}.jpg", ("größer", "klein")[i % 2]) for i in range(4)], encoding="utf-16")


@case(layout="table", classes=["no", "yes"], images=4)
def a_table_in_utf16_without_a_mark(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(f"{i}.jpg", ("no", "yes")[i % 2]) for i in range(4)], encoding="utf-16-le")


@case(layout="yolo", classes=["yes", "no", "on"], images=4)
def names_in_yaml_that_look_like_truth_values(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"2 {BOX}\n", "utf-8-sig")
    text(root / "data.yaml", "names: [yes, no, on]\n", "utf-8-sig")


@case(error="several images|no row")
def a_name_that_two_images_have(root: Path) -> None:
    for folder in ("a", "b"):
        photos(root / folder)
    table(root / "t.csv", [(f"{i}.jpg", i % 2) for i in range(4)])


# Several labels


@case(layout="table", task="multilabel", classes=["rust", "scab"], annotations_per_image={"least": 0.0, "median": 1.0, "most": 2.0})
def labels_separated_by_bars(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [("0.jpg", "rust|scab"), ("1.jpg", "rust"), ("2.jpg", "scab"), ("3.jpg", "")])


@case(layout="table", task="multilabel", classes=["rust", "scab"])
def labels_as_a_json_list(root: Path) -> None:
    photos(root / "img")
    text(
        root / "t.jsonl",
        "".join(json.dumps({"file": f"{i}.jpg", "labels": [["rust", "scab"], ["scab"], [], ["rust"]][i]}) + "\n" for i in range(4)),
    )


@case(layout="table", task="multilabel", classes=["clear", "haze", "road", "water"])
def tags_that_never_stand_alone(root: Path) -> None:
    photos(root / "train", [f"{i}.jpg" for i in range(6)])
    cells = ("clear road", "clear water", "haze road", "haze water", "clear road water", "haze road water")
    table(root / "train.csv", [(i, cell) for i, cell in enumerate(cells)], header="image_name,tags")


@case(layout="table", task="classify", classes=["golden retriever", "great dane"])
def class_names_of_several_words(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(f"{i}.jpg", ("golden retriever", "great dane")[i % 2]) for i in range(4)])


@case(layout="table", task="classify", classes=["rust", "rust scab", "scab"], settings={"task": "classify"})
def combinations_as_classes_where_they_are_asked_for(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [("0.jpg", "rust scab"), ("1.jpg", "rust"), ("2.jpg", "scab"), ("3.jpg", "scab")])


@case(layout="table", task="classify", classes=["mel", "nev"], note="1 in one of the columns")
def one_hot_columns_with_a_single_one(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(i, 1.0 * (i % 2), 1.0 * (1 - i % 2)) for i in range(4)], header="image,mel,nev")


@case(layout="coco", task="multilabel", classes=["bolt", "nut"], images=4)
def image_tags_in_coco(root: Path) -> None:
    photos(root / "images")
    tags = [{"id": i, "image_id": 1 + i % 4, "category_id": 1 + i // 4} for i in range(6)]
    text(root / "tags.json", coco(listed(["0.jpg", "1.jpg", "2.jpg", "3.jpg"]), tags))


@case(layout="labelstudio", task="classify", classes=["a", "b"], images=4)
def choices_of_label_studio(root: Path) -> None:
    photos(root / "images")
    results = [[{"type": "choices", "value": {"choices": ["ab"[i % 2]]}}] for i in range(4)]
    tasks = [{"id": i, "data": {"image": f"/data/upload/1/1234abcd-{i}.jpg"}, "annotations": [{"result": results[i]}]} for i in range(4)]
    text(root / "export.json", json.dumps(tasks))


@case(layout="cvat", task="multilabel", classes=["a", "b"], images=4)
def tags_of_cvat(root: Path) -> None:
    photos(root / "images")
    tag = '<tag label="{}"/>'
    images = "".join(
        f'<image id="{i}" name="{i}.jpg" width="32" height="24">{tag.format("a") * (i > 0)}{tag.format("b") * (i > 1)}</image>'
        for i in range(4)
    )
    text(root / "annotations.xml", f"<annotations><version>1.1</version>{images}</annotations>")


# Mixed and foreign annotations


@case(layout="yolo", task="detect", images=4, note="keypoints are left out")
def keypoints_of_yolo(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {BOX} 0.4 0.4 2 0.5 0.5 1 0.6 0.6 0\n")
    text(root / "data.yaml", "kpt_shape: [3, 3]\nnames: [nut]\n")


@case(layout="yolo", task="detect", images=4, note="oriented boxes")
def oriented_boxes(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5\n")


@case(layout="yolo", task="instances", images=4)
def four_cornered_outlines(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {OUTLINE}\n")


@case(layout="yolo", task="detect", images=4, note="sixth number")
def yolo_predictions_with_their_confidence(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {BOX} 0.93\n")


@case(layout="coco", images=6, note="xyxy")
def corners_in_coco(root: Path) -> None:
    photos(root / "images", [f"{i}.jpg" for i in range(6)])
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [18, 10, 30, 22]} for i in range(6)]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(6)]), boxes))


@case(error="all 4 objects are marked as crowds")
def crowds_alone(root: Path) -> None:
    photos(root / "images")
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [4, 4, 9, 9], "iscrowd": 1} for i in range(4)]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)]), boxes))


@case(layout="coco", classes=["nut"], note="nut under several ids")
def a_category_twice(root: Path) -> None:
    photos(root / "images")
    categories = [{"id": 1, "name": "nut"}, {"id": 2, "name": "nut"}]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)]), categories=categories))


@case(error="the id 1 twice, nut and bolt")
def an_id_of_two_categories(root: Path) -> None:
    photos(root / "images")
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)]), categories=[{"id": 1, "name": "nut"}, {"id": 1, "name": "bolt"}]))


@case(layout="coco", task="detect", images=4, left_out=0)
def empty_and_missing_fields(root: Path) -> None:
    photos(root / "images")
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [4, 4, 9, 9], "segmentation": [[]], "iscrowd": None} for i in range(4)]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)], height=None, width=0, license=""), boxes))


@case(layout="coco", task="instances", images=4, left_out=0)
def uncompressed_run_lengths(root: Path) -> None:
    photos(root / "images")
    runs = {"size": [24, 32], "counts": [100, 10, 14, 10, 24 * 32 - 134]}
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [4, 4, 2, 10], "segmentation": runs} for i in range(4)]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)]), boxes))


@case(layout="coco", task="detect", images=4, note="turned with them", left_out=0)
def boxes_before_exif_rotation(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(4):
        picture(root / "images" / f"{i}.jpg", exif=exif)
    boxes = [{"id": i, "image_id": i + 1, "category_id": 1, "bbox": [26, 2, 6, 20]} for i in range(4)]
    text(root / "all.json", coco(listed([f"{i}.jpg" for i in range(4)], width=32, height=24), boxes))


@case(layout="voc", images=4, note="before EXIF")
def voc_sizes_before_exif_rotation(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for i in range(4):
        picture(root / "images" / f"{i}.jpg", exif=exif)
        text(root / "annotations" / f"{i}.xml", voc_xml())


@case(layout="labelme", task="instances", classes=["bolt", "nut"], images=4, note="box without outline")
def labelme_with_a_rectangle_among_polygons(root: Path) -> None:
    for i, path in enumerate(photos(root)):
        labelme(path.with_suffix(".json"), ("nut", "bolt")[i % 2], *(("rectangle", ((4, 4), (20, 16))) if i == 3 else ()))


@case(layout="labelstudio", task="detect", classes=["nut"], images=4)
def label_studio_rectangles(root: Path) -> None:
    photos(root / "images")
    value = {"x": 10, "y": 10, "width": 40, "height": 50, "rotation": 0, "rectanglelabels": ["nut"]}
    result = {"type": "rectanglelabels", "value": value, "original_width": 32, "original_height": 24}
    tasks = [{"id": i, "data": {"image": f"/data/upload/2/0a1b2c3d-{i}.jpg"}, "annotations": [{"result": [result]}]} for i in range(4)]
    text(root / "export.json", json.dumps(tasks))


@case(layout="labelstudio", task="instances", classes=["nut"], images=4)
def label_studio_polygons_in_the_short_form(root: Path) -> None:
    photos(root)
    region = {"points": [[10, 10], [60, 10], [40, 70]], "polygonlabels": ["nut"], "original_width": 32, "original_height": 24}
    text(root / "export.json", json.dumps([{"image": f"{i}.jpg", "id": i, "label": [region]} for i in range(4)]))


@case(layout="cvat", task="detect", classes=["nut", "bolt"], splits={"train": 2, "val": 2})
def cvat_for_images_with_subsets(root: Path) -> None:
    photos(root / "images")
    box = '<box label="{}" xtl="4" ytl="4" xbr="20" ybr="16" occluded="0"/>'
    labels = "<labels><label><name>nut</name></label><label><name>bolt</name></label></labels>"
    images = "".join(
        f'<image id="{i}" name="{i}.jpg" subset="{("train", "validation")[i // 2]}" width="32" height="24">'
        f"{box.format(('nut', 'bolt')[i % 2])}</image>"
        for i in range(4)
    )
    text(root / "annotations.xml", f"<annotations><meta><task>{labels}</task></meta>{images}</annotations>")


@case(layout="cvat", task="instances", classes=["nut"], images=4)
def cvat_polygons_and_masks(root: Path) -> None:
    photos(root / "images")
    shape = (
        '<polygon label="nut" points="4.0,4.0;20.0,5.0;18.0,15.0"/>',
        '<mask label="nut" rle="2, 4, 2" left="3" top="5" width="4" height="2"/>',
    )
    images = "".join(f'<image id="{i}" name="{i}.jpg" width="32" height="24">{shape[i % 2]}</image>' for i in range(4))
    text(root / "annotations.xml", f"<annotations>{images}</annotations>")


@case(layout="table", task="detect", classes=["bolt", "nut"], images=4)
def huggingface_rows_with_objects(root: Path) -> None:
    photos(root)
    rows = [{"file_name": f"{i}.jpg", "objects": {"bbox": [[4, 4, 9, 9], [1, 1, 5, 5]], "categories": ["nut", "bolt"]}} for i in range(4)]
    text(root / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@case(layout="table", task="detect", classes=["bolt", "nut"], images=4, annotations_per_image={"least": 1.0, "median": 1.0, "most": 2.0})
def a_table_with_a_box_a_row(root: Path) -> None:
    photos(root / "images")
    rows = [(f"{i}.jpg", 32, 24, ("nut", "bolt")[i % 2], 4, 4, 20, 16) for i in range(4)]
    table(root / "boxes.csv", [*rows, ("0.jpg", 32, 24, "nut", 1, 1, 4, 4)], header="filename,width,height,class,xmin,ymin,xmax,ymax")


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")
