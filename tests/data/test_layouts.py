"""Wrappers, companions and splits by lists: the layouts of public reports are read right, or refused in one sentence."""

from pathlib import Path

import pytest
from laid_out import BOX, classes, coco, labelme, listed, mask, photos, picture, table, text, voc_xml
from layout_cases import Case, Cases

from convmix.data.inspection import Inspection, inspect
from convmix.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()


def check(found: Inspection, expect: dict[str, object]) -> None:
    for key, value in expect.items():
        if key == "note":
            assert any(str(value).lower() in note.lower() for note in found.notes), found.notes
        elif key == "left_out":
            assert sum(item.count for item in found.left_out) == value, found.left_out
        elif key == "classes":
            assert list(found.classes) == value
        else:
            assert getattr(found, key) == value, (key, found)


def run(case: Case, root: Path) -> None:
    root.mkdir(exist_ok=True)
    case.make(root)
    path = root / case.give if case.give else root
    if "error" in case.expect:
        with pytest.raises(DataError, match=f"(?i){case.expect['error']}") as refused:
            inspect(str(path), **case.settings)
        assert "\n" not in str(refused.value)
        return
    check(inspect(str(path), **case.settings), case.expect)


# Wrappers and companions


@case(layout="folders", classes=["cat", "dog"], images=6, note="data/")
def class_folders_in_a_wrapper(root: Path) -> None:
    classes(root / "data")
    text(root / "README.md", "Cats and dogs.")


@case(layout="folders", classes=["cat", "dog"], splits={"train": 6, "val": 6})
def splits_in_two_wrappers(root: Path) -> None:
    classes(root / "archive" / "pets" / "train")
    classes(root / "archive" / "pets" / "val")


@case(layout="folders", classes=["cat", "dog"], images=6, left_out=1)
def class_folders_in_a_wrapper_beside_pictures_of_the_readme(root: Path) -> None:
    classes(root / "images")
    picture(root / "docs" / "logo.png")


@case(layout="folders", classes=["cat", "dog"], splits={"train": 6, "test": 6})
def splits_inside_the_class_folders(root: Path) -> None:
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            photos(root / name / split, ["0.jpg", "1.jpg", "2.jpg"])


@case(error="names no class")
def images_alone(root: Path) -> None:
    photos(root / "images")


@case(error="names no class.*--layout folders")
def images_beside_a_text_that_nobody_reads(root: Path) -> None:
    photos(root / "images")
    text(root / "labels.txt", "these are the labels of last year")


@case(layout="voc", task="detect", classes=["cell"], splits={"train": 2, "val": 2})
def the_parent_of_vocdevkit(root: Path) -> None:
    base = root / "archive" / "VOCdevkit" / "VOC2007"
    for path in photos(base / "JPEGImages"):
        text(base / "Annotations" / f"{path.stem}.xml", voc_xml())
        mask(base / "SegmentationClass" / f"{path.stem}.png")
    text(base / "ImageSets" / "Main" / "train.txt", "0\n1\n")
    text(base / "ImageSets" / "Main" / "val.txt", "2\n3\n")
    text(base / "ImageSets" / "Main" / "cell_train.txt", "0 1\n1 -1\n")


@case(layout="voc", classes=["cell"], images=4)
def xml_in_a_sibling_folder_of_any_name(root: Path) -> None:
    for path in photos(root / "pictures"):
        text(root / "bounding_boxes" / f"{path.stem}.xml", voc_xml())


@case(layout="voc", images=4, left_out=0)
def nested_folders_mirrored_on_both_sides(root: Path) -> None:
    for place in ("spring/left", "spring/right"):
        for path in photos(root / "img" / place, ["0.jpg", "1.jpg"]):
            text(root / "xml" / place / f"{path.stem}.xml", voc_xml())


@case(layout="yolo", task="detect", classes=["nut"], splits={"train": 4, "val": 4})
def yolo_labels_in_a_sibling_folder_of_another_name(root: Path) -> None:
    for split in ("train", "val"):
        for path in photos(root / "pics" / split):
            text(root / "annotations_yolo" / split / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "classes.txt", "nut\n")


@case(layout="yolo", classes=["nut", "bolt"], images=4)
def labels_of_labelimg_with_their_classes_beside_them(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "images" / f"{path.stem}.txt", f"1 {BOX}\n")
    text(root / "images" / "classes.txt", "nut\nbolt\n")


