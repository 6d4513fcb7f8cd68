"""After the last step: the kept weights are calibrated on the validation split, tested once, and the model directory is completed.

The test split is opened here, after the calibration, and nowhere before: nothing can have been chosen by it.
"""

import json
import shlex
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from convmix.artifacts.artifact import save_description
from convmix.artifacts.card import model_card
from convmix.atomic import write_bytes, write_csv, write_json, write_tensors
from convmix.config import parse_duration, to_dict
from convmix.data.loaders import eval_batches
from convmix.errors import TrainingError
from convmix.hardware import describe_machine
from convmix.inference.batches import run_model
from convmix.metrics.calibration import FEWEST
from convmix.models.features import classifier_layers
from convmix.models.neighbours import FILE, digest_of_weights, make_neighbours
from convmix.tasks.base import Task
from convmix.training.distributed import from_main
from convmix.training.loop import Training, check_directory, features_of, outputs_of, validate

MOST_NEIGHBOURS = 20_000  # training images that are kept as features


@dataclass(frozen=True)
class TrainResult:
    """What a training returns."""

    path: Path  # the model directory
    metrics: dict[str, Any]  # split -> scores
    stopped: str  # "epochs", "budget", "early stopping", or "head" where the classifier alone was fitted
    keeps: str  # "best" or "last"
    task: Task


def describe_run(t: Training, metrics: dict[str, Any], *, finished: bool) -> None:
    """Write config.json and convmix.json as they stand."""
    job = t.job
    save_description(
        job.out, model=t.eval_model, task=job.task, preprocess=job.preprocess,
        info=_info(t, metrics, finished=finished),
    )  # fmt: skip


def finish(t: Training) -> TrainResult:
    """Calibrate and test the kept weights and write what people read; returns on every process."""
    job = t.job
    t.log.draw()  # what has no epochs has not been drawn yet: a classifier that was fitted
    if t.unlabelled is not None:
        t.log.say(t.unlabelled.outcome(t.position.bad, steps=t.position.step))
    kept = from_main(lambda: _kept(t))
    t.eval_model.load_state_dict(kept)
    _calibrate(t)
    _keep_neighbours(t)
    metrics = {"val": t.position.kept_metrics} if t.position.kept_metrics else {}
    if "test" in job.splits:
        metrics["test"] = validate(t, "test")
    from_main(lambda: _complete(t, metrics))
    return TrainResult(job.out, metrics, t.position.stopped, job.run.schedule.keep, job.task)


def _kept(t: Training) -> dict[str, torch.Tensor]:
    """The weights of the model directory; TrainingError where they are gone, damaged, or of another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_directory(t)
    try:
        kept = load_file(t.job.out / "model.safetensors")
    except OSError as error:
        raise TrainingError(f"the kept weights in {t.job.out} are gone: {error.strerror or error}; start again") from None
    except SafetensorError as error:
        raise TrainingError(f"the kept weights in {t.job.out} cannot be read: {' '.join(str(error).split())[:200]}; start again") from None
    own = t.eval_model.state_dict()
    if {k: (v.shape, v.dtype) for k, v in kept.items()} != {k: (v.shape, v.dtype) for k, v in own.items()}:
        raise TrainingError(f"the kept weights in {t.job.out} are another network's; start again")
    return kept


def _complete(t: Training, metrics: dict[str, Any]) -> None:
    """What people and other programs read; the last look is at what a removal in the meantime would have taken."""
    job = t.job
    check_directory(t)
    describe_run(t, metrics, finished=True)
    bad = [*job.bad_rows, *((name, _split_of(t, name), reason) for name, reason in t.position.bad.items())]
    write_csv(job.out / "bad_images.csv", ("name", "split", "reason"), bad)
    if "test" in job.splits:
        write_bytes(job.out / "predictions.png", _picture(t))
    info, config = (json.loads((job.out / name).read_bytes()) for name in ("convmix.json", "config.json"))
    write_bytes(job.out / "README.md", model_card(info, config).encode("utf-8", "backslashreplace"))
    write_json(job.out / "record.json", _record(t, metrics))
    check_directory(t)
    if missing := [name for name in ("model.safetensors", "config.json", "convmix.json") if not (job.out / name).is_file()]:
        raise TrainingError(f"{', '.join(missing)} was removed from {job.out} while the training ended; it holds no model, start again")


def _split_of(t: Training, name: str) -> str:
    return "unlabelled" if t.unlabelled is not None and name in t.unlabelled.files.names else "train"


def _calibrate(t: Training) -> None:
    """Give the task a calibration fitted on the validation split, where that is large enough; on every process the same one."""
    job = t.job
    if not job.task.calibrates:
        return
    n = len(job.splits["val"]) if "val" in job.splits else 0
    if n >= FEWEST:
        known = t.first.val_outputs if t.first is not None and t.position.kept_epoch == 0 else None
        outputs = known or outputs_of(t, "val")
        n = len(outputs.values)
    if n < FEWEST:
        t.log.say(f"not calibrated: {n} validation images, expected at least {FEWEST}; probabilities are the model's own")
        return
    c = job.task.calibration = job.task.calibrate(outputs.values, outputs.targets, split="val")
    if c is not None:
        t.log.say(c.sentence)


def _keep_neighbours(t: Training) -> None:
    """The training images in the space of the kept weights' features, for `predict`: where these are at hand, or quickly had."""
    job = t.job
    path = job.out / FILE
    path.unlink(missing_ok=True)
    train = job.splits["train"]
    quick = job.run.net.head_first and t.accelerator.num_processes == 1 and len(train) <= MOST_NEIGHBOURS
    if not quick or not classifier_layers(t.eval_model):
        return
    if t.first is not None and t.position.kept_epoch == 0:
        features, of_val = t.first.train, t.first.val_features
    else:
        features = features_of(t, "train")
        of_val = features_of(t, "val").main if "val" in job.splits else None
    names = [train.name(i) for i in features.indices.tolist()]
    found = make_neighbours(features.main, features.labels, names, of_val, weights=digest_of_weights(job.out))
    write_tensors(path, *found.tensors())


