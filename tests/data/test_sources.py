"""Mistakes are named, and examples keep their numbers wherever they go."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from written import Item, encoded, write_folder, write_parquet

from convmix.config import Data
from convmix.data.decode import decode
from convmix.data.formats import split_word
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache")


def test_digits_are_the_embedded_scans() -> None:
    from sklearn.datasets import load_digits

    examples = open_source("digits", DATA).splits["all"]
    assert (len(examples), examples.classes) == (1797, tuple("0123456789"))
    np.testing.assert_array_equal(examples.labels, load_digits().target)
    image = np.asarray(decode(examples.source(7), in_chans=1, max_pixels=64))
    np.testing.assert_array_equal(image, np.rint(load_digits().images[7] * 255 / 16))


def test_mistakes_are_named(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path / "photos", items, {"train": "train", "val": "val", "test": "test"})
    (tmp_path / "empty").mkdir()
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "1.png").write_bytes(encoded(items[0][2]))
    (flat / "notes.csv").write_text("weather,place\nsunny,hill\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "convmix.json").write_text("{}")
    (tmp_path / "x.xyz").touch()
    (tmp_path / "x.zip").touch()
    (tmp_path / "x.csv").touch()
    for spec, said in {
        str(tmp_path / "potos"): r"no such file or folder, did you mean .*/photos\?",
        str(tmp_path / "photos" / "trian"): r"did you mean .*/photos/train\?",
        "phots": "no such file or folder.*expected a folder of class folders",
        str(tmp_path / "empty"): "holds no images; expected ROOT/CLASS/image.jpg",
        str(flat): r"1 images but no class folders.*give its table: .*notes\.csv",
        str(tmp_path / "photos" / "train" / "cat"): "4 images but no class folders",
        str(run): "is a model directory",
        str(tmp_path / "x.xyz"): "unknown type",
        str(tmp_path / "x.zip"): "unpack it",
        str(tmp_path / "x.csv"): "is empty",
        str(flat / "1.png"): "is an image, not a data set",
        "": "no data set given",
    }.items():
        with pytest.raises(DataError, match=said):
            open_source(spec, DATA)


def test_evaluation_classes_must_be_training_classes(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items, {"train": "train", "val": "val", "test": "test"})
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "lynx")
    with pytest.raises(DataError, match="val split has classes that the training images do not have: lynx"):
        open_source(tmp_path, DATA)


def test_unlabelled_test_folder_is_left_out(tmp_path: Path, items: list[Item]) -> None:
    write_folder(tmp_path, items, {"train": "train", "val": "val", "test": "val"})
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(encoded(items[0][2]))
    source = open_source(tmp_path, DATA)
    assert set(source.splits) == {"train", "val"}
    assert ("test/1.png", "an image of the test split without a class") in source.dropped


def test_unlabelled_rows_of_a_class_number_column_are_left_out(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, [(s, c if s == "train" else -1, x) for s, c, x in items])
    source = open_source(tmp_path, DATA)
    assert set(source.splits) == {"train"}
    assert ("test", "none of its 3 images has a label") in source.dropped


def test_examples_travel_to_worker_processes(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    examples = open_source(tmp_path, DATA).splits["train"].select([5, 1])
    copy = pickle.loads(pickle.dumps(examples))
    assert [copy.source(i) for i in range(2)] == [examples.source(i) for i in range(2)]
    assert copy.names == ["train[5]", "train[1]"]
    assert copy.labels.tolist() == examples.labels.tolist()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Valid", "val"),
        ("validation-00000-of-00001.parquet", "val"),
        ("test_1.tar", "test"),
        ("trainer", None),
        ("x", None),
    ],
)
def test_split_words(name: str, split: str | None) -> None:
    assert split_word(name) == split