@case(layout="coco", classes=["nut", "bolt"], splits={"train": 2, "test": 2})
def one_coco_file_of_images_in_split_folders(root: Path) -> None:
    for split in ("train", "test"):
        photos(root / "images" / split, [f"{split}0.jpg", f"{split}1.jpg"])
    text(root / "labels" / "result.json", coco(listed(["train0.jpg", "train1.jpg", "test0.jpg", "test1.jpg"])))


@case(layout="coco", images=4, give="exports/labels.json")
def a_coco_file_beside_the_folder_of_images(root: Path) -> None:
    photos(root / "images")
    text(root / "exports" / "labels.json", coco(listed(["0.jpg", "1.jpg", "2.jpg", "3.jpg"])))


@case(layout="labelme", task="detect", classes=["nut"], images=4)
def labelme_rectangles_in_a_folder_of_their_own(root: Path) -> None:
    for path in photos(root / "images"):
        labelme(root / "json" / f"{path.stem}.json", kind="rectangle", points=((4, 4), (20, 16)), imagePath=f"..\\images\\{path.name}")


@case(layout="table", classes=["a", "b"], images=4, give="labels")
def a_table_beside_the_folder_of_images(root: Path) -> None:
    photos(root / "labels" / "photos")
    table(root / "labels" / "labels.csv", [(f"{i}.jpg", "ab"[i % 2]) for i in range(4)])


@case(layout="table", classes=["a", "b"], images=4, give="tables/labels.csv")
def a_table_whose_images_lie_above_it(root: Path) -> None:
    photos(root / "images")
    table(root / "tables" / "labels.csv", [(f"../images/{i}.jpg", "ab"[i % 2]) for i in range(4)])


@case(layout="table", classes=["a", "b"], splits={"train": 4, "val": 4}, left_out=4)
def kaggle_with_an_unlabelled_test_folder(root: Path) -> None:
    for split in ("train", "val", "test"):
        photos(root / split, [f"{split}{i}.jpg" for i in range(4)])
    for split in ("train", "val"):
        table(root / f"{split}.csv", [(f"{split}{i}", "ab"[i % 2]) for i in range(4)], header="id,breed")
    table(root / "test.csv", [(f"test{i}",) for i in range(4)], header="id")
    table(root / "sample_submission.csv", [(f"test{i}", "a") for i in range(4)], header="id,breed")


@case(layout="table", classes=["a", "b"], splits={"train": 4, "test": 4})
def huggingface_metadata_as_json_lines(root: Path) -> None:
    for split in ("train", "test"):
        photos(root / split)
        text(root / split / "metadata.jsonl", "".join(f'{{"file_name": "{i}.jpg", "label": "{"ab"[i % 2]}"}}\n' for i in range(4)))


@case(layout="table", classes=["a", "b"], splits={"train": 4, "test": 4})
def huggingface_metadata_as_parquet(root: Path) -> None:
    import datasets

    for split in ("train", "test"):
        photos(root / split)
        rows = {"file_name": [f"{i}.jpg" for i in range(4)], "label": ["ab"[i % 2] for i in range(4)]}
        datasets.Dataset.from_dict(rows).to_parquet(root / split / "metadata.parquet")


@case(error="folders are one way.*--layout folders or --layout table")
def folders_and_a_table_that_says_something_else(root: Path) -> None:
    classes(root, ("monday", "tuesday"))
    table(root / "labels.csv", [(f"{day}/{i}.jpg", "ab"[i % 2]) for day in ("monday", "tuesday") for i in range(3)])


@case(layout="table", classes=["a", "b"], settings={"layout": "table"})
def the_table_where_it_is_asked_for(root: Path) -> None:
    folders_and_a_table_that_says_something_else(root)


@case(layout="folders", classes=["cat", "dog"], note="labels.csv")
def folders_and_a_table_that_says_the_same(root: Path) -> None:
    classes(root)
    table(root / "labels.csv", [(f"{name}/{i}.jpg", name) for name in ("cat", "dog") for i in range(3)])


@case(layout="folders", classes=["images"], settings={"layout": "folders"}, error="one class")
def an_overruled_reading_still_needs_two_classes(root: Path) -> None:
    photos(root / "images")


@case(error="VOC annotations are left out.*--layout yolo or --layout voc|YOLO annotations are left out.*--layout voc or --layout yolo")
def two_layouts_for_different_images(root: Path) -> None:
    for path in photos(root / "one", ["a.jpg", "b.jpg"]):
        text(path.with_suffix(".xml"), voc_xml())
    for path in photos(root / "two", ["c.jpg", "d.jpg"]):
        text(path.with_suffix(".txt"), f"0 {BOX}\n")


