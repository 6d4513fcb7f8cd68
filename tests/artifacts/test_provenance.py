"""The validation images of a run are found again in its data, by name and content, with their classes."""

from pathlib import Path

import pytest
import torch
from tiny_run import LABELS, make_run, write_folder, write_image

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.provenance import recorded_digests, recorded_rows
from convmix.atomic import write_csv
from convmix.errors import DataError, RunError
from convmix.inference.task_judge import validation_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/{train,val}/{ant,bee,cat}: 3 and 4 images a class, all different."""
    for i, (split, n) in enumerate({"train": 3, "val": 4}.items()):
        write_folder(tmp_path / "photos" / split, dict.fromkeys(LABELS, n), seed=100 * i)
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Artifact:
    """A run that has recorded them with their names in the data set."""
    artifact = make_run(tmp_path / "run", splits={split: photos / split for split in ("train", "val")}, spec=str(photos))
    rows = [(r["split"], f"{r['split']}/{r['name']}", r["digest"], r["label"]) for r in recorded_rows(artifact)]
    write_csv(artifact.path / "splits.csv", ("split", "name", "digest", "label"), rows)
    return artifact


def test_validation_images_come_prepared_with_their_classes(run: Artifact, photos: Path) -> None:
    images, targets = validation_images(run, at_most=100)
    expected = {(run.labels.index(f.parent.name), run.preprocess.load(str(f)).sum().item()) for f in (photos / "val").rglob("*.png")}
    assert images.shape == (12, 3, 8, 8)
    assert {(int(t), x.sum().item()) for x, t in zip(images, targets, strict=True)} == expected


def test_some_are_taken_evenly_from_all_classes(run: Artifact) -> None:
    images, targets = validation_images(run, at_most=6)
    assert len(images) == 6
    assert torch.bincount(targets).tolist() == [2, 2, 2]


def test_a_changed_image_is_no_validation_image_any_more(run: Artifact, photos: Path) -> None:
    write_image(photos / "val" / "ant" / "0.png", 999)
    assert torch.bincount(validation_images(run, at_most=100)[1]).tolist() == [3, 4, 4]


def test_data_that_is_gone_is_named(run: Artifact, photos: Path) -> None:
    for file in (photos / "val").rglob("*.png"):
        write_image(file, int.from_bytes(str(file).encode()[-9:]) % 10_000 + 5000)
    with pytest.raises(DataError, match=r"none of the validation images of .*run is found in .*photos"):
        validation_images(run, at_most=100)
    photos.rename(photos.with_name("moved"))
    with pytest.raises(DataError, match="the run was trained on"):
        validation_images(run, at_most=100)


def test_a_record_that_cannot_be_read_is_named(run: Artifact) -> None:
    assert {split: sum(n.values()) for split, n in recorded_digests(run).items()} == {"train": 9, "val": 12, "test": 0}
    (run.path / "splits.csv").write_text("split,name\nval,x\n")
    with pytest.raises(RunError, match="has the columns split, name, expected split, name, digest, label"):
        recorded_rows(run)
    (run.path / "splits.csv").write_text("split,name,digest,label\nval,x,1,ant\nval,y\n")
    with pytest.raises(RunError, match="has no digest in row 2"):
        recorded_digests(run)
    (run.path / "splits.csv").write_text("split,name,digest,label\nval,x,1,ant,more\n")
    assert len(recorded_rows(run)) == 1
    (run.path / "splits.csv").unlink()
    with pytest.raises(RunError, match=r"has no splits\.csv"):
        recorded_rows(run)
