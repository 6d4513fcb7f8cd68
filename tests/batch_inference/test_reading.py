"""Every image of a block is there once; what cannot be had is there with the reason."""

from pathlib import Path

import fsspec
import pytest
from large_inputs import BROKEN, encoded, write_shard, write_table

from convmix.batch_inference.blocks import Images, RowBlock, ShardBlock, divide
from convmix.batch_inference.listing import Entry
from convmix.batch_inference.reading import sources
from convmix.data.decode import BadImage


def read(block: Images | RowBlock | ShardBlock, folder: Path | str = "") -> dict[str, bytes | str]:
    found = list(sources(block, str(folder)))
    assert len({name for name, _ in found}) == len(found)
    return {name: source.reason if isinstance(source, BadImage) else source for name, source in found}


def test_files_are_read_below_the_folder_the_job_was_started_in(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    fsspec.filesystem("memory").pipe_file("/read/b.png", b"b")
    names = ("a.png", "gone.png", "memory:///read/b.png", "memory:///read/gone.png", f"file://{tmp_path}/a.png")
    found = read(Images(tuple(map(Entry, names))), tmp_path)
    assert found == dict(zip(names, (b"a", "no such file", b"b", "no such file", b"a"), strict=True))


def test_a_failing_store_is_no_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError("connection reset")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fail)
    with pytest.raises(OSError, match="connection reset"):
        read(Images((Entry("memory:///read/b.png"),)))


def test_one_image_of_each_sample_of_a_shard(tmp_path: Path) -> None:
    members = [
        ("x/1.cls", b"0"),
        ("x/1.seg.png", b"mask"),
        ("x/1.jpg", b"one"),
        ("x/2.json", b"{}"),
        ("y/2.WEBP", b"two"),
        (".z.png", b"-"),
    ]
    path = write_shard(tmp_path / "s.tar", members)
    assert read(ShardBlock((Entry(str(path)),))) == {f"{path}/x/1.jpg": b"one", f"{path}/y/2.WEBP": b"two"}


@pytest.mark.parametrize(("cut", "whole"), [(512 * 3 + 100, 1), (512 * 2 + 100, 1), (512 * 4, 2)])  # in an image, in a header, between
def test_a_shard_that_breaks_off_says_so_and_keeps_what_was_before(tmp_path: Path, cut: int, whole: int) -> None:
    path = write_shard(tmp_path / "s.tar", [(f"{i}.png", bytes([i]) * 400) for i in range(3)])
    path.write_bytes(path.read_bytes()[:cut])
    found = read(ShardBlock((Entry(str(path)),)))
    assert [v for v in found.values() if isinstance(v, bytes)] == [bytes([i]) * 400 for i in range(whole)]
    assert "cannot be read to its end" in str(found[str(path)])


def test_a_damaged_header_in_the_middle_of_a_shard_is_not_its_end(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [(f"{i}.png", bytes([i]) * 400) for i in range(3)])
    raw = bytearray(path.read_bytes())
    raw[1024:1100] = b"\xff" * 76
    path.write_bytes(bytes(raw))
    found = read(ShardBlock((Entry(str(path)),)))
    assert list(found) == [f"{path}/0.png", str(path)] and "cannot be read to its end" in str(found[str(path)])


def test_rows_of_a_table_with_their_names(tmp_path: Path) -> None:
    cells = [encoded(tmp_path, 1), None, BROKEN, b"", encoded(tmp_path, 2)]
    for names in (None, ["a", "b", "c", "d", "e"]):
        path = write_table(tmp_path / "t.parquet", cells, names, group=2)
        found: dict[str, bytes | str] = {}
        for block in divide([Entry(str(path))], part_size=2, image_column=None, name_column=None):
            found |= read(block)
        assert list(found) == (names or [f"{path}[{i}]" for i in range(5)])
        assert list(found.values()) == [cells[0], "no image in this row", BROKEN, b"", cells[4]]


def test_a_damaged_row_group_has_a_row_for_each_image(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", [encoded(tmp_path, i) for i in range(6)], group=3)
    blocks = list(divide([Entry(str(path))], part_size=3, image_column=None, name_column=None))
    raw = bytearray(path.read_bytes())
    raw[8:60] = b"\xff" * 52
    path.write_bytes(bytes(raw))
    first, second = (read(block) for block in blocks)
    assert len(first) == 3 and all("cannot be read from here on" in str(v) for v in first.values())
    assert len(second) == 3 and all(isinstance(v, bytes) for v in second.values())
