"""A published model teaches by its name: its classifier is fitted to the training images first, and resuming finds it again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convmix
from convmix.artifacts.artifact import load_artifact
from convmix.errors import ConfigError, ConvmixError
from convmix.training import loop
from tests.made_once import MadeOnce
from tests.trained_runs import CLASSIFIER, classifier

NAME = "convmixer_16_2_k3_p4"


@pytest.mark.slow
def test_its_classifier_is_fitted_and_the_student_follows(photos: Path, made_once: MadeOnce, tmp_path: Path) -> None:
    weights = classifier(made_once, photos) / "model.safetensors"
    settings = {**CLASSIFIER, "epochs": 6, "teacher": NAME, "teacher_weights": str(weights), "teacher_share": 1.0}
    run = convmix.train(photos, out=tmp_path / "run", quiet=True, **settings)
    teacher = load_artifact(tmp_path / "run/state/teacher")
    assert teacher.labels == load_artifact(tmp_path / "run").labels
    given, fitted = load_file(weights), load_file(tmp_path / "run/state/teacher/model.safetensors")
    assert all(torch.equal(fitted[k], given[k]) for k in given if not k.startswith("head."))
    assert not torch.equal(fitted["head.weight"], given["head.weight"])
    rows = convmix.load(tmp_path / "run/state/teacher").predict(photos / "class_0")
    assert sum(row.label == "class_0" for row in rows) >= 0.8 * len(rows)
    assert run.metrics["val"]["accuracy"] >= 0.8


@pytest.mark.slow
def test_a_resumed_training_has_the_same_teacher(
    photos: Path, made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Path(shutil.copy(classifier(made_once, photos) / "model.safetensors", tmp_path / "theirs.safetensors"))
    settings = {**CLASSIFIER, "epochs": 2, "teacher": NAME, "teacher_weights": str(weights), "save_every": 0}
    convmix.train(photos, out=tmp_path / "whole", quiet=True, device="cpu", **settings)

    class Killed(BaseException):
        pass

    def step(t: loop.Training, batch: loop.Batch) -> None:
        if t.position.step == 3:
            raise Killed
        real(t, batch)

    real = loop.train_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(Killed):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", **settings)
    assert json.loads((tmp_path / "parts/state/job.json").read_text())["teacher"]
    convmix.train(photos, out=tmp_path / "parts", quiet=True, device="cpu", resume=True)
    a, b = (load_file(tmp_path / name / "state/last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teacher": "convmixer_16_2_k3_p4", "teacher_weights": "nowhere.pth"}, "there is no file nowhere.pth"),
        ({"teacher_weights": "some.pth"}, "name it with --teacher"),
        ({"teacher": "runs/nowhere"}, "neither a model directory nor the name of a model"),
        ({"teacher": "resnet81"}, "did you mean"),
    ],
)
def test_who_cannot_teach_is_said_before_anything_is_written(photos: Path, tmp_path: Path, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConvmixError, match=words):
        convmix.train(photos, out=tmp_path / "run", quiet=True, **CLASSIFIER, **settings)
    assert not (tmp_path / "run/state/job.json").exists()


def test_a_run_has_its_own_weights(photos: Path, made_once: MadeOnce, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has its own"):
        run = str(classifier(made_once, photos))
        convmix.train(photos, out=tmp_path / "run", quiet=True, **CLASSIFIER, teacher=run, teacher_weights="some.pth")
