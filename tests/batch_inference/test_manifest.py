"""A job goes on only with what it was begun with."""

from dataclasses import replace
from pathlib import Path

import pytest

from convmix.batch_inference.blocks import Images
from convmix.batch_inference.listing import Entry
from convmix.batch_inference.manifest import Division, Manifest, Settings, open_job, read_block
from convmix.batch_inference.storage import Folder
from convmix.errors import ConfigError

SETTINGS = Settings(top=1, threshold=None, precision="auto", part_size=2, image_column=None, name_column=None)
BLOCKS = (Images((Entry("a.png", 1, "1"), Entry("b.png", 1, "1"))), Images((Entry("c.png", 1, "1"),)))


def begin(
    folder: Path | str, blocks: tuple[Images, ...] = BLOCKS, *, data: str = "photos", model: str = "m", settings: Settings = SETTINGS
) -> tuple[Manifest, Division]:
    return open_job(Folder(folder), iter(blocks), data=data, model=model, settings=settings)


@pytest.mark.parametrize("place", ["out", "memory://manifest/out"])
def test_a_job_is_found_again(tmp_path: Path, place: str) -> None:
    folder = place if "://" in place else str(tmp_path / place)
    manifest, division = begin(folder)
    again, found = begin(folder)
    assert again == manifest and again.key == manifest.key and len(found) == len(division) == 2
    assert [read_block(Folder(folder), found.span(n)) for n in range(2)] == list(BLOCKS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "other"}, "the input was photos and is other"),
        ({"model": "n"}, "another model"),
        ({"settings": replace(SETTINGS, top=3, threshold=0.5)}, "top was 1 and is 3; threshold was left out and is 0.5"),
        ({"blocks": BLOCKS[:1]}, "input has changed: c.png is gone"),
        ({"blocks": (*BLOCKS, Images((Entry("d.png"),)))}, "input has changed: d.png is new"),
        ({"blocks": (BLOCKS[0], Images((Entry("c.png", 1, "2"),)))}, "input has changed: c.png was written again"),
    ],
)
def test_what_changed_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    before, _ = begin(tmp_path)
    with pytest.raises(ConfigError, match=message):
        begin(tmp_path, **change)  # type: ignore[arg-type]
    assert begin(tmp_path)[0] == before, "a refused call must leave the job as it was"


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other things \(thesis.txt\)"):
        begin(tmp_path)
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        begin(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_job_that_was_stopped_while_it_listed_begins_anew(tmp_path: Path) -> None:
    begin(tmp_path, BLOCKS[:1])
    (tmp_path / "_manifest.json").unlink()
    (tmp_path / "._blocks.jsonl.abc").touch()
    assert len(begin(tmp_path)[1]) == 2


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "_manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"_manifest.json does not describe a job"):
        begin(tmp_path)
