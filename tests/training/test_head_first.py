"""From weights: the classifier is fitted first, fine-tuning follows where there is time, and the better of both is kept."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import convmix
from convmix.errors import ConfigError
from convmix.training import head_first, loop, session
from convmix.training.head_first import _epochs_that_fit
from tests.made_once import MadeOnce
from tests.trained_runs import CLASSIFIER, classifier


@pytest.fixture
def weights(made_once: MadeOnce, photos: Path) -> Path:
    """A trained run, but its classifier is for other classes, so that the head has to be learned anew; read only."""

    def make(folder: Path) -> None:
        folder.mkdir()
        state = load_file(classifier(made_once, photos) / "model.safetensors")
        state["head.weight"], state["head.bias"] = torch.zeros(7, state["head.weight"].shape[1]), torch.zeros(7)
        save_file(state, folder / "model.safetensors")
        config = json.loads((classifier(made_once, photos) / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config))

    return made_once("headless", make)


def train(photos: Path, out: Path, weights: Path, **settings: object) -> tuple[convmix.TrainedRun, str]:
    console = Console(file=io.StringIO(), width=300)
    overrides = {**CLASSIFIER, "weights": str(weights), **settings}
    result = session.train_session(str(photos), recipe=None, overrides=overrides, out=out, resume=False, console=console, device="cpu")
    return convmix.TrainedRun(result.path, result.metrics, result.stopped, result.keeps, result.task), console.file.getvalue()  # type: ignore[attr-defined]


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "record.json").read_text())


def test_a_frozen_backbone_is_run_once_and_its_classifier_fitted(
    photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    real = head_first.extract
    monkeypatch.setattr(head_first, "extract", lambda *a, **k: passes.append(1) or real(*a, **k))
    run, said = train(photos, tmp_path / "run", weights, freeze="backbone")
    assert run.stopped == "head"
    assert passes == [1]
    before, after = load_file(weights / "model.safetensors"), load_file(run.path / "model.safetensors")
    assert {k for k in after if not torch.equal(before[k], after[k])} == {"head.weight", "head.bias"}
    assert run.metrics["val"]["accuracy"] >= 0.9
    assert run.metrics["test"]["accuracy"] >= 0.8
    kept = record(run.path)
    assert [row["epoch"] for row in kept["curve"]] == [0]
    assert kept["epochs_done"] == 0
    assert kept["images_seen"] == 4 * 48
    assert "classifier first, on frozen features of 48 images in 4 views: C " in said
    assert "of 6 images" in said
    assert "the classifier alone was fitted" in (run.path / "README.md").read_text()
    assert (run.path / "curves.png").exists()
    assert run.model.predict(photos / "class_1" / "003.png")[0].label == "class_1"  # type: ignore[union-attr]


@pytest.mark.slow
def test_fine_tuning_begins_with_that_classifier_and_leaves_the_statistics(photos: Path, tmp_path: Path, weights: Path) -> None:
    alone, _ = train(photos, tmp_path / "alone", weights, freeze="backbone")
    tuned, said = train(photos, tmp_path / "tuned", weights, epochs=2, keep="last")
    rows = record(tuned.path)["curve"]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[0]["val_loss"] == record(alone.path)["curve"][0]["val_loss"]
    a, b = (load_file(run.path / "model.safetensors") for run in (alone, tuned))
    changed = {k for k in a if not torch.equal(a[k], b[k])}
    assert {"stem.0.weight", "head.weight"} <= changed
    assert not [k for k in changed if "running" in k or "num_batches" in k]
    assert (a["head.weight"] - b["head.weight"]).abs().max() < 0.1 * a["head.weight"].abs().max()
    assert "classifier alone" in said
    assert "kept are the weights of epoch 2" in said
    assert tuned.stopped == "epochs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "kept"), [([(0.9, 1.0), (0.5, 1.0), (0.9, 1.0)], 0), ([(0.9, 1.0), (0.9, 0.8)], 1), ([(0.5, 1.0), (0.9, 2.0)], 1)]
)
def test_fine_tuning_is_kept_only_where_validation_says_it_is_better(
    photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]], kept: int
) -> None:
    coming = iter(scores)
    after: list[dict[str, torch.Tensor]] = []

    def scores_of(t: loop.Training, outputs: object, split: str) -> dict[str, Any]:
        if split == "val":
            after.append({k: v.clone() for k, v in t.eval_model.state_dict().items()})
        accuracy, loss = next(coming) if split == "val" else (0.5, 1.0)
        return {"n": 6, "loss": loss, "accuracy": accuracy, "correct": 0, "accuracy_interval": (0.0, 1.0), "top5": 1.0}

    for module in (loop, head_first):
        monkeypatch.setattr(module, "scores_of", scores_of)
    run, _ = train(photos, tmp_path / "run", weights, epochs=len(scores) - 1)
    assert json.loads((run.path / "convmix.json").read_text())["training"]["kept_epoch"] == kept
    weights_kept = load_file(run.path / "model.safetensors")
    assert [all(torch.equal(weights_kept[k], v) for k, v in state.items()) for state in after].index(True) == kept


@pytest.mark.slow
def test_a_training_killed_anywhere_ends_with_the_same_bits(
    photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    settings = {**CLASSIFIER, "weights": str(weights), "epochs": 2, "save_every": 0}
    convmix.train(photos, out=tmp_path / "whole", quiet=True, device="cpu", **settings)

    def killed(*args: object, **more: object) -> Any:
        raise Killed

    def after(function: Any, calls: int) -> Any:
        made = iter(range(calls))

        def counted(*args: Any, **more: Any) -> Any:
            if next(made, None) is None:
                raise Killed
            return function(*args, **more)

        return counted

    parts = tmp_path / "parts"
    for module, name, stand_in in (
        (head_first, "fit_linear_head", killed),  # the features are computed, the classifier is not
        (head_first, "outputs_of", killed),  # it is, and not yet saved
        (loop, "train_step", after(loop.train_step, 2)),  # in the middle of the first epoch
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stand_in)
            with pytest.raises(Killed):
                resume = {"resume": True} if parts.exists() else settings
                convmix.train(photos, out=parts, quiet=True, device="cpu", **resume)
    convmix.train(photos, out=parts, quiet=True, device="cpu", resume=True)
    for name in ("model.safetensors", "state/last.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(parts / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name


@pytest.mark.slow
def test_without_validation_images_nothing_is_fine_tuned_unless_the_last_epoch_is_asked_for(
    photos: Path, tmp_path: Path, weights: Path
) -> None:
    run, said = train(photos, tmp_path / "run", weights, val_fraction=0.0, epochs=1)
    assert run.stopped == "head"
    assert "no fine-tuning: there are no validation images" in said
    run, _ = train(photos, tmp_path / "last", weights, val_fraction=0.0, epochs=1, keep="last")
    assert run.stopped == "epochs"


@pytest.mark.slow
def test_earlier_layers_learn_more_slowly(photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, float] = {}
    real = loop.train_step

    def step(t: loop.Training, batch: loop.Batch) -> None:
        real(t, batch)
        names = {id(p): name for name, p in t.raw_model.named_parameters()}
        rates.update({names[id(p)]: group["lr"] for group in t.optimizer.param_groups for p in group["params"]})

    monkeypatch.setattr(loop, "train_step", step)
    run, _ = train(photos, tmp_path / "run", weights, epochs=1, layer_decay=0.5)
    peak = rates["head.weight"]
    assert peak > 0
    assert rates["blocks.1.1.weight"] == pytest.approx(peak / 2)
    assert rates["blocks.0.1.weight"] == pytest.approx(peak / 4)
    assert rates["stem.0.weight"] == pytest.approx(peak / 8)
    assert record(run.path)["curve"][-1]["lr"] == pytest.approx(peak)


def test_fine_tuning_fits_into_what_is_left_of_the_first_minute() -> None:
    assert _epochs_that_fit(20.0, 5.0, 4.0) == 5  # (50 - 20 - 4) / 5
    assert _epochs_that_fit(48.0, 5.0, 4.0) == 0
    assert _epochs_that_fit(70.0, 5.0, 4.0) == 0  # a slow machine does not get slower
    assert _epochs_that_fit(300.0, 50.0, 10.0) == 5  # a large set: as long again as its first stage


def test_a_slow_machine_says_that_it_leaves_fine_tuning_out(
    photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_first, "FIRST_MODEL_S", 0.0)
    run, said = train(photos, tmp_path / "run", weights)
    assert run.stopped == "head"
    assert "no fine-tuning: an epoch of it would take about" in said


def test_it_is_for_classifiers(tmp_path: Path, made_once: MadeOnce) -> None:
    from tests.trained_runs import DENSE, scenes

    with pytest.raises(ConfigError, match="head_first is for classification"):
        convmix.train(scenes(made_once, "detect"), out=tmp_path / "run", quiet=True, head_first=True, **DENSE)
