"""Tables as well-known data sets have them: columns of splits, several rows an image, boxes in other columns, pixels and containers."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from drawn import objects
from laid_out import classes, photos, picture, table, text
from layout_cases import Case, Cases
from test_layouts import run

from convmix.config import Data
from convmix.data.readers.annotated import open_annotated

pytestmark = pytest.mark.usefixtures("own_cache")
case = Cases()
SIX = [f"{i}.jpg" for i in range(6)]
FOUR = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
SHOWN = "Image Index,Finding Labels,Follow-up #,Patient Age,Patient Gender"

# Splits


@case(task="multilabel", classes=["Effusion", "Mass"], splits={"train": 4, "test": 2}, note="BBox_List.csv names images too")
def nih_chest_with_its_lists(root: Path) -> None:
    names = [f"0000000{i}_000.jpg" for i in range(6)]
    photos(root / "images_001" / "images", names[:3])
    photos(root / "images_002" / "images", names[3:])
    labels = ["Mass|Effusion", "Mass", "Effusion", "Mass", "Effusion", "Mass|Effusion"]
    table(root / "Data_Entry.csv", [(n, v, i, 57, "M") for i, (n, v) in enumerate(zip(names, labels, strict=True))], header=SHOWN)
    table(root / "BBox_List.csv", [(names[0], "Mass", 1, 1, 9, 9)], header="Image Index,Finding Label,Bbox [x,y,w,h]")
    text(root / "train_val_list.txt", "\n".join(names[:4]))
    text(root / "test_list.txt", "\n".join(names[4:]))


@case(task="multilabel", classes=["car", "chair"], splits={"train": 3, "val": 1})
def fastai_is_valid(root: Path) -> None:
    photos(root / "train")
    rows = [("0.jpg", "chair car", True), ("1.jpg", "chair", False), ("2.jpg", "car", False), ("3.jpg", "car chair", False)]
    table(root / "train.csv", rows, header="fname,labels,is_valid")


@case(layout="table", splits={"train": 4, "val": 1, "test": 1}, give="t.csv")
def a_column_called_data_set(root: Path) -> None:
    photos(root / "i", SIX)
    rows = [(f"i/{i}.jpg", "ab"[i % 2], split) for i, split in enumerate(("train", "train", "train", "train", "valid", "test"))]
    table(root / "t.csv", rows, header="filepaths,labels,data set")


@case(layout="table", splits={"train": 4, "val": 1, "test": 1})
def the_usage_of_fer_2013(root: Path) -> None:
    photos(root / "i", SIX)
    usage = ("Training", "Training", "Training", "Training", "PublicTest", "PrivateTest")
    table(root / "t.csv", [(f"{i}.jpg", "ab"[i % 2], usage[i]) for i in range(6)], header="image,emotion,Usage")


@case(
    task="multilabel",
    classes=["Bald", "Smiling"],
    splits={"train": 2, "val": 1, "test": 1},
    note="-1 in the columns Bald, Smiling is read as no",
)
def celeba(root: Path) -> None:
    names = [f"{i:06d}.jpg" for i in range(1, 5)]
    photos(root / "img_align_celeba", names)
    values = ((1, -1), (-1, 1), (1, 1), (-1, -1))
    table(root / "list_attr_celeba.csv", [(n, *v) for n, v in zip(names, values, strict=True)], header="image_id,Bald,Smiling")
    table(root / "list_eval_partition.csv", [(n, (0, 0, 1, 2)[i]) for i, n in enumerate(names)], header="image_id,partition")


@case(task="multilabel", classes=["Edema", "Fracture"], splits={"train": 4, "val": 2}, note="nobody says")
def chexpert_whose_folders_are_patients(root: Path) -> None:
    """Fracture is on no image of val and yet a label there."""
    cells = [("", "1.0"), ("1.0", "-1.0"), ("0.0", "1.0"), ("1.0", "0.0")]
    for split, n in (("train", 4), ("valid", 2)):
        for i in range(n):
            picture(root / "small" / split / f"patient{split}{i}" / "study1" / "view1.jpg")
        said = cells if split == "train" else [("1.0", ""), ("0.0", "0.0")]
        rows = [(f"CheXpert/small/{split}/patient{split}{i}/study1/view1.jpg", "Female", 60 + i, *said[i]) for i in range(n)]
        table(root / "small" / f"{split}.csv", rows, header="Path,Sex,Age,Edema,Fracture")


@case(layout="table", task="classify", classes=["0", "1"], splits={"train": 4, "test": 2})
def lists_with_a_number_behind_each_image(root: Path) -> None:
    photos(root / "images", SIX)
    text(root / "train.txt", "".join(f"images/{i}.jpg {i % 2}\n" for i in range(4)))
    text(root / "test.txt", "".join(f"images/{i}.jpg {i % 2}\n" for i in range(4, 6)))


# Rows and columns


@case(task="multilabel", classes=["cat", "dog"], images=3, note="1 images have rows with different labels (such as img/0.jpg)")
def a_label_a_row(root: Path) -> None:
    photos(root / "img", FOUR[:3])
    table(root / "t.csv", [("0.jpg", "cat"), ("0.jpg", "dog"), ("1.jpg", "cat"), ("2.jpg", "dog")])


@case(task="classify", images=4, left_out=2)
def the_same_rows_twice(root: Path) -> None:
    photos(root / "img")
    table(root / "t.csv", [(f"{i}.jpg", "ab"[i % 2]) for i in (0, 1, 2, 3, 0, 1)])


@case(task="classify", images=21, left_out=1)
def one_contradiction_among_many_rows(root: Path) -> None:
    photos(root / "img", [f"{i}.jpg" for i in range(22)])
    table(root / "t.csv", [*((f"{i}.jpg", "ab"[i % 2]) for i in range(22)), ("0.jpg", "b")])


@case(layout="table", splits={"train": 4, "val": 2}, note="1 images are listed for train and for another split")
def an_image_of_two_splits_is_not_trained_on(root: Path) -> None:
    photos(root / "i", SIX)
    rows = [(f"{i}.jpg", "ab"[i % 2], "train" if i < 5 else "val") for i in range(6)] + [("4.jpg", "a", "val")]
    table(root / "t.csv", rows, header="image,label,split")


@case(task="multilabel", classes=["rust", "scab"], images=4)
def columns_of_yes_and_no(root: Path) -> None:
    photos(root / "img")
    rows = [("0.jpg", "yes", "no"), ("1.jpg", "no", "yes"), ("2.jpg", "yes", "yes"), ("3.jpg", "no", "no")]
    table(root / "t.csv", rows, header="image,rust,scab")


@case(task="classify", classes=["Bellflower", "Daisy"])
def names_beside_numbers(root: Path) -> None:
    photos(root / "train")
    rows = [(f"{i}.jpg", i % 2, ("Bellflower", "Daisy")[i % 2]) for i in range(4)]
    table(root / "train.csv", rows, header="filename,label,label_name")


@case(error="no column is called label.*set data.label_column to one of: .*dx")
def ham_10000(root: Path) -> None:
    photos(root / "HAM10000_images_part_1", ["I1.jpg", "I2.jpg"])
    photos(root / "HAM10000_images_part_2", ["I3.jpg", "I4.jpg"])
    rows = [(f"H{i // 2}", f"I{i + 1}", ("nv", "mel")[i % 2], "histo", ("male", "female")[i // 2]) for i in range(4)]
    table(root / "metadata.csv", rows, header="lesion_id,image_id,dx,dx_type,sex")


@case(error="masks as run lengths in the column EncodedPixels.*PNG. or COCO JSON")
def run_lengths_of_kaggle(root: Path) -> None:
    photos(root / "train_images")
    table(root / "train.csv", [(f"{i}.jpg", 1 + i % 2, "100 5 124 5") for i in range(4)], header="ImageId,ClassId,EncodedPixels")


@case(layout="table", classes=["cat", "dog"], images=4)
def a_text_with_a_heading(root: Path) -> None:
    photos(root / "images")
    text(root / "labels.txt", "image\tlabel\n" + "".join(f"{i}.jpg\t{('cat', 'dog')[i % 2]}\n" for i in range(4)))


# Containers


@case(error="2 files of MNIST's IDX format.*torchvision:MNIST")
def mnist(root: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (root / f"{name}.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + bytes(20)))


@case(error="3 files of CIFAR's own format.*torchvision:CIFAR10 or torchvision:CIFAR100")
def cifar_pickles(root: Path) -> None:
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        text(root / "cifar-10-batches-py" / name, "\x80\x04")


@case(error="x_test.npy, x_train.npy, y_test.npy and 1 more are arrays of many images or labels .x_test.npy: 2x8x8x3.: save every image")
def arrays_of_many_images(root: Path) -> None:
    for split, n in (("train", 4), ("test", 2)):
        np.save(root / f"x_{split}.npy", np.zeros((n, 8, 8, 3), np.uint8))
        np.save(root / f"y_{split}.npy", np.arange(n))


@case(error="pixels of images .pixel0, pixel1 and 14 more. and not their names")
def mnist_as_a_table(root: Path) -> None:
    table(root / "train.csv", [(1, *[0] * 16)], header="label," + ",".join(f"pixel{i}" for i in range(16)))


@case(error="2 files of archives .such as test.zip. and no images: unpack them")
def archives_alone(root: Path) -> None:
    for name in ("test.zip", "train.zip"):
        text(root / name, "PK")


@case(error="2 files of TFRecord are not read: save the images in them as PNG")
def tfrecords(root: Path) -> None:
    for i in range(2):
        text(root / f"img.tfrecord-0000{i}-of-00002", "x")


@case(layout="folders", images=6, note="6 files of camera raw are not read: convert them")
def raw_beside_jpeg(root: Path) -> None:
    for path in classes(root).rglob("*.jpg"):
        text(path.with_suffix(".CR2"), "x")


@pytest.mark.parametrize("case", case, ids=lambda c: c.name)
def test_it_is_read_as_its_maker_meant_it(case: Case, tmp_path: Path) -> None:
    run(case, tmp_path / "set")


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image,class,x_center,y_center,width,height", ("nut", 0.375, 0.4375, 0.5, 0.458334)),
        ("image,class,cx,cy,w,h", ("nut", 12, 10.5, 16, 11)),
        ("patientId,Target,x,y,width,height", ("nut", 4, 5, 16, 11)),
        ("image,class,xtl,ytl,xbr,ybr", ("nut", 4, 5, 20, 16)),
    ],
)
def test_boxes_in_other_columns(tmp_path: Path, header: str, row: tuple[object, ...]) -> None:
    photos(tmp_path / "images", FOUR[:2])
    table(tmp_path / "boxes.csv", [(name, *row) for name in FOUR[:2]], header=header)
    source = open_annotated(tmp_path, task="auto", data=Data())
    assert source is not None and source.classes == ("nut",)
    assert np.allclose(objects(source, "all").boxes, [[4, 5, 20, 16]], atol=1e-3)


def test_a_json_of_splits_in_rows(tmp_path: Path) -> None:
    """As CoOp writes it: [file, number, class]."""
    from convmix.data.inspection import inspect

    classes(tmp_path / "images")
    rows = {split: [[f"{c}/{i}.jpg", 0, c] for c in ("cat", "dog") for i in of] for split, of in (("train", (0, 1)), ("test", (2,)))}
    text(tmp_path / "split_zhou.json", json.dumps(rows))
    assert inspect(tmp_path).splits == {"train": 4, "test": 2}