def _info(t: Training, metrics: dict[str, Any], *, finished: bool) -> dict[str, Any]:
    job, p = t.job, t.position
    return {
        "finished": finished,
        "model": job.run.model,
        "run": to_dict(job.run),
        "data": {**job.data, "bad": len(job.bad_rows) + len(p.bad)},
        **({"calibration": job.task.calibration.to_dict()} if job.task.calibration else {}),
        "metrics": metrics,
        "training": {
            "epochs_done": p.epochs_done,
            "steps": p.step,
            "images_seen": p.images_seen,
            "elapsed_s": p.elapsed_s,
            "images_per_s": p.images_seen / p.train_s if p.train_s else None,
            "kept_epoch": p.kept_epoch,
            "stopped": p.stopped,
            "precision": t.precision,
            "processes": t.accelerator.num_processes,
            "tuning": asdict(t.tuning),
        },
        "machine": describe_machine(t.accelerator.device),
        "versions": {name: version(name) for name in ("convmix", "torch", "torchvision", "timm", "pillow")},
    }


def _record(t: Training, metrics: dict[str, Any]) -> dict[str, Any]:
    """The run as one JSON of numbers, without a path of this machine: what tables of results are generated from."""
    job, p, c = t.job, t.position, t.job.task.calibration
    network = t.eval_model
    data_name = Path(job.spec).name
    settings = [part for k, v in job.overrides.items() for part in (f"--{k.replace('_', '-')}", _text(v))]
    return {
        "name": job.out.name,
        "command": shlex.join(["convmix", "train", data_name, "--recipe", job.run.recipe, *settings]),
        "date": datetime.now(UTC).date().isoformat(),
        "data": {"name": data_name, "fingerprint": job.data["fingerprint"], **job.data["counts"]},
        "model": job.run.model,
        "task": job.task.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": job.task.macs(network, job.run, job.preprocess.shape),
        "recipe": job.run.recipe,
        "settings": {k: _text(v) for k, v in job.overrides.items()},
        "budget_s": parse_duration(job.run.schedule.budget) if job.run.schedule.budget else None,
        "epochs_done": p.step / p.plan.steps_per_epoch,
        "images_seen": p.images_seen,
        "elapsed_s": time.monotonic() - t.started,
        "train_elapsed_s": p.train_s,
        "data_wait_s": p.data_wait_s,
        "images_per_s": p.images_seen / p.train_s,
        "stopped": p.stopped,
        **({"calibration": c.brief()} if c else {}),
        **metrics,
        "machine": {
            **describe_machine(t.accelerator.device),
            **asdict(t.tuning.tuned),
            "processes": t.accelerator.num_processes,
        },
        "versions": {name: version(name) for name in ("convmix", "torch", "timm")},
        "curve": p.history,
    }


def _text(value: object) -> str:
    """A setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _picture(t: Training) -> bytes:
    """Some test images with what the model says of them, drawn at random but always the same ones."""
    job = t.job
    test = job.splits["test"]
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: job.task.pictured].sort().values
    some = test.select(chosen.tolist())
    loads = job.task.preprocessing(job.preprocess)
    batches = list(eval_batches(some, loads, batch_size=job.task.pictured, rank=0, world=1, workers=0))
    outputs = run_model(t.eval_model, batches, device=t.accelerator.device, precision=t.precision, observe=job.task.observe)
    title = f"{job.run.model} on {len(outputs.indices)} of {len(test)} test images"
    inputs = torch.cat([b.images for b in batches])
    return job.task.picture(some.select(outputs.indices.numpy()), job.preprocess, inputs, outputs.values, outputs.targets, title=title)
