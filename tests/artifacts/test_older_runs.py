"""Model directories that an earlier version wrote (runs_0_1/, commit 147e474): every verb reads them and answers as that version did."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import convmix
from tests.command_line import Command

RUNS = Path(__file__).parent / "runs_0_1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with the photos that the classifier was trained on; job.json names them relative to the working folder."""
    shutil.copytree(RUNS, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def expected(task: str) -> Any:
    return json.loads((RUNS / "expected.json").read_text())[task]


def test_a_classifier_gives_the_stored_probabilities(here: Path) -> None:
    rows = convmix.load("classify").predict([f"photos/{row['name']}" for row in expected("classify")])
    assert [row.label for row in rows] == [row["label"] for row in expected("classify")]
    assert [row.probability for row in rows] == pytest.approx([row["probability"] for row in expected("classify")], abs=1e-4)


def test_a_detector_gives_the_stored_boxes(here: Path) -> None:
    [row] = convmix.load("detect").predict("image_detect.png", threshold=0.0)
    found, stored = row.to_dict()["objects"], expected("detect")["objects"]
    assert len(stored) > 2 and [o["label"] for o in found] == [o["label"] for o in stored]
    assert [o["score"] for o in found] == pytest.approx([o["score"] for o in stored], abs=1e-3)
    for a, b in zip(found, stored, strict=True):
        assert a["box"] == pytest.approx(b["box"], abs=0.1)


def test_a_segmenter_gives_the_stored_shares(here: Path) -> None:
    [row] = convmix.load("segment").predict("image_segment.png")
    assert row.to_dict()["shares"] == pytest.approx(expected("segment")["shares"], abs=0.01)


@pytest.mark.slow
def test_every_verb_reads_a_classifier(here: Path, command: Command) -> None:
    for words in (
        ("evaluate", "classify", "--precision", "fp32"),
        ("explain", "classify", "photos/cat/3.png", "--output", "explained"),
        ("doctor", "photos", "--run", "classify", "--output", "doctor.html"),
        ("push", "classify", "./pushed"),
    ):
        done = command(*words)
        assert done.code == 0, (words, done.err)
    assert "20 images" in command("evaluate", "classify", "photos").out
    done = command("calibrate", "classify")  # read, and refused for its two validation images
    assert (done.code, "2 images that can be read are too few to calibrate on" in done.err) == (2, True)


def test_a_finished_training_is_extended(here: Path, command: Command) -> None:
    done = command("train", "classify", "--resume", "--epochs", "3", "--device", "cpu")
    assert done.code == 0, done.err
    assert len((here / "classify/curves.csv").read_text().splitlines()) == 4  # the header and three epochs


@pytest.mark.slow
def test_an_old_run_is_exported(here: Path, command: Command) -> None:
    done = command("export", "classify", "onnx")
    assert done.code == 0, done.err
