import io
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import convmix
from convmix.errors import ConfigError, DataError, ModelError, RunError, TrainingError
from convmix.training import budget, loop, session
from convmix.training.setup import new_job
from tests.command_line import Command
from tests.made_once import MadeOnce
from tests.tiny_run import make_run
from tests.trained_runs import classifier

SMALL = {"model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 12, "precision": "fp32", "workers": 0}


def train(data: Path | str, out: Path, **settings: object) -> convmix.TrainedRun:
    return convmix.train(data, out=out, quiet=True, **{**SMALL, **settings})


def history(run: Path) -> list[dict[str, float]]:
    return json.loads((run / "record.json").read_text())["curve"]


def test_a_folder_of_images_becomes_a_model_that_predicts(photos: Path, made_once: MadeOnce, tmp_path: Path) -> None:
    path = classifier(made_once, photos)
    described = json.loads((path / "convmix.json").read_text())
    assert described["metrics"]["test"]["accuracy"] >= 0.9
    assert described["training"]["stopped"] == "epochs"
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert {
        "model.safetensors", "config.json", "convmix.json", "README.md", "curves.csv", "curves.png", "predictions.png",
        "splits.csv", "bad_images.csv", "record.json", "state/last.safetensors", "state/job.json",
    } <= files  # fmt: skip
    assert not [name for name in files if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
    [prediction] = convmix.load(path).predict(photos / "class_1" / "003.png")
    assert prediction.label == "class_1"
    again = convmix.evaluate(path, output=tmp_path / "scores.json")
    assert again.metrics["accuracy"] == described["metrics"]["test"]["accuracy"]


@pytest.mark.slow
def test_short_training_has_the_stored_losses(photos: Path, tmp_path: Path) -> None:
    """A change that should not alter numbers shows these; a change that should says so in its commit."""
    train(photos, tmp_path / "run", epochs=3, seed=1)
    losses = [row["train_loss"] for row in history(tmp_path / "run")]
    assert losses == pytest.approx(STORED_LOSSES, rel=1e-3)


STORED_LOSSES = [0.979086, 0.519651, 0.404923]


@pytest.mark.slow
def test_same_seed_same_weights_whatever_the_workers(photos: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(photos, tmp_path / f"w{workers}", epochs=1, workers=workers, hflip=0.5, mixup=0.2, scale="0.5,1")
    train(photos, tmp_path / "other", epochs=1, seed=1, hflip=0.5, mixup=0.2, scale="0.5,1")
    a, b, other = (load_file(tmp_path / name / "model.safetensors") for name in ("w0", "w2", "other"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], other[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"ema_decay": 0.9},
        {"accumulate": 3},
        {"class_weights": "balanced", "balanced": True},
        {"mixup": 0.5, "cutmix": 0.5, "label_smoothing": 0.1, "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25},
        {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine", "warmup_epochs": 0.5, "clip_grad": 1.0},
        {"grad_checkpointing": True},
        {"precision": "bf16"},
        {"fit": "letterbox"},
        {"fit": "stretch", "size": "16x24"},
        {"in_chans": 1},
        {"val_fraction": 0.0},
        {"model": "multiscale_convmixer_t", "model_args": {"dim": 16, "combine": "split", "channel_mixing": "mlp"}, "drop_path": 0.1},
        {"tracker": "tensorboard"},
    ],
    ids=lambda s: "-".join(s),
)
def test_every_way_of_training_finishes(photos: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    run = train(photos, tmp_path / "run", epochs=1, **settings)
    assert run.metrics["test"]["n"] == 6
    again = run.model.evaluate().metrics  # from the written directory
    assert (again["n"], again["correct"]) == (6, run.metrics["test"]["correct"])
    if "tracker" in settings:
        assert list((tmp_path / "run" / "tracker").rglob("events.out.tfevents*"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["convmlp_s", "multiscale_convmixer_t", "test_resnet", "test_vit"])
def test_every_family_and_timm_models_train(photos: Path, tmp_path: Path, model: str) -> None:
    run = train(photos, tmp_path / "run", model=model, epochs=1, size=32, batch_size=24)
    assert 0 <= run.metrics["test"]["accuracy"] <= 1
    assert convmix.load(run.path).predict(photos / "class_0" / "000.png")[0].probability > 0


def test_a_linear_probe_changes_the_classifier_alone(photos: Path, made_once: MadeOnce, tmp_path: Path) -> None:
    first, probe = classifier(made_once, photos), tmp_path / "probe"
    train(photos, probe, epochs=2, weights=str(first), freeze="backbone")
    before, after = (load_file(run / "model.safetensors") for run in (first, probe))
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"head.weight", "head.bias"}
    preprocess = [convmix.load(run).artifact.preprocess for run in (first, probe)]
    assert preprocess[0] == preprocess[1]  # the weights see what they were trained on


def test_weights_bring_the_normalisation_they_were_made_with(photos: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "first", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    settings = {"model": "convmixer_8_1_k3_p4", "size": 24, "weights": str(tmp_path / "first")}
    for asked, mean in (({}, (0.1, 0.2, 0.3)), ({"mean": "0.5,0.5,0.5"}, (0.5, 0.5, 0.5))):
        console = Console(file=io.StringIO())
        job = new_job(str(photos), recipe=None, overrides={**settings, **asked}, out=tmp_path / "run", console=console, speaks=False)
        assert job.preprocess.mean == mean


@pytest.mark.slow
def test_accumulated_gradients_equal_those_of_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    for parts in (1, 3):  # a ViT has no batch norm, so the parts do not see each other either way
        # nor is the gradient clipped, which would make any multiple of it the same
        settings = {"epochs": 1, "batch_size": 24, "accumulate": parts, "optimizer": "sgd", "lr": 0.01, "clip_grad": 0.0}
        train(photos, tmp_path / str(parts), model="test_vit", size=32, **settings)
    one, three = (load_file(tmp_path / n / "model.safetensors") for n in ("1", "3"))
    for name in one:
        torch.testing.assert_close(one[name], three[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "kept"), [("best", 3), ("last", 4)])
def test_kept_are_the_later_of_the_best_epochs_or_the_last(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, kept: int
) -> None:
    scores = iter([0.5, 0.9, 0.9, 0.2])
    after: list[dict[str, torch.Tensor]] = []

    def validate(t: loop.Training, split: str) -> dict[str, float]:
        after.append({k: v.clone() for k, v in t.eval_model.state_dict().items()})
        return {"n": 6, "loss": 1.0, "accuracy": next(scores), "correct": 0, "accuracy_interval": (0.0, 1.0), "top5": 1.0}

    monkeypatch.setattr(loop, "validate", validate)
    train(photos, tmp_path / "run", epochs=4, keep=keep)
    assert json.loads((tmp_path / "run" / "convmix.json").read_text())["training"]["kept_epoch"] == kept
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert [all(torch.equal(weights[k], v) for k, v in state.items()) for state in after].index(True) == kept - 1


@pytest.mark.slow
def test_early_stopping_waits_for_patience(photos: Path, tmp_path: Path) -> None:
    run = train(photos, tmp_path / "run", epochs=50, lr=0.0, patience=2)
    assert run.stopped == "early stopping"
    assert len(history(run.path)) == 3  # the first epoch is the best, two more are not better


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_state(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is (nan|inf)"):
        train(
            photos, tmp_path / "run", epochs=30, optimizer="sgd", lr=1e18, clip_grad=0.0, schedule="step", warmup_epochs=2, warmup_lr=1e-3
        )
    state = load_file(tmp_path / "run" / "state" / "last.safetensors")
    assert all(v.isfinite().all() for k, v in state.items() if k.startswith("model.") and v.is_floating_point())


def test_a_full_disk_is_an_error_that_keeps_the_last_good_state(
    photos: Path, made_once: MadeOnce, tmp_path: Path, command: Command
) -> None:
    """Stood in for by a limit on the size of files, which the state file exceeds once the optimiser has its averages."""
    most = (classifier(made_once, photos) / "model.safetensors").stat().st_size + 2000
    arguments = [f"--{k.replace('_', '-')}={v}" for k, v in {**SMALL, "epochs": 1, "save_every": 0}.items()]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))  # Python ignores the signal that comes with it
    try:
        done = command("train", photos, "--out", tmp_path / "run", "--device", "cpu", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2
    assert "cannot write" in done.err
    assert "last.safetensors" in done.err
    assert load_file(tmp_path / "run" / "state" / "last.safetensors")
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"modell": "x"}, ConfigError, "unknown setting modell, did you mean model?"),
        ({"model": "convmlp_x"}, ModelError, "convmlp_"),
        ({"recipe": "convmixer_cifar"}, ConfigError, "did you mean convmixer_cifar10"),
        ({"optimizer": "adamm"}, ConfigError, "did you mean adam"),
        ({"tracker": "tensorbord"}, ConfigError, "did you mean tensorboard"),
        ({"device": "gpu"}, ConfigError, "none of cpu, cuda, mps"),
        ({"precision": "fp16", "device": "cpu"}, ConfigError, "fp16 needs a GPU"),
        ({"size": 3}, ModelError, "3"),
        ({"model_args": "{combine"}, ConfigError, "is no JSON"),
        ({"model_args": '{"kernel": 3}'}, ModelError, "kernel_size"),
        ({"mean": "0.5,0.5"}, ConfigError, "2 numbers for 3 channels"),
        ({"weights": "nowhere.pth"}, convmix.ConvmixError, "nowhere.pth"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_mistakes_are_named_before_anything_is_written(
    photos: Path, tmp_path: Path, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        train(photos, tmp_path / "run", **settings)
    assert message in str(caught.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_data_mistakes(tmp_path: Path, photos: Path, made_once: MadeOnce) -> None:
    with pytest.raises(DataError, match="fotos"):
        train(photos.parent / "fotos", tmp_path / "run")
    taken = classifier(made_once, photos)
    with pytest.raises(RunError, match="exists already"):
        train(photos, taken)
    with pytest.raises(RunError, match="no training to resume"):
        train(photos, tmp_path / "other", resume=True)
    with pytest.raises(ConfigError, match=r"lr: .* was started with another value"):
        train(photos, taken, lr=5.0, resume=True)


@pytest.mark.slow
def test_a_budget_is_kept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a step takes a second and an image a tenth of one to be validated, calibrated on or tested with."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock, real_step, real_outputs = Clock(), loop.train_step, loop.outputs_of

    def step(t: loop.Training, batch: loop.Batch) -> None:
        clock.now += 1.0
        real_step(t, batch)

    def outputs_of(t: loop.Training, split: str) -> loop.Outputs:
        clock.now += 0.1 * len(t.job.splits[split])
        return real_outputs(t, split)

    for module in (session, loop, budget):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "outputs_of", outputs_of)
    run = train(photos, tmp_path / "run", epochs=100_000, budget="60s", tune="never")
    assert run.stopped == "budget"
    used_s = clock.now - Clock.now
    assert 60 - budget.FINISH_S - 2 < used_s <= 60 - budget.FINISH_S  # to the step, with what it leaves for the pictures
    rows = history(run.path)
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)  # the schedule came to its end


@pytest.mark.slow
def test_console_shows_each_epoch(photos: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    overrides = {**SMALL, "epochs": 2}
    session.train_session(str(photos), recipe=None, overrides=overrides, out=tmp_path / "run", resume=False, console=console, device="cpu")
    text = console.file.getvalue()
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "images/s" in text
    assert os.fspath(tmp_path / "run") in text
