"""The user's own table: found, matched to the images by name, cut into groups, and refused where it does not fit."""

from pathlib import Path

import numpy as np
import pytest

from convmix.artifacts.artifact import Artifact
from convmix.errors import ConfigError, ConvmixError, DataError
from convmix.evaluation import evaluate
from convmix.evaluation.attributes import read_attributes

pytestmark = pytest.mark.usefixtures("without_page")

NAMES = ("test/ant/0.png", "test/ant/1.png", "test/bee/0.png", "test/bee/7.png")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def groups(spec: str, names: tuple[str, ...] = NAMES) -> dict[str, list[str]]:
    """Column -> the group of every image."""
    found = read_attributes(spec, names).groupings(np.arange(len(names)))
    return {g.by: [g.values[i] for i in g.groups] for g in found}


@pytest.mark.parametrize("header", ["name", "File", "filename", "PATH"])
def test_images_are_found_by_their_whole_name(tmp_path: Path, header: str) -> None:
    table = write(tmp_path / "t.csv", f"camera,{header}\nA,test/ant/0.png\nB,./test/bee/0.png\nB,test\\ant\\1.png\n")
    assert groups(table) == {"camera": ["A", "B", "B", "not given"]}
    assert read_attributes(table, NAMES).notes == (f"1 of 4 images have no row in {table}",)


def test_a_file_name_suffices_where_it_is_the_only_one(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "file,camera\n7.png,A\nelsewhere/1.png,B\n0.png,C\n")
    assert groups(table) == {"camera": ["not given", "B", "not given", "A"]}  # there are two images 0.png


def test_the_asked_columns_are_taken(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "name,a,b,c\n" + "".join(f"{n},{i},x{i},y\n" for i, n in enumerate(NAMES)))
    assert list(groups(table)) == ["a", "b", "c"]
    assert list(groups(f"{table}:c,a")) == ["c", "a"]


def test_numbers_are_cut_into_quarters_unless_they_are_few(tmp_path: Path) -> None:
    names = tuple(f"{i}.png" for i in range(8))
    table = write(tmp_path / "t.csv", "name,age,year\n" + "".join(f"{n},{i / 2},{2020 + i % 2}\n" for i, n in enumerate(names)))
    found = groups(table, names)
    assert found["age"] == ["0.0 to 0.5"] * 2 + ["1.0 to 1.5"] * 2 + ["2.0 to 2.5"] * 2 + ["3.0 to 3.5"] * 2
    assert found["year"] == ["2020", "2021"] * 4


def test_text_of_too_many_values_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    names = tuple(f"{i}.png" for i in range(40))
    table = write(tmp_path / "t.csv", "name,note,place\n" + "".join(f"{n},n{i},p{i % 2}\n" for i, n in enumerate(names)))
    assert list(groups(table, names)) == ["place"]
    assert any("column note" in note and "40 values" in note for note in read_attributes(table, names).notes)
    assert list(groups(f"{table}:note", names)) == ["note"]


def test_tabs_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes("\ufeffname\tcamera\ntest/ant/0.png\tA\ntest/ant/1.png\tB\n".encode())
    assert groups(str(tmp_path / "t.tsv"))["camera"] == ["A", "B", "not given", "not given"]


@pytest.mark.parametrize(
    ("text", "spec", "kind", "message"),
    [
        (
            "name,a\nx.png,1\n",
            "t.csv",
            DataError,
            r"no row is about one of the 4 images; its first row is x\.png, the first image is test/ant/0\.png",
        ),
        ("name,a\n", "t.csv", DataError, "it has no rows"),
        ("id,a\n1,2\n", "t.csv", DataError, "no column names the images; expected one of name, file.*found id, a"),
        ("name,camera\n7.png,A\n", "t.csv:camara", ConfigError, "has no column camara, did you mean camera"),
        ("name,a\n7.png,1\n", "tt.csv", ConfigError, "there is no file .*tt.csv; expected table.csv or table.csv:COLUMN"),
        ("name,a\n7.png,1\n7.png,2\n", "t.csv", DataError, r"1 images have more than one row; the first: 7\.png"),
    ],
)
def test_a_table_that_does_not_fit_says_so(tmp_path: Path, text: str, spec: str, kind: type[ConvmixError], message: str) -> None:
    write(tmp_path / "t.csv", text)
    with pytest.raises(kind, match=message):
        read_attributes(str(tmp_path / spec), NAMES)


def test_a_column_of_the_users_slices_the_scores(run: Artifact, photos: Path) -> None:
    names = [i.name for i in evaluate(run).images]
    table = write(photos.parent / "cameras.csv", "name,camera\n" + "".join(f"{n},{'A' if i < 4 else 'B'}\n" for i, n in enumerate(names)))
    result = evaluate(run, slices=f"{table}:camera")
    right = [i.truth == i.prediction for i in result.images]
    assert [(s.value, s.n, s.correct) for s in result.slices if s.by == "camera"] == [("A", 4, sum(right[:4])), ("B", 5, sum(right[4:]))]
    again = evaluate(run, slices=result.output.with_suffix(".csv"))  # the table of images that evaluation writes is one too
    assert {s.value for s in again.slices if s.by == "truth"} == {"ant", "bee", "cat"}
    own, table_s = ([s for s in again.slices if s.by == by] for by in ("brightness", "brightness (table)"))
    assert [s.n for s in own] == [s.n for s in table_s] != []


def test_a_table_about_other_images_stops_before_anything_is_computed(run: Artifact, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "name,a\nx.png,1\n")
    with pytest.raises(DataError, match="no row is about one of the 9 images"):
        evaluate(run, slices=table)
    assert not (run.path / "evaluation-test.json").exists()
