"""The division of an input is complete, deterministic and comparable."""

from dataclasses import replace
from pathlib import Path

import pytest
from large_inputs import write_table

from convmix.batch_inference.blocks import Block, Images, RowBlock, ShardBlock, difference, divide, from_line, to_line
from convmix.batch_inference.listing import Entry
from convmix.errors import DataError


def divided(*entries: Entry, part_size: int = 3, image: str | None = None, name: str | None = None) -> list[Block]:
    return list(divide(entries, part_size=part_size, image_column=image, name_column=name))


def test_single_images_fill_partitions_and_shards_are_whole() -> None:
    blocks = divided(*(Entry(f"{i}.png") for i in range(4)), Entry("a.tar"), Entry("4.png"))
    assert [type(b) for b in blocks] == [Images, ShardBlock, Images]
    assert [[f.name for f in b.files] for b in blocks] == [["0.png", "1.png", "2.png"], ["a.tar"], ["3.png", "4.png"]]


def test_row_groups_are_joined_but_never_cut(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [b"x"] * 11, group=2)
    blocks = [b for b in divided(Entry(str(path)), part_size=5) if isinstance(b, RowBlock)]
    assert [(b.groups, b.first, b.count) for b in blocks] == [((0, 2), 0, 4), ((2, 4), 4, 4), ((4, 6), 8, 3)]
    [block] = divided(Entry(str(write_table(tmp_path / "u.parquet", [b"x"] * 11))))
    assert isinstance(block, RowBlock) and block.count == 11


def test_a_line_gives_the_block_back(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [b"x"], ["a"])
    for block in divided(Entry("odd\udcff.png", 3, "v"), Entry("a.tar"), Entry(str(path), 1, "w")):
        assert from_line(to_line(block)) == block and to_line(block).count(b"\n") == 1


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        ("imag", None, r"no column 'imag' for image_column, did you mean image\?"),
        ("id", None, "column 'id' is string; expected encoded images"),
        (None, "name", "no column 'name' for name_column"),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, image: str | None, name: str | None, message: str) -> None:
    path = write_table(tmp_path / "t.parquet", [b"x"], ["a"])
    with pytest.raises(DataError, match=message):
        divided(Entry(str(path)), image=image, name=name)


def test_a_table_without_images_or_that_is_none_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"no column may hold images .* columns: a \(int64\)"):
        divided(Entry(str(tmp_path / "t.parquet")))
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        divided(Entry(str(tmp_path / "t.parquet")))


def test_what_changed_between_two_divisions_is_named() -> None:
    before = Images((Entry("a.png", 1, "1"), Entry("b.png", 2, "1")))
    assert difference(before, Images(before.files[:1])) == "b.png is gone"
    assert difference(before, Images((*before.files, Entry("aa.png")))) == "aa.png is new"
    assert difference(before, Images((before.files[0], replace(before.files[1], version="2")))) == "b.png was written again"
    assert difference(None, before) == "a.png is new"
    assert difference(before, None) == "a.png is gone"
    shifted = Images((Entry("b.png", 2, "1"), Entry("c.png", 2, "1")))  # a.png was taken away, so c.png moved up from the next block
    assert difference(before, shifted) == "a.png is gone"
