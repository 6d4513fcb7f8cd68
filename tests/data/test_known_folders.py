"""Folders as well-known data sets have them: splits under other names, in other files, and folders that are no classes."""

import json
from pathlib import Path

import pytest
from laid_out import BOX, classes, photos, table, text
from layout_cases import Case, Cases
from test_layouts import run

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()
FOUR = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]

# Splits under other names


@case(layout="folders", classes=["buildings", "forest"], splits={"train": 6, "test": 6}, left_out=4)
def intel_seg_train_in_seg_train(root: Path) -> None:
    for split in ("train", "test"):
        classes(root / f"seg_{split}" / f"seg_{split}", ("buildings", "forest"))
    photos(root / "seg_pred" / "seg_pred", FOUR)


@case(layout="folders", classes=["cat", "dog"], splits={"train": 6, "test": 6})
def training_set_and_test_set(root: Path) -> None:
    for split in ("training_set", "test_set"):
        classes(root / split / split)


@case(layout="folders", classes=["cat", "dog"], splits={"train": 6, "val": 6})
def train_in_train_and_valid_in_valid(root: Path) -> None:
    classes(root / "train" / "train")
    classes(root / "valid" / "valid")


@case(
    layout="folders",
    classes=["A", "B"],
    splits={"train": 6},
    left_out=2,
    note="the test split (asl_alphabet_test/asl_alphabet_test/) has no",
)
def asl_alphabet_with_a_flat_test(root: Path) -> None:
    classes(root / "asl_alphabet_train" / "asl_alphabet_train", ("A", "B"))
    photos(root / "asl_alphabet_test" / "asl_alphabet_test", ["A_test.jpg", "B_test.jpg"])


@case(layout="folders", classes=["cat", "dog"], splits={"train": 6}, left_out=4, note="test/) has no classes: its 4 images are left out")
def a_test_folder_of_unknown_images(root: Path) -> None:
    classes(root / "train")
    photos(root / "test" / "unknown", FOUR)


@case(layout="folders", splits={"train": 6, "val": 6}, left_out=12)
def a_second_copy_beside_the_splits_is_counted(root: Path) -> None:
    for top in ("xray", "xray/xray"):
        for split in ("train", "val"):
            classes(root / top / split)


# Splits in other files


@case(layout="folders", classes=["001.Albatross", "002.Auklet"], splits={"train": 4, "test": 2})
def cub_200(root: Path) -> None:
    base = root / "CUB_200_2011"
    classes(base / "images", ("001.Albatross", "002.Auklet"))
    names = [f"{c}/{i}.jpg" for c in ("001.Albatross", "002.Auklet") for i in range(3)]
    text(base / "images.txt", "".join(f"{i + 1} {name}\n" for i, name in enumerate(names)))
    text(base / "train_test_split.txt", "".join(f"{i + 1} {int(i % 3 != 2)}\n" for i in range(6)))
    text(base / "bounding_boxes.txt", "".join(f"{i + 1} 1.0 2.0 9.0 9.0\n" for i in range(6)))


@case(layout="folders", classes=["n01443537", "n01629819"], splits={"train": 6, "val": 4}, left_out=4, note="val_annotations.txt tells")
def tiny_imagenet(root: Path) -> None:
    for name in ("n01443537", "n01629819"):
        photos(root / "train" / name / "images", [f"{name}_{i}.jpg" for i in range(3)])
        text(root / "train" / name / f"{name}_boxes.txt", "".join(f"{name}_{i}.jpg\t0\t1\t9\t9\n" for i in range(3)))
    photos(root / "val" / "images", [f"val_{i}.jpg" for i in range(4)])
    rows = [f"val_{i}.jpg\t{('n01443537', 'n01629819')[i % 2]}\t0\t0\t9\t9\n" for i in range(4)]
    text(root / "val" / "val_annotations.txt", "".join(rows))
    photos(root / "test" / "images", [f"test_{i}.jpg" for i in range(4)])
    text(root / "wnids.txt", "n01443537\nn01629819\n")


@case(layout="folders", splits={"train": 6, "val": 4}, note="LOC_val_solution.csv tells")
def imagenet_with_its_solution_of_val(root: Path) -> None:
    for name in ("n01440764", "n01443537"):
        photos(root / "train" / name, [f"{name}_{i}.jpg" for i in range(3)])
    photos(root / "val", [f"ILSVRC2012_val_{i:08d}.jpg" for i in range(4)])
    rows = [(f"ILSVRC2012_val_{i:08d}", f"{('n01440764', 'n01443537')[i % 2]} 1 1 9 9 ") for i in range(4)]
    table(root / "LOC_val_solution.csv", rows, header="ImageId,PredictionString")


