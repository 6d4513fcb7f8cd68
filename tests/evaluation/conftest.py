"""A run with recorded splits, shared by the tests of its evaluation."""

from pathlib import Path

import pytest
from tiny_run import LABELS, make_run, write_folder

from convmix.artifacts.artifact import Artifact
from convmix.evaluation import score


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/{train,val,test}/{ant,bee,cat}: 4, 2 and 3 images a class, all different."""
    for i, (split, n) in enumerate({"train": 4, "val": 2, "test": 3}.items()):
        write_folder(tmp_path / "photos" / split, dict.fromkeys(LABELS, n), seed=100 * i)
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Artifact:
    """An untrained run on `photos`."""
    splits = {split: photos / split for split in ("train", "val", "test")}
    return make_run(tmp_path / "run", splits=splits, spec=str(photos))


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second per evaluation; the page and its pictures have tests of their own."""
    monkeypatch.setattr(score, "write_page", lambda *arguments: [])
