"""Folders of images, whatever lies in them, give the same labels and pixels."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from written import NAMES, Item, content, encoded, expected, write_folder

from convmix.config import Data
from convmix.data.decode import decode
from convmix.data.sources import open_source

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "VALID", "Test"), ("TRAIN", "dev", "testing")])
def test_folder_with_splits_in_any_letter_case(tmp_path: Path, items: list[Item], names: tuple[str, ...]) -> None:
    write_folder(tmp_path, items, dict(zip(("train", "val", "test"), names, strict=True)))
    source = open_source(tmp_path, DATA)
    assert content(source) == expected(items)
    assert source.classes == NAMES
    assert source.origin == {"train": "given", "val": "given", "test": "given"}


def test_folder_of_classes_is_one_split(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items)
    source = open_source(str(tmp_path), DATA)
    assert content(source) == expected(items, "all")
    assert source.splits["all"].name(0).startswith("cat/")


def test_classes_named_like_splits_stay_classes(tmp_path: Path) -> None:
    for name in ("bus", "train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    source = open_source(tmp_path, DATA)
    assert source.classes == ("bus", "test", "train")
    assert list(source.splits) == ["all"]


def test_nested_folders_count_for_the_class_and_company_is_ignored(tmp_path: Path) -> None:
    deep = tmp_path / "cat" / "2021" / "may"
    deep.mkdir(parents=True)
    good = encoded(np.ones((2, 2, 3), np.uint8))
    for path in (deep / "a.PNG", tmp_path / "cat" / "no_suffix"):
        path.write_bytes(good)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._a.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat" / "paper.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cat" / "a.png").write_bytes(good)
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path, DATA)
    assert source.splits["all"].names == ["cat/2021/may/a.PNG", "cat/no_suffix"]
    assert source.classes == ("cat",)
    assert source.dropped == [("cat/paper.pdf", "not an image by its extension .pdf"), ("empty", "a class folder without images")]


def test_link_loops_end_and_links_are_followed(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path / "far", items)
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "far" / "cat")
    (tmp_path / "far" / "cat" / "loop").symlink_to(tmp_path / "data" / "cat")
    assert len(open_source(tmp_path / "data", DATA).splits["all"]) == 7


def test_order_is_that_of_the_names_whatever_the_file_system_says(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        for file in ("z.png", "ü.png", "10.png", "9.png", "A.png"):
            (tmp_path / name / file).write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    names = open_source(tmp_path, DATA).splits["all"].names
    assert names == [f"{c}/{f}.png" for c in "ab" for f in ("10", "9", "A", "z", "ü")]


def test_class_order_is_the_order_of_the_text_as_in_torchvision(tmp_path: Path) -> None:
    for name in ("10", "9", "B", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    assert open_source(tmp_path, DATA).classes == ("10", "9", "B", "a")


@pytest.mark.parametrize("form", [{"n1": "tench", "n2": "cat"}, {"tench": 0, "cat": 1}, ["tench", "cat"]])
def test_classes_json_gives_readable_names(tmp_path: Path, form: object) -> None:
    ids = ("n1", "n2") if isinstance(form, dict) and "n1" in form else ("0", "1")
    (tmp_path / "classes.json").write_text(json.dumps(form))
    for part in ("train", "val"):
        for name in ids:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.png").write_bytes(encoded(np.zeros((2, 2, 3), np.uint8)))
    assert open_source(tmp_path, DATA).classes == ("tench", "cat")
    assert open_source(tmp_path / "val", DATA).classes == ("tench", "cat")  # the names beside a split's own folder


def test_real_folders_with_wordnet_ids(tmp_path: Path, shared: Path) -> None:
    with tarfile.open(shared / "data" / "imagenette160.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = open_source(tmp_path / "imagenette160", DATA)
    assert {s: len(e) for s, e in source.splits.items()} == {"train": 1300, "val": 400}
    assert source.classes[:2] == ("tench", "English springer")


def test_npy_folder_keeps_every_band(tmp_path: Path) -> None:
    bands = np.random.default_rng(1).random((2, 4, 6, 5), np.float32)
    for i, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", bands[i])
    examples = open_source(tmp_path, DATA).splits["all"]
    for i in range(2):
        np.testing.assert_array_equal(decode(examples.source(i), in_chans=5, max_pixels=100), bands[i])