@case(layout="folders", classes=["0", "1"], splits={"train": 6, "test": 4}, note="Train.csv has the folders' names in the column ClassId")
def gtsrb(root: Path) -> None:
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    for name in ("0", "1"):
        photos(root / "Train" / name, [f"0000{name}_{i}.jpg" for i in range(3)])
    photos(root / "Test", [f"0000{i}.jpg" for i in range(4)])
    photos(root / "Meta", ["0.jpg", "1.jpg"])
    rows = [(32, 24, 5, 5, 20, 20, c, f"Train/{c}/0000{c}_{i}.jpg") for c in (0, 1) for i in range(3)]
    table(root / "Train.csv", rows, header=header)
    table(root / "Test.csv", [(32, 24, 5, 5, 20, 20, i % 2, f"Test/0000{i}.jpg") for i in range(4)], header=header)
    table(root / "Meta.csv", [(f"Meta/{i}.jpg", i, 0, 0) for i in range(2)], header="Path,ClassId,ShapeId,ColorId")


@case(layout="yolo", splits={"train": 2, "val": 2})
def lists_of_autosplit(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {BOX}\n")
    text(root / "autosplit_train.txt", "./images/0.jpg\n./images/1.jpg\n")
    text(root / "autosplit_val.txt", "./images/2.jpg\n./images/3.jpg\n")


SPLIT = {"train": ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"], "val": ["cat/2.jpg", "dog/2.jpg"]}


@case(layout="folders", splits={"train": 4, "val": 2})
def splits_in_one_json(root: Path) -> None:
    classes(root / "images")
    text(root / "split.json", json.dumps(SPLIT))


@case(layout="folders", splits={"train": 4, "test": 2})
def food_101_with_its_json(root: Path) -> None:
    classes(root / "images")
    text(root / "meta" / "train.json", json.dumps({c: [f"{c}/0", f"{c}/1"] for c in ("cat", "dog")}))
    text(root / "meta" / "test.json", json.dumps({c: [f"{c}/2"] for c in ("cat", "dog")}))


@case(layout="folders", splits={"train": 4, "val": 2})
def tables_of_one_column_are_lists(root: Path) -> None:
    classes(root / "images")
    for split, names in SPLIT.items():
        table(root / f"{split}.csv", [(name,) for name in names], header="filename")


@case(layout="folders", splits={"train": 4, "val": 2})
def a_table_of_splits_beside_class_folders(root: Path) -> None:
    classes(root / "images")
    table(root / "splits.csv", [(name, split) for split, names in SPLIT.items() for name in names], header="filename,split")


# Folders that are no classes, or not these


@case(error="color/, grayscale/, segmented/ all hold the same folders, Apple, Corn.*give one of them.*--layout folders")
def the_same_classes_in_three_versions(root: Path) -> None:
    for version in ("color", "grayscale", "segmented"):
        classes(root / "plantvillage" / version, ("Apple", "Corn"))


@case(layout="folders", classes=["cat", "dog"], images=12)
def folders_of_years_inside_classes_are_no_classes(root: Path) -> None:
    for name in ("cat", "dog"):
        classes(root / name, ("2021", "2022"))


@case(error="brain_tumor_dataset/ holds no/, yes/, which are classes beside it too: move it away")
def a_copy_of_all_classes_among_them(root: Path) -> None:
    classes(root, ("no", "yes"))
    classes(root / "brain_tumor_dataset", ("no", "yes"))


@case(layout="folders", classes=["animals", "vehicles"], note="animals/cat, dog) are not told apart")
def two_levels_of_classes(root: Path) -> None:
    classes(root / "animals", ("cat", "dog"))
    classes(root / "vehicles", ("bus", "car"))


@case(error="file names begin with cat, dog, which may be the classes")
def classes_in_the_names_of_files(root: Path) -> None:
    photos(root / "train", [f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(5)])
    photos(root / "test1", FOUR)


@case(error="wider_face_train_bbx_gt.txt names images with boxes below each name.*COCO JSON")
def wider_face(root: Path) -> None:
    names = [f"{event}/{event}_{i}.jpg" for event in ("0--Parade", "1--Handshaking") for i in range(3)]
    photos(root / "WIDER_train" / "images", names)
    text(root / "wider_face_split" / "wider_face_train_bbx_gt.txt", "".join(f"{n}\n1\n4 4 9 9 0 0 0 0 0 0\n" for n in names))


@case(error="8 images but no class folders.*1 files of MATLAB are not read: save the labels in them as a CSV")
def stanford_cars(root: Path) -> None:
    photos(root / "cars_train", FOUR)
    photos(root / "cars_test", FOUR)
    text(root / "devkit" / "cars_train_annos.mat", "MATLAB 5.0 MAT-file")


@case(layout="folders", classes=["cat", "dog"], note="6 files of the images' names (such as cat/0.json) are not read")
def sidecars_that_nobody_reads_are_named(root: Path) -> None:
    classes(root)
    for path in root.rglob("*.jpg"):
        text(path.with_suffix(".json"), '{"user": "x"}')


@case(give="images", error="labels/ lies beside it: give .*set")
def the_images_of_labels_that_lie_beside_them(root: Path) -> None:
    for path in photos(root / "images"):
        text(root / "labels" / f"{path.stem}.txt", f"0 {BOX}\n")


@case(layout="folders", classes=["1.0", "2.0"])
def names_of_folders_stay_as_they_are(root: Path) -> None:
    classes(root, ("1.0", "2.0"))


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")
