"""CSV, TSV and parquet give the same labels and pixels as the folder they were written from."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from written import NAMES, Item, content, encoded, expected, write_folder, write_parquet, write_table

from convmix.config import Data
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["path,label,split", "File Name,Class,subset", "image_path,species,SPLIT"])
def test_tables_by_column_name(tmp_path: Path, items: list[Item], delimiter: str, header: str) -> None:
    assert content(open_source(write_table(tmp_path, items, delimiter, header), DATA)) == expected(items)


def test_table_columns_can_be_named(tmp_path: Path, items: list[Item]) -> None:
    table = write_table(tmp_path, items, header="foto,art,split")
    assert content(open_source(table, Data(image_column="foto", label_column="art"))) == expected(items)
    assert content(open_source(table, DATA)) == expected(items)  # the one column that names files, and the one beside it and the split
    two = tmp_path / "two.csv"
    two.write_text("foto,art,ort\na.png,x,here\nb.png,y,there\n")
    with pytest.raises(DataError, match=r"data\.image_column.*foto, art, ort"):
        open_source(two, DATA)
    with pytest.raises(DataError, match=r"data\.label_column.*foto, art, ort"):
        open_source(two, Data(image_column="foto"))
    with pytest.raises(DataError, match=r"no column 'fot' .*did you mean foto\?"):
        open_source(table, Data(image_column="fot", label_column="art"))


def test_table_without_a_header(tmp_path: Path, items: list[Item]) -> None:
    table = write_table(tmp_path, items)
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()[1:]))
    assert content(open_source(table, DATA)) == expected(items, "all")


def test_table_rows_without_label_are_listed_and_missing_files_kept(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('path,label\n"a, ""b"".png",x\ngone.png,y\nc.png,\n,x\n\n/abs/d.png,x\n', encoding="utf-8-sig")
    source = open_source(table, DATA)
    assert source.splits["all"].names == ['a, "b".png', "gone.png", "/abs/d.png"]
    assert source.splits["all"].source(0) == str(tmp_path / 'a, "b".png')
    assert source.splits["all"].source(2) == "/abs/d.png"
    assert source.dropped == [("c.png", "no label"), ("t.csv line 5", "no path")]


def test_whole_number_labels_are_sorted_by_value_and_named_by_their_text(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(f"{i}.png,{v}\n" for i, v in enumerate([30, 4, 100, 4])))
    source = open_source(table, DATA)
    assert source.classes == ("4", "30", "100")
    assert source.splits["all"].labels.tolist() == [1, 0, 2, 0]


def test_unknown_split_value_names_the_row(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\na.png,x,train\nb.png,x,tset\n")
    with pytest.raises(DataError, match=r"row 3: unknown split 'tset', did you mean test\?"):
        open_source(table, DATA)


# Parquet


@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_shards_by_file_name(tmp_path: Path, items: list[Item], image: str) -> None:
    write_parquet(tmp_path, items, image)
    source = open_source(tmp_path, DATA)
    assert content(source) == expected(items)
    assert source.classes == NAMES
    assert source.splits["train"].name(3) == "train[3]"


def test_one_parquet_file_is_one_split(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    source = open_source(tmp_path / "test-00000-of-00001.parquet", DATA)
    assert content(source) == expected([r for r in items if r[0] == "test"], "all")
    assert content(open_source(str(tmp_path / "*.parquet"), DATA)) == expected(items)


@pytest.mark.parametrize("kind", ["binary", "path"])
def test_parquet_of_plain_columns(tmp_path: Path, items: list[Item], kind: str) -> None:
    write_folder(tmp_path, items)
    values = [encoded(x) if kind == "binary" else f"{NAMES[c]}/{i}.png" for i, (_, c, x) in enumerate(items)]
    rows = datasets.Dataset.from_dict({"other": [0.5] * len(items), "image": values, "label": [NAMES[c] for _, c, _ in items]})
    rows.to_parquet(tmp_path / "all.parquet")
    source = open_source(tmp_path / "all.parquet", DATA)
    assert content(source) == expected(items, "all")
    assert source.splits["all"].name(0) == ("all[0]" if kind == "binary" else "cat/0.png")


def test_parquet_that_changes_is_read_anew(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path, items)
    open_source(tmp_path, DATA)
    write_parquet(tmp_path, items[3:])
    assert content(open_source(tmp_path, DATA)) == expected(items[3:])


def test_broken_parquet_and_foreign_columns_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_source(tmp_path / "a.parquet", DATA)
    datasets.Dataset.from_dict({"image": [[1, 2]], "label": [0]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="expected encoded images"):
        open_source(tmp_path / "b.parquet", DATA)


def test_saved_dataset_folder(tmp_path: Path, items: list[Item]) -> None:
    write_parquet(tmp_path / "p", items)
    saved = datasets.load_dataset("parquet", data_dir=str(tmp_path / "p"))
    saved.save_to_disk(str(tmp_path / "saved"))
    assert content(open_source(tmp_path / "saved", DATA)) == expected(items)


def test_cifar10_opens_with_its_names(shared: Path) -> None:
    source = open_source(shared / "data" / "cifar10", DATA)
    assert {s: len(e) for s, e in source.splits.items()} == {"train": 50000, "test": 10000}
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert len(source.classes) == 10
    assert np.bincount(source.splits["test"].labels).tolist() == [1000] * 10


def test_lists_of_labels_are_several_labels(tmp_path: Path) -> None:
    """Numbers of classes with their names in the schema, as `datasets` writes them."""
    pixels = [Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)) for i in range(4)]
    features = datasets.Features(
        {"image": datasets.Image(), "labels": datasets.Sequence(datasets.ClassLabel(names=["sun", "rain", "wind"]))}
    )
    rows = datasets.Dataset.from_dict({"image": pixels, "labels": [[0], [1, 2], [], [2]]}, features=features)
    rows.to_parquet(str(tmp_path / "train.parquet"))
    source = open_source(tmp_path, DATA)
    assert (source.task, source.classes) == ("multilabel", ("rain", "sun", "wind"))
    matrix = next(iter(source.splits.values())).label_matrix
    assert matrix is not None and matrix.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]]
