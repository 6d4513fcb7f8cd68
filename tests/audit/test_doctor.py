"""The verb: every form of data, the files it writes, the page in a browser, mistakes."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import look_at
from planted import Planted
from rich.console import Console
from written import Item, make_items, write_folder, write_parquet, write_shards, write_table

from convmix.audit import image_facts as looking
from convmix.audit.doctor import Examination, doctor, table
from convmix.audit.image_facts import collect
from convmix.config import Data
from convmix.data import parallel_map as sweeping
from convmix.data.sources import open_source
from convmix.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """The pictures of `written.py`, the first training image once more in test."""
    items = make_items()
    return [*items, ("test", items[0][1], items[0][2])]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "table", "parquet", "shards"])
def test_every_form_that_training_reads(items: list[Item], form: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if form == "folder":
        write_folder(data, items, {s: s for s in ("train", "val", "test")})
    elif form == "table":
        data = write_table(data, items)
    elif form == "parquet":
        write_parquet(data, items)
    else:
        write_shards(data, items, lambda c: ("cls", str(c).encode()))
    examined = doctor(data, output=tmp_path / "found", workers=0)
    assert examined.images == {"train": 12, "val": 6, "test": 4}
    (leak,) = [f for f in examined.findings if f.kind == "leak"]
    assert (leak.split, leak.other_split) == ("test", "train") and leak.about in ("same bytes", "same pixels")
    assert {f.kind for f in examined.findings} <= {"leak", "class balance"}


@pytest.mark.slow
def test_what_is_written(examined: Examination, planted: Planted) -> None:
    assert sorted(p.name for p in examined.output.parent.iterdir()) == [
        "photos-health-classes.png", "photos-health.csv", "photos-health.html", "photos-health.json",
    ]  # fmt: skip
    with examined.output.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(examined.findings)
    assert {row["image"] for row in rows if row["kind"] == "truncated"} == planted.names["truncated"]
    (row,) = [row for row in rows if row["image"] == "test/ant/leaked_0.jpg" and row["kind"] == "leak"]
    assert (row["split"], row["severity"], row["about"], row["other_split"]) == ("test", "harmful", "same bytes", "train")
    written = json.loads(examined.output.read_text())
    assert written["found"]["truncated"] == {"count": 10, "severity": "harmful"}
    assert written["images"] == examined.images and written["fix"] is None
    assert sum(n for of_class in written["classes"].values() for n in of_class.values()) == sum(examined.images.values()) - 14


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)])
def test_the_page_in_a_browser(examined: Examination, width: int, dark: bool) -> None:
    assert examined.page.stat().st_size < 5e6
    seen = look_at(examined.page, width=width, dark=dark)
    assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
    for text in ("Near leak", "train/ant/cut_20.jpg", "nearly the same, mirrored", "on its side", "test, bee"):
        assert text in seen.text


@pytest.mark.slow
def test_the_table_for_a_terminal(examined: Examination) -> None:
    console = Console(file=io.StringIO(), width=110)
    console.print(table(examined))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("truncated") < text.index("near leak") < text.index("duplicate") < text.index("odd mode")
    assert f"page: {examined.page}"[:60] in text.replace("\n", "") and "--fix photos-clean" in text


def test_healthy_data(tmp_path: Path, real_photos: list[Path]) -> None:
    for i, photo in enumerate(real_photos[::30]):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg")
    examined = doctor(tmp_path / "photos", output=tmp_path / "found", workers=0)
    assert examined.counts == {} and examined.images == {"all": 70}
    console = Console(file=io.StringIO(), width=110)
    console.print(table(examined))
    assert "nothing was found" in console.file.getvalue()  # type: ignore[attr-defined]


def test_classes(tmp_path: Path) -> None:
    """Rare, missing, uneven and unevenly split classes are said."""
    rng = np.random.default_rng(0)
    counts = {("train", 0): 120, ("train", 1): 12, ("train", 2): 9, ("test", 0): 2, ("test", 1): 8}
    items = [(s, c, rng.integers(0, 256, (6, 6, 3), np.uint8)) for (s, c), n in counts.items() for _ in range(n)]
    write_folder(tmp_path / "data", items, {"train": "train", "test": "test"})
    examined = doctor(tmp_path / "data", output=tmp_path / "found", near=False, workers=0)
    said = {(f.split, f.label): f.about for f in examined.findings if f.kind == "class balance"}
    assert "9 readable images" in said["train", "emu"]
    assert said["train", ""] == "120 images of cat for 9 of emu"
    assert "no image in test" in said["test", "emu"]
    assert "71% of the images apart" in said["test", ""]
    assert len(said) == 4


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(tmp_path: Path) -> None:
    source = open_source("digits", Data())
    alone = collect(source, Data(), workers=0)
    together = collect(source, Data(), workers=2)
    for name in ("digest", "pixels", "height", "mode", "contrast", "thumbnail", "label"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))


@pytest.mark.slow
def test_an_image_that_kills_its_process_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    real = looking.decode

    def crash(encoded: bytes, **options: int) -> object:
        if encoded == b"poison":
            os._exit(11)
        return real(encoded, **options)

    monkeypatch.setattr(looking, "decode", crash)
    monkeypatch.setattr(sweeping, "SMALL", 10)
    write_folder(tmp_path / "data", make_items())
    (tmp_path / "data/cat/poison.png").write_bytes(b"poison")
    examined = doctor(tmp_path / "data", output=tmp_path / "found", workers=2)
    (found,) = [f for f in examined.findings if f.kind == "unreadable"]
    assert (found.image, found.about) == ("cat/poison.png", "decoding it ends the process")


def test_bands_beyond_three(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).random((4, 30, 40, 5), np.float32)
    for i in range(4):
        (tmp_path / "fields" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "fields" / "ab"[i % 2] / f"{i}.npy", bands[i])
    np.save(tmp_path / "fields/a/copy.npy", bands[0])
    examined = doctor(tmp_path / "fields", in_chans=5, output=tmp_path / "found", workers=0)
    assert {k: n for k, n in examined.counts.items() if k != "class balance"} == {"duplicate": 1}


def test_mistakes(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        doctor(tmp_path / "nowhere", output=tmp_path / "found")
    with pytest.raises(ConfigError, match="workers: -1"):
        doctor(photos, workers=-1)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        doctor(photos, output=tmp_path / "file")
    for label in "ab":
        (tmp_path / "broken" / label).mkdir(parents=True)
        (tmp_path / "broken" / label / "x.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of its 2 images can be read; the first: a/x.png"):
        doctor(tmp_path / "broken", output=tmp_path / "found")
    assert not (tmp_path / "found").exists()


@pytest.mark.slow
def test_clean_cifar10(shared: Path, tmp_path: Path) -> None:
    """The first 3,000 and 6,000 pictures of its splits, without a broken one. Its near copies are real: all pairs were looked at
    (docs/how_to/doctor.md), of which there are many more among all 60,000 pictures."""
    data = tmp_path / "cifar10"
    data.mkdir()
    for name, n in (("train-00000-of-00002", 3000), ("test-00000-of-00001", 6000)):
        table = pq.read_table(shared / "data" / "cifar10" / f"{name}.parquet").slice(0, n)
        pq.write_table(table, data / f"{name.partition('-')[0]}-00000-of-00001.parquet")
    examined = doctor(data, output=tmp_path / "found", workers=0)
    assert examined.images == {"train": 3000, "test": 6000}
    assert examined.counts.keys() == {"near leak", "near duplicate"}
    assert 4 <= examined.counts["near leak"] <= 6  # 5, and 13, but for what the last bits of a correlation decide
    assert 12 <= examined.counts["near duplicate"] <= 14
