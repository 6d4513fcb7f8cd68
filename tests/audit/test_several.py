"""Labels of images that may have several: pairs that are never together, labels that are probably missing, with and without a model."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.provenance import recorded_rows
from convmix.audit.doctor import Examination, doctor
from convmix.config import Data
from convmix.data.sources import open_source
from tests.label_scenes import LABELS
from tests.made_once import MadeOnce
from tests.trained_runs import labelled, multilabel


def write(root: Path, labels: list[tuple[int, ...]], names: tuple[str, ...]) -> Path:
    """Pictures of noise with these labels."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for i in range(len(labels)):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(root / "images" / f"{i:03d}.png")
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", *names), *((f"{i:03d}.png", *row) for i, row in enumerate(labels))])
    return root


def of_kind(found: Examination, kind: str) -> list[str]:
    return [f"{f.label}: {f.about}" if not f.image else f.image for f in found.findings if f.kind == kind]


def test_labels_that_are_never_together_and_company_that_is_missing(tmp_path: Path) -> None:
    """day and night exclude each other; a tree has leaves but for one image, of which somebody forgot them."""
    rows = [(int(i % 2 == 0), int(i % 2), int(i % 3 == 0), int(i % 3 == 0 and i != 33)) for i in range(100)]
    found = doctor(write(tmp_path / "set", rows, ("day", "night", "tree", "leaves")), output=tmp_path / "out", workers=0, near=False)
    [apart] = of_kind(found, "never together")
    assert apart.startswith("day: never on one image with night") and "25" in apart
    assert of_kind(found, "probable missing label") == ["images/033.png"]
    assert found.class_counts["all"] == [50, 33, 50, 34]


def test_unknown_labels_are_no_evidence(tmp_path: Path) -> None:
    """Nobody said anything of night where it is day: the two may well be together."""
    rows = [(1, "") if i % 2 == 0 else (0, 1) for i in range(100)]
    found = doctor(write(tmp_path / "set", rows, ("day", "night")), output=tmp_path / "out", workers=0, near=False)  # type: ignore[arg-type]
    assert not of_kind(found, "never together") and not of_kind(found, "probable missing label")


@pytest.mark.slow
def test_a_model_finds_labels_that_were_taken_away(made_once: MadeOnce, tmp_path: Path) -> None:
    """Of images that it did not learn from: a label is missing that the picture shows, another is given that it does not show."""
    run, data = multilabel(made_once), tmp_path / "data"
    shutil.copytree(labelled(made_once), data)
    held_out = sorted(row["name"] for row in recorded_rows(load_artifact(run)) if row["split"] in ("val", "test"))
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    red = next(r for r in rows if r["red"] == "1" and any(r["image"] in name for name in held_out))
    grey = next(r for r in rows if r["red"] == "0" and any(r["image"] in name for name in held_out))
    red["red"], grey["red"] = "0", "1"
    with (data / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", *LABELS])
        writer.writeheader()
        writer.writerows(rows)
    found = doctor(data, run=run, output=tmp_path / "out", workers=0, near=False)
    assert any(red["image"] in name for name in of_kind(found, "probable missing label"))
    assert any(grey["image"] in name for name in of_kind(found, "probable label error"))
    assert any("was not trained on" in note for note in found.notes)


def test_what_is_kept_is_written_as_one_hot_columns(tmp_path: Path) -> None:
    rows = [(i % 2, "" if i == 3 else int(i % 3 == 0), int(i > 4)) for i in range(20)]
    data = write(tmp_path / "set", rows, LABELS)  # type: ignore[arg-type]
    (data / "images" / "005.png").write_bytes(b"broken")
    before = open_source(data, Data()).splits["all"]
    for clean in ("clean.csv", "clean"):  # a list of the images as they are, and copies of them with a list
        done = doctor(data, fix=tmp_path / clean, output=tmp_path / "out", workers=0, near=False)
        assert done.remedy is not None and (done.remedy.kept, done.remedy.left_out) == (19, 1)
        after = open_source(tmp_path / clean, Data()).splits["all"]
        assert before.classes == after.classes and before.label_matrix is not None and after.label_matrix is not None
        assert after.label_matrix.tolist() == np.delete(before.label_matrix, 5, axis=0).tolist()
    assert len(list((tmp_path / "clean" / "images").iterdir())) == 19
    assert "images/005.png,all,bar|spot,left out: cannot be read" in (tmp_path / "clean" / "changes.csv").read_text()
