"""A finished training is calibrated on its validation split, and on nothing else."""

import io
import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import convmix
from convmix.inference.task_judge import validation_images
from convmix.metrics.calibration import calibrate_logits
from convmix.training import loop
from convmix.training.session import train_session
from tests.conftest import make_photos
from tests.made_once import MadeOnce

SMALL = {"model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 12, "precision": "fp32", "workers": 0, "epochs": 2}
ENOUGH = {**SMALL, "val_fraction": 0.25}  # 15 of the 60 photos


def stored(run: Path) -> dict[str, Any] | None:
    return json.loads((run / "convmix.json").read_text()).get("calibration")


@pytest.fixture
def whole(photos: Path, made_once: MadeOnce) -> Path:
    """A training that was not interrupted; read only."""
    return made_once("calibrated", lambda out: convmix.train(photos, out=out, quiet=True, device="cpu", **ENOUGH))


@pytest.mark.slow
def test_a_run_keeps_the_temperature_of_its_validation_split(photos: Path, whole: Path) -> None:
    model = convmix.load(whole)
    artifact = model.artifact
    images, targets = validation_images(artifact, at_most=100)
    logits = artifact.model(images).detach()
    expected = calibrate_logits(logits, targets, split="val")
    assert artifact.calibration is not None
    found = asdict(artifact.calibration)
    assert (found["n"], found["split"], found["threshold"], found["choice"]) == (15, "val", None, None)
    assert found["temperature"] != 1.0
    for name in ("temperature", "ece_before", "ece_after", "nll_before", "nll_after"):
        assert found[name] == pytest.approx(getattr(expected, name), rel=1e-3), name
    assert found["nll_before"] == pytest.approx(artifact.info["metrics"]["val"]["loss"], rel=1e-5)  # scores stay those of the bare model
    record = json.loads((whole / "record.json").read_text())
    assert record["calibration"]["ece_after"] == found["ece_after"] and "threshold" not in record["calibration"]
    assert f"temperature {found['temperature']:.3f}, fitted on 15 images" in (whole / "README.md").read_text()
    [row] = model.predict(photos / "class_1" / "003.png")
    assert row.sure is True


@pytest.mark.slow
def test_the_test_split_changes_nothing(tmp_path: Path) -> None:
    """The same training images, with test images of other classes and other pictures."""
    for name, turn in (("a", 0), ("b", 1)):
        make_photos(tmp_path / name / "train")
        make_photos(tmp_path / "new", per_class=4, side=24 + 8 * turn)
        (tmp_path / name / "test").mkdir()
        for c in range(3):
            (tmp_path / "new" / f"class_{c}").rename(tmp_path / name / "test" / f"class_{(c + turn) % 3}")
        convmix.train(tmp_path / name, out=tmp_path / f"run_{name}", quiet=True, **{**ENOUGH, "epochs": 1})
    a, b = (json.loads((tmp_path / f"run_{name}" / "convmix.json").read_text()) for name in "ab")
    assert a["metrics"]["test"]["loss"] != b["metrics"]["test"]["loss"]
    assert a["calibration"]["n"] == 15
    assert a["calibration"] == b["calibration"]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "n"), [(0.1, 6), (0.0, 0)])
def test_a_training_without_enough_validation_images_says_that_it_is_not_calibrated(
    photos: Path, tmp_path: Path, share: float, n: int
) -> None:
    console = Console(file=io.StringIO(), width=200)
    settings = {**SMALL, "epochs": 1, "val_fraction": share}
    train_session(str(photos), recipe=None, overrides=settings, out=tmp_path / "run", resume=False, console=console, device="cpu")
    assert f"not calibrated: {n} validation images, expected at least 10" in console.file.getvalue()
    assert stored(tmp_path / "run") is None
    assert convmix.load(tmp_path / "run").artifact.calibration is None
    assert "## Calibration" not in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_calibration(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train_step

    def step_then_signal(t: loop.Training, batch: Any) -> None:
        real(t, batch)
        if t.position.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_then_signal)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 2"):
            convmix.train(photos, out=tmp_path / "parts", quiet=True, **ENOUGH)
    assert stored(tmp_path / "parts") is None
    convmix.train(photos, out=tmp_path / "parts", quiet=True, resume=True)
    assert stored(tmp_path / "parts") == stored(whole)
    assert stored(whole) is not None
    convmix.train(photos, out=tmp_path / "parts", quiet=True, resume=True)  # once more, after the end
    assert stored(tmp_path / "parts") == stored(whole)


@pytest.mark.slow
def test_the_kept_weights_are_calibrated_not_the_last_ones(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.validate, []

    def first_is_best(t: loop.Training, split: str) -> dict[str, Any]:
        calls.append(split)
        return real(t, split) | {"accuracy": 1.0 / len(calls)}

    monkeypatch.setattr(loop, "validate", first_is_best)
    run = convmix.train(photos, out=tmp_path / "run", quiet=True, **{**ENOUGH, "epochs": 2})
    assert run.model.artifact.info["training"]["kept_epoch"] == 1
    images, targets = validation_images(run.model.artifact, at_most=100)
    expected = calibrate_logits(run.model.artifact.model(images).detach(), targets, split="val").temperature
    assert run.model.artifact.calibration is not None
    assert run.model.artifact.calibration.temperature == pytest.approx(expected, rel=1e-3)
