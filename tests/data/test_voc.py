"""Pascal VOC: both layouts, both ways to count pixels, and every fault listed by file and line while the rest is read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn import draw, objects, unpacked, write

from convmix.data.readers.annotated import open_annotated
from convmix.errors import DataError

GOOD = "<object><name>dog</name><difficult>0</difficult><bndbox>{}</bndbox></object>"


def box(left: object, top: object, right: object, bottom: object) -> str:
    return f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"


def xml(path: Path, *parts: str, size: tuple[int, int] = (20, 30), source: str = "") -> Path:
    """One part a line, the first on line 3."""
    head = (
        f"<annotation>\n<source><annotation>{source}</annotation></source><size><width>{size[1]}</width><height>{size[0]}</height></size>"
    )
    return write(path, "\n".join([head, *parts, "</annotation>"]))


def devkit(root: Path, **lists: str) -> Path:
    """Images 1 to 4, each with one object."""
    for i in range(1, 5):
        draw(root / "JPEGImages" / f"{i}.jpg", seed=i)
        xml(root / "Annotations" / f"{i}.xml", GOOD.format(box(1, 2, 11, 12)))
    for word, text in lists.items():
        write(root / "ImageSets" / "Main" / f"{word}.txt", text)
    return root


def test_lists_make_the_splits_and_trainval_is_left_alone(tmp_path: Path) -> None:
    source = open_annotated(devkit(tmp_path, train="1\n2\n", val="3  1\n", test="4.jpg\n", trainval="1\n2\n3\n"), task="auto")
    assert source is not None and (source.task, source.classes, source.dropped) == ("detect", ("dog",), [])
    assert [(split, e.names) for split, e in source.splits.items()] == [
        ("train", ["JPEGImages/1.jpg", "JPEGImages/2.jpg"]),
        ("val", ["JPEGImages/3.jpg"]),
        ("test", ["JPEGImages/4.jpg"]),
    ]


def test_trainval_is_for_training_where_there_is_no_train(tmp_path: Path) -> None:
    source = open_annotated(devkit(tmp_path, trainval="1\n2\n3\n", test="4\n"), task="auto")
    assert source is not None and {split: len(e) for split, e in source.splits.items()} == {"train": 3, "test": 1}


def test_without_lists_the_images_are_not_split(tmp_path: Path) -> None:
    source = open_annotated(devkit(tmp_path), task="detect")
    assert source is not None and {split: len(e) for split, e in source.splits.items()} == {"all": 4}


@pytest.mark.parametrize("folders", [("",), ("train", "valid")])
def test_xml_beside_the_images_is_read_too(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for folder in folders:
        draw(tmp_path / folder / "a.jpg")
        xml(tmp_path / folder / "a.xml", GOOD.format(box(1, 2, 11, 12)))
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and list(source.splits) == (["all"] if folders == ("",) else ["train", "val"])
    assert objects(source, list(source.splits)[-1]).boxes.tolist() == [[1, 2, 11, 12]]


@pytest.mark.parametrize(("mark", "left"), [("", 1), ("LabelImg", 1), ("PASCAL VOC2012", 0)])
def test_only_the_challenge_counts_pixels_from_one(tmp_path: Path, mark: str, left: int) -> None:
    """A box from the first pixel to the last covers the image of 30x20 there."""
    draw(tmp_path / "a.jpg")
    xml(tmp_path / "a.xml", GOOD.format(box(1, 1, 30, 20)), source=mark)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and objects(source, "all").boxes.tolist() == [[left, left, 30, 20]]


def test_difficult_objects_are_neither_learned_nor_scored_and_parts_are_no_objects(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    part = f"<part><name>tail</name><bndbox>{box(3, 3, 4, 4)}</bndbox></part></object>"
    hard = GOOD.format(box(5, 5, 9, 9)).replace("<difficult>0", "<difficult>1").replace("</object>", part)
    source = open_annotated(xml(tmp_path / "a.xml", GOOD.format(box(1, 2, 11, 12)), hard).parent, task="auto")
    assert source is not None and objects(source, "all").crowd.tolist() == [False, True]
    assert source.classes == ("dog",)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (GOOD.format(box(4, 4, 4, 4)), "without area, 0x0"),
        (GOOD.format(box(9, 4, 4, 8)), "negative size"),
        (GOOD.format(box(31, 4, 40, 8)), "outside the image of 30x20"),
        (GOOD.format(box("nan", 4, 40, 8)), "finite"),
        (GOOD.format(box("left", 4, 40, 8)), "left, 4, 40, 8, expected numbers"),
        (GOOD.format("<xmin>3</xmin>"), "3, nothing, nothing, nothing"),
        ("<object><name>dog</name></object>", "without bndbox"),
        (GOOD.format(box(1, 2, 3, 4)).replace("dog", " "), "without name"),
        (GOOD.format(box(1, 2, 11, 12)), "the same object twice"),
    ],
)
def test_a_faulty_object_is_listed_by_its_line(tmp_path: Path, part: str, reason: str) -> None:
    draw(tmp_path / "a.jpg")
    xml(tmp_path / "a.xml", GOOD.format(box(1, 2, 11, 12)), part)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and len(objects(source, "all")) == 1
    assert [name for name, _ in source.dropped] == ["a.xml:4"]
    assert reason in source.dropped[0][1]


def test_a_box_that_overhangs_is_cut_to_the_image(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    source = open_annotated(xml(tmp_path / "a.xml", GOOD.format(box(-4, 2.5, 31, 12))).parent, task="auto")
    assert source is not None and objects(source, "all").boxes.tolist() == [[0, 2.5, 30, 12]] and source.dropped == []


LAUGHS = '<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n<annotation><folder>&b;</folder></annotation>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>\n<object>\n</annotation>", "broken XML in line 3: mismatched tag; its image is left out"),
        (LAUGHS, "an XML with a DOCTYPE"),
        ("<annotations><object/></annotations>", "an XML of <annotations>"),
        ("", "broken XML in line 1: no element found"),
    ],
)
def test_an_xml_that_cannot_be_read_takes_its_image_with_it(tmp_path: Path, text: str, reason: str) -> None:
    devkit(tmp_path, train="1\n2\n", val="3\n4\n")
    write(tmp_path / "Annotations" / "2.xml", text)
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.splits["train"].names == ["JPEGImages/1.jpg"]
    assert [name for name, _ in source.dropped] == ["Annotations/2.xml"]
    assert source.dropped[0][1].startswith(reason)


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    devkit(tmp_path, train="1\n2\n1\n9\n", val="3\n4\n")
    (tmp_path / "Annotations" / "2.xml").unlink()
    (tmp_path / "JPEGImages" / "4.jpg").unlink()
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and sorted(source.dropped) == [
        ("Annotations/4.xml", "no image 4.jpg or of another suffix"),
        ("ImageSets/Main/train.txt: 9", "no image of this name"),
        ("ImageSets/Main/train.txt:3", "1 is listed twice"),
        ("ImageSets/Main/val.txt: 4", "no image of this name"),
        ("JPEGImages/2.jpg", "an image without XML"),
    ]


def test_an_image_of_another_size_than_annotated_is_listed(tmp_path: Path) -> None:
    devkit(tmp_path)
    xml(tmp_path / "Annotations" / "2.xml", GOOD.format(box(1, 2, 11, 12)), size=(30, 20))
    xml(tmp_path / "Annotations" / "3.xml", GOOD.format(box(1, 2, 11, 12)), size=(0, 0))  # not known, says the image itself
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and len(source.splits["all"]) == 3
    expected = "annotated at 20x30, the upright image is 30x20; its 1 annotations are left out"
    assert source.dropped == [("JPEGImages/2.jpg", expected)]


def test_an_xml_without_objects_is_an_image_without_objects(tmp_path: Path) -> None:
    devkit(tmp_path)
    xml(tmp_path / "Annotations" / "1.xml")
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and [len(objects(source, "all", i)) for i in range(4)] == [0, 1, 1, 1]


def test_a_name_that_only_validation_has_is_dropped_with_the_nearest(tmp_path: Path) -> None:
    devkit(tmp_path, train="1\n2\n4\n", val="3\n")
    xml(tmp_path / "Annotations" / "3.xml", GOOD.replace("dog", "Dog").format(box(1, 2, 11, 12)))
    source = open_annotated(tmp_path, task="auto")
    assert source is not None and source.classes == ("dog",) and len(objects(source, "val")) == 0
    assert source.dropped == [("Annotations/3.xml:3", "of class 'Dog', which the training images do not have, did you mean dog?")]


def test_a_devkit_without_images_is_an_error(tmp_path: Path) -> None:
    devkit(tmp_path)
    shutil.rmtree(tmp_path / "JPEGImages")
    with pytest.raises(DataError, match=r"JPEGImages: holds no images for the 4 files"):
        open_annotated(tmp_path, task="auto")


def test_bccd(shared: Path, tmp_path: Path) -> None:
    source = open_annotated(unpacked(shared / "data" / "bccd_voc.tar.gz", tmp_path), task="auto")
    assert source is not None and (source.task, source.classes) == ("detect", ("Platelets", "RBC", "WBC"))
    assert {split: len(e) for split, e in source.splits.items()} == {"train": 205, "val": 87, "test": 72}
    labels = np.concatenate([objects(source, split, i).labels for split, e in source.splits.items() for i in range(len(e))])
    assert np.bincount(labels).tolist() == [361, 4155 - 2, 372]
    assert source.dropped == [
        ("Annotations/BloodImage_00343.xml:50", "a box without area, 0x0"),
        ("Annotations/BloodImage_00338.xml:158", "a box without area, 0x0"),
    ]
