"""Links to devices and pipes among the images of a data set hold nothing up: they are listed, and the rest is read."""

import json
import os
from pathlib import Path

import pytest

from convmix.config import Data
from convmix.data.decode import BadImage, turned_by_exif, upright_size
from convmix.data.readers.pixelmaps import mode_of
from convmix.data.regular import open_regular
from convmix.data.scan import scan
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from tests.tiny_run import write_folder

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")]


def put_odd_files(folder: Path, suffix: str) -> None:
    (folder / f"device{suffix}").symlink_to("/dev/zero")
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"linked_pipe{suffix}").symlink_to(folder / f"pipe{suffix}")


@pytest.fixture
def odd(tmp_path: Path) -> list[Path]:
    put_odd_files(tmp_path, ".png")
    return sorted(tmp_path.iterdir())


def test_what_is_no_file_is_not_opened(odd: list[Path]) -> None:
    for path in odd:
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
        with pytest.raises(BadImage, match="not a regular file"):
            upright_size(path, in_chans=3, max_pixels=10**6)
        assert (turned_by_exif(path), mode_of(path)) == (1, "")


@pytest.mark.parametrize("suffix", [".png", ".xml", ".txt", ".json", ".csv", "", ".yaml"])
def test_a_folder_of_classes_is_read_without_them(tmp_path: Path, suffix: str) -> None:
    data = write_folder(tmp_path / "data", {"a": 8, "b": 8})
    put_odd_files(data / "a", suffix)
    put_odd_files(data, suffix)
    source = open_source(str(data), Data())
    scanned = scan(with_splits(source, Data()), Data(), workers=0)
    assert sum(len(split.ok) for split in scanned.splits.values()) == 16


def test_images_that_annotations_name_are_listed_as_broken(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", {"images": 6})
    put_odd_files(data / "images", ".png")
    names = sorted(path.name for path in (data / "images").iterdir())
    images = [{"id": i, "file_name": name, "width": 12, "height": 12} for i, name in enumerate(names)]
    objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 6, 6], "area": 36, "iscrowd": 0} for i in range(len(names))]
    (data / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]})
    )
    source = open_source(str(data), Data())
    scanned = scan(with_splits(source, Data()), Data(), workers=0)
    reasons = [reason for _, _, reason in scanned.bad]
    left_out = [why for _, why in source.dropped]
    assert sum("regular" in text or "no such" in text for text in (*reasons, *left_out)) >= 1
    assert sum(int(split.ok.sum()) for split in scanned.splits.values()) == 6
