"""Scores of found objects as probabilities: fitted on validation images, kept in the model directory, honoured by predict."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convmix
from convmix.artifacts.artifact import load_artifact, save_weights
from convmix.data.targets import Objects
from convmix.errors import ConfigError, DataError, RunError
from convmix.evaluation import evaluate
from convmix.evaluation.calibrate import calibrate
from convmix.evaluation.dense_result import ObjectsEvaluation
from convmix.evaluation.object_scores import ScoresCalibrated
from convmix.metrics.score_calibration import ScoreCalibration, calibrate_scores, scores_and_truth
from convmix.results import Boxes
from tests.made_once import MadeOnce
from tests.trained_runs import dense_run, scenes

pytestmark = pytest.mark.usefixtures("unpainted")


def test_scores_that_are_too_high_are_brought_down_in_their_order() -> None:
    rng = np.random.default_rng(0)
    truly = rng.uniform(0.05, 0.95, 4000)
    right = rng.uniform(size=4000) < truly
    said = 1 / (1 + np.exp(-(2 * np.log(truly / (1 - truly)) + 1)))  # twice as sure as they should be, and surer still
    found = calibrate_scores(said, right, n=100, split="val")
    assert (found.slope, found.offset) == (pytest.approx(0.5, abs=0.05), pytest.approx(-0.5, abs=0.1))
    assert found.ece_after < 0.03 < 0.1 < found.ece_before and found.nll_after < found.nll_before
    after = found.apply(torch.from_numpy(said)).numpy()
    assert np.array_equal(np.argsort(after, kind="stable"), np.argsort(said.astype(np.float32), kind="stable")) or (
        np.all(np.diff(after[np.argsort(said)]) >= 0)
    )
    edge = found.apply(torch.tensor([0.0, 1.0]))
    assert torch.isfinite(edge).all() and 0 <= float(edge[0]) < float(edge[1]) <= 1


def test_too_few_objects_say_nothing() -> None:
    with pytest.raises(ConfigError, match="19 objects were found in these 3 images, 9 of them right: expected at least 20"):
        calibrate_scores(np.linspace(0.1, 0.9, 19), np.arange(19) % 2 == 1, n=3, split="val")
    with pytest.raises(ConfigError, match="right ones and false ones"):
        calibrate_scores(np.linspace(0.1, 0.9, 50), np.ones(50, bool), n=3, split="val")


def test_right_is_what_lies_on_an_object_of_its_class_and_crowds_do_not_count() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 50, 10]])
    found = Boxes(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 0, 0]), ("a", "b"), (60, 60))
    truth = Objects(
        (60, 60), np.array([[0, 0, 10, 10], [40, 0, 50, 10]], np.float32), np.array([0, 0]), np.array([False, True])
    )  # fmt: skip
    scores, right = scores_and_truth([found], [truth], 2, masks=False)
    assert dict(zip(scores.round(2).tolist(), right.tolist(), strict=True)) == {0.9: True, 0.7: False, 0.8: False}


@pytest.mark.parametrize("change", [{"slope": -1.0}, {"slope": "steep"}, {"slpoe": 1.0}, {"n": True}])
def test_a_calibration_that_nobody_wrote_is_refused(change: dict[str, object]) -> None:
    whole = ScoreCalibration(1.2, -0.3, "val", 4, 30, 0.2, 0.1, 0.6, 0.5).to_dict()
    assert ScoreCalibration.from_dict(whole) == ScoreCalibration(**whole)
    with pytest.raises(RunError, match="calibration"):
        ScoreCalibration.from_dict({**whole, **change})
    with pytest.raises(RunError, match="has no slope"):
        ScoreCalibration.from_dict({name: value for name, value in whole.items() if name != "slope"})


def half_as_often(*arguments: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The scores that were found, half as often right as they say: boxes of a network that has learned nothing are right by luck alone."""
    scores, _ = scores_and_truth(*arguments, **options)
    return scores, np.random.default_rng(0).uniform(size=len(scores)) < scores / 2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "instances"])
def test_a_run_keeps_its_calibration_and_predicts_by_it(
    task: str, made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(dense_run(made_once, task), tmp_path / "run")
    if task == "detect":
        with pytest.raises(DataError, match="objects were found"):
            calibrate(run, workers=0)  # after one epoch it finds nothing
    artifact = load_artifact(run)
    torch.manual_seed(0)
    model: nn.Module = artifact.model
    if task == "detect":
        nn.init.normal_(model.head.classification_head.cls_logits.weight, std=50.0)
        nn.init.constant_(model.head.classification_head.cls_logits.bias, -1.0)
    else:
        nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=2.0)
    save_weights(run, model)
    monkeypatch.setattr("convmix.tasks.detect.scores_and_truth", half_as_often)
    result = calibrate(run, workers=0, precision="fp32")
    monkeypatch.undo()
    assert isinstance(result, ScoresCalibrated)
    assert result.calibration.ece_after < result.calibration.ece_before
    kept = load_artifact(run).calibration
    assert kept == result.calibration and result.page.exists()
    assert json.loads(result.output.read_text())["calibration"] == result.calibration.to_dict()
    assert "Scores are scaled and shifted" in (run / "README.md").read_text()
    after = convmix.predict(run, [scenes(made_once, task) / "test"], threshold=0.0, precision="fp32", workers=0)
    artifact.calibration = None
    before = convmix.predict(artifact, [scenes(made_once, task) / "test"], threshold=0.0, precision="fp32", workers=0)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(result.calibration.apply(one.result.scores), other.result.scores)  # type: ignore[union-attr]
        assert torch.equal(one.result.boxes, other.result.boxes)  # type: ignore[union-attr]
    plain, sure = (evaluate(some, workers=0, precision="fp32", output=tmp_path / f"{i}.json") for i, some in enumerate((artifact, run)))
    assert isinstance(plain, ObjectsEvaluation) and isinstance(sure, ObjectsEvaluation)
    assert sure.metrics["ap"] == pytest.approx(plain.metrics["ap"], abs=1e-6)
    assert (plain.calibrated, sure.calibrated) == (False, True)
    assert json.loads((tmp_path / "1.json").read_text())["calibration"]["error"] == sure.calibration_error
    with pytest.raises(ConfigError, match="accuracy and coverage are of images"):
        calibrate(run, accuracy=0.9)
