"""What an input means, in a fixed order."""

import os
from pathlib import Path

import fsspec
import pytest
from tiny_run import write_folder, write_image

from convmix.batch_inference.listing import entries
from convmix.errors import ConfigError, DataError
from convmix.inference.file_names import find_files


def names(data: object) -> list[str]:
    return [entry.name for entry in entries(str(data))]


def test_a_folder_is_read_in_the_order_of_predict(tmp_path: Path) -> None:
    write_folder(tmp_path, {"b": 3, "a": 12})
    write_image(tmp_path / "z.png", 1)
    write_image(tmp_path / ".hidden/x.png", 1)
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert names(tmp_path) == find_files([str(tmp_path)])
    assert len(names(tmp_path)) == 16


def test_shards_and_tables_count_beside_images(tmp_path: Path) -> None:
    for name in ("a.tar", "b.parquet", "c.jpg", "d.csv"):
        (tmp_path / name).touch()
    assert [Path(n).name for n in names(tmp_path)] == ["a.tar", "b.parquet", "c.jpg"]
    assert [Path(n).name for n in names(tmp_path / "[ab].*")] == ["a.tar", "b.parquet"]


def test_a_file_written_again_has_another_version(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 1)
    [before] = entries(str(path))
    os.utime(path, ns=(1, 1))
    [after] = entries(str(path))
    assert before.name == after.name and before.size == after.size and before.version != after.version


def test_a_list_has_a_name_a_line(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"a.png\r\n\n s3://bucket/b.tar \nodd\xff.png\n")
    assert names(listing) == ["a.png", "s3://bucket/b.tar", "odd\udcff.png"]


def test_a_url_is_listed_through_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    for path in ("/listed/b/2.png", "/listed/a/1.png", "/listed/0.tar", "/listed/.x.png", "/listed/n.txt"):
        memory.pipe_file(path, b"12")
    found = list(entries("memory://listed"))
    assert [e.name for e in found] == ["memory:///listed/0.tar", "memory:///listed/a/1.png", "memory:///listed/b/2.png"]
    assert {e.size for e in found} == {2}
    assert names("memory://listed/*/2.png") == ["memory:///listed/b/2.png"]
    assert names("memory://listed/0.tar") == ["memory:///listed/0.tar"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("phots", "matches nothing, did you mean photos?"),
        ("photos", "has no images"),
        ("no/photos", "there is no folder"),
        ("x.txt", "list"),
    ],
)
def test_an_input_that_means_nothing_is_an_error(tmp_path: Path, data: str, message: str) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        names(tmp_path / data)


def test_nothing_at_a_url_is_an_error() -> None:
    with pytest.raises(DataError, match="matches nothing"):
        names("memory://nowhere/at/all")


def test_a_scheme_without_its_package_names_it() -> None:
    with pytest.raises(ConfigError, match=r"gcss://.*did you mean gcs\?"):
        names("gcss://bucket/a")
    with pytest.raises(ConfigError, match="adlfs"):  # which no extra of this project installs
        names("abfs://bucket/a")
