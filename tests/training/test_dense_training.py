"""Detection, instance and semantic segmentation train, resume, predict and are evaluated by the same verbs as classification."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import convmix
from convmix.data.loaders import Batch
from convmix.tasks import task_class
from convmix.training import loop
from tests.made_once import MadeOnce
from tests.trained_runs import DENSE, DENSE_TASKS, dense_run, scenes, write_scenes


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE_TASKS)
def test_the_task_is_seen_in_the_data_and_a_run_predicts_and_is_evaluated(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    path = dense_run(made_once, task)
    info = json.loads((path / "convmix.json").read_text())
    assert (info["task"], info["run"]["data"]["task"]) == (task, task)
    run = convmix.load(path)
    score = task_class(task).score_name
    tested = info["metrics"]["test"]
    assert 0 <= tested[score] <= 1 and f"{score}_interval" in tested
    for name in ("model.safetensors", "config.json", "README.md", "curves.csv", "curves.png", "predictions.png", "record.json"):
        assert (path / name).stat().st_size > 0, name
    assert (path / "curves.csv").read_text().splitlines()[0].split(",")[6] == f"val_{score}"

    rows = run.predict([scenes(made_once, task) / "test"], threshold=0.0)
    assert [row.error for row in rows] == [None] * 4
    evaluation = convmix.evaluate(path, precision="fp32", output=tmp_path / "scores.json")
    assert evaluation.metrics["n"] == 4 and evaluation.page.exists()
    assert evaluation.metrics[score] == pytest.approx(tested[score], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "score", "least", "epochs"), [("detect", "ap", 0.75, 50), ("instances", "mask_ap", 0.75, 5), ("segment", "miou", 0.95, 10)]
)
def test_one_image_is_learned_by_heart(task: str, score: str, least: float, epochs: int, tmp_path: Path) -> None:
    """Eight steps an epoch. Over several seeds boxes ended at 0.93 to 1.0, masks at 1.0 and class maps at 0.995 (LOG.md, 2026-11-30)."""
    data = write_scenes(task, tmp_path / "scenes", {"train": 8}, same=True)
    still = {"val_fraction": 0, "test_fraction": 0, "zoom": "1,1", "hflip": 0, "color_jitter": 0, "batch_size": 1}
    settings = {**DENSE, **still, "model": "convmixer_64_3_k5_p4", "pyramid_channels": 32, "lr": 3e-3, "clip_grad": 5}
    if task == "detect":
        settings["smallest_anchor"] = 40  # far from the shapes' 18 pixels: without the regression no box fits
    run = convmix.train(data, out=tmp_path / "run", epochs=epochs, quiet=True, **settings)
    evaluation = convmix.load(run.path).evaluate(split="train")
    assert evaluation.metrics[score] > least


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE_TASKS)
def test_resume_after_kill_equals_the_uninterrupted_run(
    task: str, made_once: MadeOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the disk after a kill is what an error leaves there that nobody expects; tests/training/test_resume.py has real kills."""
    whole, out = dense_run(made_once, task), tmp_path / "run"
    real = loop.train_step

    def until_the_second(t: loop.Training, batch: Batch) -> None:
        if t.position.step == 1:
            raise ZeroDivisionError
        real(t, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", until_the_second)
        with pytest.raises(ZeroDivisionError):
            convmix.train(scenes(made_once, task), out=out, epochs=1, save_every=0, quiet=True, **DENSE)
    convmix.train(scenes(made_once, task), out=out, quiet=True, resume=True)
    assert json.loads((out / "convmix.json").read_text())["training"]["steps"] == 2
    for name in ("model.safetensors", "state/last.safetensors"):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.slow
def test_a_detection_set_can_be_learned_as_boxes_alone(made_once: MadeOnce, tmp_path: Path) -> None:
    run = convmix.train(scenes(made_once, "instances"), task="detect", out=tmp_path / "run", epochs=1, quiet=True, **DENSE)
    assert run.task.name == "detect" and "mask_ap" not in run.metrics["test"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixup": 0.5}, ("augment.mixup", "zoom")),
        ({"label_smoothing": 0.1}, ("optim.label_smoothing", "classification")),
        ({"dropout": 0.5}, ("dropout", "classifiers")),
        ({"task": "segment"}, ("segment",)),
        ({"model": "convmixer_16_2_k3_p4", "taps": "authors"}, ("taps", "ConvMLP")),
    ],
)
def test_settings_that_the_task_does_not_have_are_refused(
    settings: dict[str, Any], words: tuple[str, ...], made_once: MadeOnce, tmp_path: Path
) -> None:
    with pytest.raises(convmix.ConvmixError) as error:
        convmix.train(scenes(made_once, "detect"), out=tmp_path / "run", epochs=1, quiet=True, **(DENSE | settings))
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE_TASKS)
def test_a_dense_run_is_explained(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    path = dense_run(made_once, task)
    before = load_file(path / "model.safetensors")
    picture = scenes(made_once, task) / "test" / "0.png"
    explanation = convmix.explain(path, [picture], methods=("saliency", "gradcam"), output=tmp_path / "explained")
    image = explanation.images[0]
    assert {m.method for m in image.maps} == {"saliency", "gradcam"} and all(m.heat.shape == (64, 64) for m in image.maps)
    assert all(0 <= share <= 1 for share in image.probabilities.values()) and explanation.page.exists()
    assert all(torch.equal(before[name], value) for name, value in load_file(path / "model.safetensors").items())


def test_class_maps_have_no_probabilities_to_calibrate(made_once: MadeOnce) -> None:
    with pytest.raises(convmix.ConvmixError, match="a run of the task segment has no probabilities to calibrate"):
        convmix.calibrate(dense_run(made_once, "segment"))