@case(layout="voc", images=4, note="YOLO")
def two_layouts_for_the_same_images(root: Path) -> None:
    for path in photos(root):
        text(path.with_suffix(".xml"), voc_xml())
        text(path.with_suffix(".txt"), f"0 {BOX}\n")


# Splits by lists


@case(layout="folders", classes=["cat", "dog"], splits={"train": 4, "test": 2})
def class_folders_split_by_lists(root: Path) -> None:
    """As Food-101 comes: images/CLASS/..., meta/train.txt without suffixes."""
    classes(root / "images")
    text(root / "meta" / "train.txt", "cat/0\ncat/1\ndog/0\ndog/1\n")
    text(root / "meta" / "test.txt", "cat/2\ndog/2\n")
    text(root / "meta" / "classes.txt", "cat\ndog\n")


@case(layout="yolo", splits={"train": 4, "val": 2}, give="data.yaml", note="data.yaml names nowhere/test")
def a_yaml_with_lists_folders_and_a_missing_test(root: Path) -> None:
    for path in photos(root / "a" / "images", ["0.jpg", "1.jpg"]) + photos(root / "b" / "images", ["2.jpg", "3.jpg"]):
        text(path.parents[1] / "labels" / f"{path.stem}.txt", f"0 {BOX}\n")
    for path in photos(root / "c", ["4.jpg", "5.jpg"]):
        text(path.with_suffix(".txt"), f"1 {BOX}\n")
    text(root / "val.txt", f"{root}/c/4.jpg\nc\\5.jpg\n")
    text(root / "data.yaml", "train:\n- a/images\n- b/images\nval: val.txt\ntest: nowhere/test\nnames: [nut, bolt]\n")


@case(layout="yolo", splits={"train": 4, "val": 4, "test": 4}, classes=["nut"], give="data.yaml")
def roboflow(root: Path) -> None:
    for split in ("train", "valid", "test"):
        for path in photos(root / split / "images"):
            text(root / split / "labels" / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['nut']\n")


@case(layout="yolo", splits={"train": 4, "val": 4}, give="data.yaml")
def a_yaml_with_the_absolute_path_of_another_machine(root: Path) -> None:
    for split in ("train", "val"):
        for path in photos(root / "images" / split):
            text(root / "labels" / split / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "data.yaml", "path: /content/drive/parts\ntrain: /content/drive/parts/images/train\nval: images/val\nnames: {0: nut}\n")


@case(give="data.yaml", error="train: images/nowhere is neither")
def a_yaml_whose_training_images_are_nowhere(root: Path) -> None:
    for path in photos(root / "images" / "train"):
        text(root / "labels" / "train" / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "data.yaml", "train: images/nowhere\nval: images/train\nnames: {0: nut}\n")


@case(layout="yolo", classes=["nut", "bolt"], splits={"train": 2, "val": 2})
def cvat_yolo_with_two_subsets(root: Path) -> None:
    for split, names in (("train", ["a.jpg", "b.jpg"]), ("valid", ["c.jpg", "d.jpg"])):
        for path in photos(root / f"obj_{split}_data", names):
            text(path.with_suffix(".txt"), f"1 {BOX}\n")
        text(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{name}\n" for name in names))
    text(root / "obj.names", "nut\nbolt\n")
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")


@case(layout="yolo", splits={"train": 2, "val": 2}, note="listed for train and for val")
def an_image_in_two_lists_is_never_trained_on(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "train.txt", "images/0.jpg\nimages/1.jpg\nimages/2.jpg\n")
    text(root / "val.txt", "images/2.jpg\nimages/3.jpg\n")


@case(layout="masks", task="segment", splits={"train": 2, "val": 2})
def masks_split_by_image_sets(root: Path) -> None:
    for path in photos(root / "JPEGImages"):
        mask(root / "SegmentationClass" / f"{path.stem}.png")
    text(root / "ImageSets" / "Segmentation" / "train.txt", "0\n1\n")
    text(root / "ImageSets" / "Segmentation" / "val.txt", "2\n3\n")


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")


def test_an_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    from convmix.errors import ConfigError

    with pytest.raises(ConfigError, match=r"layout: 'yollo'.*did you mean yolo\?"):
        inspect(str(classes(tmp_path)), layout="yollo")


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds nothing that can be read with --layout yolo"):
        inspect(str(classes(tmp_path)), layout="yolo")
