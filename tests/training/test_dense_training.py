"""Detection, instance and semantic segmentation train, resume, predict and are evaluated by the same verbs as classification."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import convmix
from tests.dense_scenes import write_coco, write_maps

TINY: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 64, "pyramid_channels": 16, "batch_size": 4, "workers": 0, "tune": "never",
    "precision": "fp32",
}  # fmt: skip
SPLITS = {"train": 8, "val": 4, "test": 4}
TASKS = ("detect", "instances", "segment")


def write(task: str, root: Path, counts: dict[str, int], *, same: bool = False) -> Path:
    """A data set of the task."""
    return write_maps(root, counts, same=same) if task == "segment" else write_coco(root, counts, masks=task == "instances", same=same)


@pytest.mark.parametrize("task", TASKS)
def test_the_task_is_seen_in_the_data_and_a_run_predicts_and_is_evaluated(task: str, tmp_path: Path) -> None:
    data = write(task, tmp_path / "scenes", SPLITS)
    run = convmix.train(data, out=tmp_path / "run", epochs=1, quiet=True, **TINY)

    info = json.loads((run.path / "convmix.json").read_text())
    assert (info["task"], info["run"]["data"]["task"]) == (task, task)
    score = run.task.score_name
    assert 0 <= run.metrics["test"][score] <= 1 and f"{score}_interval" in run.metrics["test"]
    for name in ("model.safetensors", "config.json", "README.md", "curves.csv", "curves.png", "predictions.png", "record.json"):
        assert (run.path / name).stat().st_size > 0, name
    assert (run.path / "curves.csv").read_text().splitlines()[0].split(",")[6] == f"val_{score}"

    rows = convmix.load(run.path).predict([data / "test"], threshold=0.0)
    assert [row.error for row in rows] == [None] * 4
    evaluation = convmix.evaluate(run.path, precision="fp32")
    assert evaluation.metrics["n"] == 4 and evaluation.page.exists()
    assert evaluation.metrics[score] == pytest.approx(run.metrics["test"][score], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "score", "least"), [("detect", "ap", 0.9), ("instances", "mask_ap", 0.9), ("segment", "miou", 0.95)])
def test_one_image_is_learned_by_heart(task: str, score: str, least: float, tmp_path: Path) -> None:
    data = write(task, tmp_path / "scenes", {"train": 40}, same=True)
    still = {"val_fraction": 0, "test_fraction": 0, "zoom": "1,1", "hflip": 0, "color_jitter": 0}
    settings = {**TINY, **still, "model": "convmixer_64_3_k5_p4", "pyramid_channels": 32, "lr": 3e-3, "clip_grad": 5}
    epochs = 20
    if task == "detect":
        settings["smallest_anchor"] = 40  # far from the shapes' 18 pixels: without the regression no box fits
        epochs = 50  # which it takes some time to learn; by then AP was 1.0, 0.95 and 0.93 with three seeds
    run = convmix.train(data, out=tmp_path / "run", epochs=epochs, quiet=True, **settings)
    evaluation = convmix.load(run.path).evaluate(split="train")
    assert evaluation.metrics[score] > least


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_resume_after_kill_equals_the_uninterrupted_run(task: str, tmp_path: Path) -> None:
    data = write(task, tmp_path / "scenes", SPLITS)
    settings = {**TINY, "epochs": 6, "save_every": 0}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    train = [sys.executable, "-m", "convmix", "train", str(data)]
    subprocess.run([*train, "--out", str(whole), *options], check=True, capture_output=True)

    process = subprocess.Popen([*train, "--out", str(out), *options], stdout=subprocess.DEVNULL)
    curves = out / "curves.csv"
    deadline = time.monotonic() + 120
    while (not curves.exists() or len(curves.read_text().splitlines()) < 3) and time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*train, "--out", str(out), "--resume"], check=True, capture_output=True)

    ours, theirs = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_detection_set_can_be_learned_as_boxes_alone(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "scenes", SPLITS, masks=True)
    run = convmix.train(data, task="detect", out=tmp_path / "run", epochs=1, quiet=True, **TINY)
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
def test_settings_that_the_task_does_not_have_are_refused(settings: dict[str, object], words: tuple[str, ...], tmp_path: Path) -> None:
    data = write_coco(tmp_path / "scenes", SPLITS, masks=False)
    with pytest.raises(convmix.ConvmixError) as error:
        convmix.train(data, out=tmp_path / "run", epochs=1, quiet=True, **(TINY | settings))
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_dense_run_is_explained(task: str, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    data = write(task, tmp_path / "scenes", SPLITS)
    run = convmix.train(data, out=tmp_path / "run", epochs=1, quiet=True, **TINY)
    before = {name: value.clone() for name, value in load_file(run.path / "model.safetensors").items()}

    explanation = convmix.explain(run.path, [data / "test" / "0.png"], methods=("saliency", "gradcam"), output=tmp_path / "explained")
    image = explanation.images[0]
    assert {m.method for m in image.maps} == {"saliency", "gradcam"} and all(m.heat.shape == (64, 64) for m in image.maps)
    assert all(0 <= share <= 1 for share in image.probabilities.values()) and explanation.page.exists()
    assert all(torch.equal(before[name], value) for name, value in load_file(run.path / "model.safetensors").items())


@pytest.mark.parametrize("task", TASKS)
def test_what_is_for_classifiers_alone_says_so(task: str, tmp_path: Path) -> None:
    data = write(task, tmp_path / "scenes", SPLITS)
    run = convmix.train(data, out=tmp_path / "run", epochs=1, quiet=True, **TINY)
    for verb in (
        lambda: convmix.calibrate(run.path),
        lambda: convmix.optimize(run.path),
        lambda: convmix.evaluate(run.path, robustness=True),
        lambda: convmix.compare(data, models=("convmixer_16_2_k3_p4",), budget="5s", out=tmp_path / "compared"),
        lambda: convmix.predict(run.path, [data / "test"], precision="int8"),
    ):
        with pytest.raises(convmix.ConvmixError, match=task):
            verb()
