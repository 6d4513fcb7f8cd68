"""Several labels per image from the table to the finished run, and what the verbs make of it."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import convmix
from convmix.artifacts.artifact import load_artifact
from convmix.config import Data
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from convmix.errors import ConfigError, DataError
from convmix.evaluation import table
from convmix.evaluation.dense_result import LabelsEvaluation
from tests.command_line import Command
from tests.label_scenes import LABELS, write_labels
from tests.made_once import MadeOnce
from tests.trained_runs import CLASSIFIER, labelled, multilabel


@pytest.fixture(scope="module")
def data(made_once: MadeOnce) -> Path:
    return labelled(made_once)


@pytest.fixture(scope="module")
def run(made_once: MadeOnce) -> Path:
    return multilabel(made_once)


def some(data: Path, *numbers: int) -> list[str]:
    return [str(data / "images" / f"{i:03d}.png") for i in numbers]


def test_the_run_knows_labels_scores_and_thresholds(run: Path) -> None:
    info = json.loads((run / "convmix.json").read_text())
    assert info["task"] == "multilabel" and tuple(info["labels"]) == LABELS
    test = info["metrics"]["test"]
    assert test["map"] > 0.9 and test["loss_interval"][0] <= test["loss"] <= test["loss_interval"][1]
    c = info["calibration"]
    assert len(c["thresholds"]) == 3 and c["split"] == "val" and c["wanted"] is None
    card = (run / "README.md").read_text()
    assert "mean AP" in card and "| `spot` |" in card
    assert load_artifact(run).calibration is not None
    record = json.loads((run / "record.json").read_text())
    assert record["test"]["map"] == test["map"] and record["calibration"]["n"] == c["n"]
    assert (run / "predictions.png").stat().st_size > 5000 and "val_map" in (run / "curves.csv").read_text()


def test_splits_are_made_with_every_label_in_proportion(data: Path) -> None:
    source = with_splits(open_source(data, Data()), Data(val_fraction=0.2, test_fraction=0.2))
    matrices = {split: examples.label_matrix for split, examples in source.splits.items()}
    whole = np.concatenate([m for m in matrices.values() if m is not None])
    for split, matrix in matrices.items():
        assert matrix is not None
        np.testing.assert_allclose((matrix == 1).mean(0), (whole == 1).mean(0), atol=0.06, err_msg=split)
    thinned = with_splits(open_source(data, Data()), Data(train_images=40)).splits["train"]
    assert len(thinned) == 40 and thinned.label_matrix is not None
    np.testing.assert_allclose((thinned.label_matrix == 1).mean(0), (whole == 1).mean(0), atol=0.06)


def test_evaluation_scores_the_recorded_test_images_and_writes_a_page(run: Path, tmp_path: Path) -> None:
    found = convmix.evaluate(run, output=tmp_path / "e.json", workers=0, against=run)
    assert isinstance(found, LabelsEvaluation)
    assert found.metrics["map"] == pytest.approx(json.loads((run / "convmix.json").read_text())["metrics"]["test"]["map"])
    assert found.against is not None and found.against.difference == 0 and not found.against.convincing
    page = (tmp_path / "e.html").read_text()
    assert "ranking loss" in page and "Worst images" in page and page.count("<figure") > 5
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.metrics["n"] and {label for row in rows for label in row["truth"].split("|") if label} == set(LABELS)
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]["per_class"]["red"]["ap"] > 0.9
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table(found))
    assert "mean AP" in console.export_text()


def test_a_label_that_the_data_does_not_have_is_not_scored(run: Path, data: Path, tmp_path: Path) -> None:
    """And one that the run does not know is refused by its name."""
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[8:]  # of the others nobody knows whether there is a spot
    for header, name in ((("red", "spot"), "few"), (("bar", "red", "spott"), "other")):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("image", *header))
            writer.writerows((str(data / "images" / row["image"]), *(row.get(h, row["spot"]) or 0 for h in header)) for row in rows)
    known = convmix.evaluate(run, tmp_path / "few.csv", output=tmp_path / "few.json", workers=0)
    scores = known.metrics["per_class"]
    n = scores["red"]["known"]
    assert n >= 10 and [scores[label]["known"] for label in LABELS] == [0, n, n]
    assert scores["bar"]["ap"] is None and min(scores["red"]["ap"], scores["spot"]["ap"]) > 0.9  # of the other one's truth: half
    assert any("bar" in note for note in known.notes)
    with pytest.raises(DataError, match="does not know its class spott, did you mean spot"):
        convmix.evaluate(run, tmp_path / "other.csv", output=tmp_path / "other.json", workers=0)


def test_predictions_in_every_form_say_the_same(run: Path, data: Path, tmp_path: Path, command: Command) -> None:
    files = some(data, 0, 7)
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = convmix.predict(run, [*files, tmp_path / "broken.png"])
    bare, full = rows[0].result, rows[1].result
    assert bare.said() == [] and {label for label, _ in full.said()} == set(LABELS)  # 0 has no label, 7 all of them
    assert rows[2].error and rows[2].result is None
    done = command("predict", run, *files, tmp_path / "broken.png", "--format", "jsonl")
    said = [json.loads(line) for line in done.out.splitlines()]
    assert {one["label"] for one in said[1]["labels"]} == set(LABELS) and set(said[0]["probabilities"]) == set(LABELS)
    assert said[0]["labels"] == [] and said[2]["error"]
    done = command("predict", run, *files, "--format", "csv")
    cells = list(csv.DictReader(done.out.splitlines()))
    assert cells[0]["labels"] == "" and set(cells[1]["labels"].split("|")) == set(LABELS)
    convmix.predict(run, files, output=tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet")["probabilities"].to_pylist()[1]["red"] == pytest.approx(said[1]["probabilities"]["red"])
    assert "no label" in command("predict", run, files[0]).out
    everything = convmix.predict(run, files[:1], threshold=0.0)
    assert len(everything[0].result.said()) == 3
    with pytest.raises(ConfigError, match="format: coco is not one of table, csv, csv-raw, jsonl, json, parquet"):
        convmix.predict(run, files, format="coco", output=tmp_path / "x.json")


@pytest.mark.slow
def test_a_map_is_drawn_for_every_label_that_is_said(run: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    found = convmix.explain(run, some(data, 3), methods=["gradcam"], output=tmp_path)
    assert {m.label for m in found.images[0].maps} == {"bar", "red"} == set(found.images[0].probabilities)
    also = convmix.explain(run, some(data, 3), classes=["spot"], methods=["saliency"], output=tmp_path)
    assert {m.label for m in also.images[0].maps} == set(LABELS)


@pytest.mark.slow
def test_an_export_says_what_the_run_says(run: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = convmix.export(run, "onnx", output=tmp_path / "onnx")
    assert done.verification.score == "map" and done.verification.checks[0].agreed == 1
    files = some(data, *range(8))
    ours, theirs = (convmix.predict(which, files) for which in (run, tmp_path / "onnx"))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.result.probabilities, b.result.probabilities, atol=0.03, rtol=0)
        assert {label for label, _ in a.result.said()} == {label for label, _ in b.result.said()}
    assert json.loads((tmp_path / "onnx/model.json").read_text())["calibration"]["thresholds"]
    import subprocess
    import sys

    printed = subprocess.run([sys.executable, tmp_path / "onnx/predict.py", files[7]], capture_output=True, text=True, check=True).stdout
    assert {line.split("\t")[1] for line in printed.splitlines()} == set(LABELS)


@pytest.mark.slow
def test_what_cannot_be_done_with_it_is_said_in_one_sentence(run: Path, command: Command) -> None:
    done = command("calibrate", run, "--coverage", 0.5)
    assert done.code == 2 and ("multilabel" in done.err or "several labels" in done.err), done


@pytest.mark.slow
def test_the_asymmetric_loss_learns_with_mixed_batches_and_a_wanted_precision(data: Path, tmp_path: Path) -> None:
    done = convmix.train(
        data, out=tmp_path / "run", epochs=12, tune="never", quiet=True, label_loss="asymmetric", mixup=0.2, mix_prob=0.5,
        label_precision=0.8, class_weights="balanced", **CLASSIFIER,
    )  # fmt: skip
    assert done.metrics["test"]["map"] > 0.8
    assert json.loads((tmp_path / "run/convmix.json").read_text())["calibration"]["wanted"] == 0.8


@pytest.mark.slow
def test_calibrating_again_sets_thresholds_of_a_wanted_precision(run: Path, data: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = json.loads((tmp_path / "run/convmix.json").read_text())["calibration"]
    done = command("calibrate", tmp_path / "run", data, "--accuracy", 0.9, "--split", "val")
    assert done.code == 0 and "a precision of 90 %" in done.out and "spot" in done.out
    after = json.loads((tmp_path / "run/convmix.json").read_text())["calibration"]
    assert after["wanted"] == 0.9 and after["n"] == before["n"] and "a precision of 90.00 %" in (tmp_path / "run/README.md").read_text()
    written = json.loads((tmp_path / "run/calibration.json").read_text())
    assert written["previous"] == before and all(s["precision"] >= 0.9 for s in written["per_class"].values())
    assert "Thresholds" in (tmp_path / "run/calibration.html").read_text()
    assert command("calibrate", tmp_path / "run").code == 0
    again = json.loads((tmp_path / "run/convmix.json").read_text())["calibration"]
    assert again["wanted"] is None and again["thresholds"] == pytest.approx(before["thresholds"], abs=0.05)  # on the same images


def test_labels_without_an_opposite_are_refused(tmp_path: Path, command: Command) -> None:
    write_labels(tmp_path, 8)
    rows = [("image", "labels"), *((f"{i:03d}.png", "a|b") for i in range(8))]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    done = command("train", tmp_path, "--out", tmp_path / "run")
    assert done.code == 2 and "nothing to tell apart" in done.err
