"""One training from the user's words to the finished model directory: job, accelerate's engine, fit, finish."""

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from convmix.artifact import write_csv, write_json
from convmix.config import Optim, override, parse_duration
from convmix.data.loaders import steps_per_epoch
from convmix.data.memory import Memory, allot, memory_limit
from convmix.errors import ConfigError, RunError, TrainingError, did_you_mean
from convmix.hardware import default_device, keep_freed_memory
from convmix.training.agree import from_main
from convmix.training.budget import Budget
from convmix.training.finish import TrainResult, describe_run, finish
from convmix.training.job import JOB, Job, job_file, new_job, resumed_job
from convmix.training.log import TrainingLog
from convmix.training.loop import STATE, Training, fit, save
from convmix.training.schedule import full_plan
from convmix.training.state import Position, load_state
from convmix.training.tuning import Compiled, Tuning, default, lay_out, tune


def train_session(
    spec: str, *, recipe: str | None, overrides: Mapping[str, object], out: Path | None, resume: bool, console: Console, device: str | None
) -> TrainResult:
    """Train into `out` (None: runs/NAME); with `resume` go on with the training that `out` holds.

    Raises a ConvmixError for every mistake of the user, Interrupted after SIGINT or SIGTERM with the state saved.
    """
    started = time.monotonic()
    processes = _processes(device)
    speaks = processes.is_main_process
    out = out or from_main(lambda: default_out(spec, resume=resume))
    if resume:
        job = resumed_job(out, console=console, speaks=speaks)
        _refuse_changes(job, spec, recipe, overrides)
    else:
        if speaks:
            _refuse_taken(out)
        job = new_job(spec, recipe=recipe, overrides=overrides, out=out, console=console, speaks=speaks)
    tuning = job.tuning = _tuning(job, processes, console, started=started, resume=resume)
    accelerator = _accelerator(job, processes.device, tuning.tuned.precision)
    training = _training(job, tuning, accelerator, console, started=started, resume=resume)
    _say_what(training)
    try:
        if not training.position.stopped:
            fit(training)
        result = finish(training)
    except torch.cuda.OutOfMemoryError:
        raise TrainingError(
            f"out of memory at batch {job.run.optim.batch_size}; try --accumulate {job.run.optim.accumulate * 2} "
            "(same effective batch) or --grad-checkpointing"
        ) from None
    finally:
        if job.run.tracker:
            accelerator.end_training()
    return result


def default_out(spec: str, *, resume: bool) -> Path:
    """runs/NAME after the data set; with a number where that is taken, the last one taken when resuming."""
    name = Path(spec.split("*")[0].split(":")[-1]).resolve().name.split(".")[0] or "run"
    places = [Path("runs") / name, *(Path("runs") / f"{name}-{i}" for i in range(2, 10_000))]
    first_free = next(i for i, place in enumerate(places) if not place.exists())
    return places[max(0, first_free - 1)] if resume else places[first_free]


def _tuning(job: Job, processes: Any, console: Console, *, started: float, resume: bool) -> Tuning:
    """How this training computes: as it began where it is resumed, else as the main process finds out. Task and model are made ready."""
    run, device = job.run, processes.device
    train = job.splits["train"]
    job.task.prepare_training(run.optim, run.augment, torch.as_tensor(train.labels))
    _freeze(job)
    if device.type == "cpu":
        keep_freed_memory()
    if run.precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision: fp16 needs a GPU; on a CPU use bf16 or fp32")
    if resume:
        return job.tuning or Tuning(default(run.precision, device))
    budget_s = parse_duration(run.schedule.budget) if run.schedule.budget else float("inf")
    part = max(1, run.optim.batch_size // processes.num_processes)
    transform = job.task.training_transform(job.preprocess, run.augment)
    return from_main(
        lambda: tune(
            job.model, run, task=job.task, images=job.preprocess.shape, targets=lambda: job.task.trial_targets(train, transform, part),
            device=device, steps=full_plan(run.schedule, steps_per_epoch(len(train), run.optim.batch_size)).total_steps,
            left_s=budget_s - (time.monotonic() - started), processes=processes.num_processes,
            say=lambda text: console.print(text, highlight=False, soft_wrap=True),
        )
    )  # fmt: skip


def _training(job: Job, tuning: Tuning, accelerator: Any, console: Console, *, started: float, resume: bool) -> Training:
    """Model, optimiser and averages through accelerate; the state restored or its files begun."""
    run = job.run
    lay_out(job.model, tuning.tuned.layout)
    optimizer = _optimizer(job.model, run.optim)
    ema = None
    if run.optim.ema_decay:
        from timm.utils import ModelEmaV3

        ema = ModelEmaV3(job.model.to(accelerator.device), decay=run.optim.ema_decay)
    position = Position(full_plan(run.schedule, steps_per_epoch(len(job.splits["train"]), run.optim.batch_size)))
    state = job.out / STATE
    if resume and state.exists():
        position = load_state(state, model=job.model, optimizer=optimizer, ema=ema.module if ema else None, scaler=accelerator.scaler)
    model, optimizer = accelerator.prepare(job.model, optimizer)
    log = TrainingLog(
        job.out, console, speaks=accelerator.is_main_process, score=job.task.score_name, score_title=job.task.score_title,
        tracker=accelerator if run.tracker else None,
    )  # fmt: skip
    started -= position.elapsed_s
    budget = None
    if run.schedule.budget:
        counts = job.data["counts"]
        seconds = parse_duration(run.schedule.budget)
        budget = Budget(seconds, started, counts.get("val", 0), counts.get("test", 0), run.optim.batch_size)
    training = Training(
        job, accelerator, model, optimizer, ema, position, log, budget, started, tuning,
        memories=_memories(job, accelerator.num_processes),
    )  # fmt: skip
    if tuning.tuned.compile:
        training.compiled = Compiled(model, run.optim.batch_size // run.optim.accumulate, say=log.say)
    if accelerator.is_main_process and not (resume and state.exists()):
        write_csv(job.out / "splits.csv", ("split", "name", "digest", "label"), job.split_rows)
        write_csv(job.out / "bad_images.csv", ("name", "split", "reason"), job.bad_rows)
        write_json(job.out / JOB, job_file(job))
        describe_run(training, {}, finished=False)
    if not (resume and state.exists()):
        save(training)
    return training


def _memories(job: Job, processes: int) -> dict[str, Memory]:
    """Where decoded training images are kept, and validation images as evaluation reads them; the test is decoded once anyway."""
    sizes = {"train": job.sizes["train"]}
    if "val" in job.splits:
        sizes["val"] = job.task.preprocessing(job.preprocess).kept_sizes(job.sizes["val"])
    return allot(sizes, channels=job.preprocess.in_chans, limit=memory_limit(job.run.data.cache_gib, processes=processes))


def _processes(device: str | None) -> Any:
    """accelerate's view of the processes that torchrun started, or of this one alone."""
    from accelerate import PartialState

    if device not in (None, "cpu", "cuda", "mps"):
        raise ConfigError(f"device: {device!r} is none of cpu, cuda, mps{did_you_mean(device, ('cpu', 'cuda', 'mps'))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but PyTorch sees no CUDA device; leave --device out to use what is there")
    patience = timedelta(hours=6)  # the others wait while the main process reads the images
    return PartialState(cpu=(device or default_device().type) == "cpu", timeout=patience)


def _accelerator(job: Job, device: torch.device, precision: str) -> Any:
    """accelerate's engine in the precision and with the tracker of the run."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    name = job.run.tracker
    if name and name not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"unknown tracker {name}{did_you_mean(name, LOGGER_TYPE_TO_CLASS)}")
    AcceleratorState._reset_state()  # it remembers the precision of the process's first training
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision,
        log_with=name, project_dir=str(job.out / "tracker") if name else None,
    )  # fmt: skip
    if name:
        try:
            accelerator.init_trackers("convmix")
        except (ImportError, ValueError) as error:
            raise ConfigError(f"tracker {name} cannot start: {error}; pip install {name}") from None
        if not accelerator.trackers:
            raise ConfigError(f"tracker {name} is not installed; pip install {name}")
    return accelerator


def _optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

    names = [str(name) for name in list_optimizers()]
    if optim.optimizer not in names:
        raise ConfigError(f"unknown optimizer {optim.optimizer}{did_you_mean(optim.optimizer, names)}")
    eps: dict[str, Any] = {"eps": optim.eps} if get_optimizer_info(optim.optimizer).has_eps else {}
    return create_optimizer_v2(
        model, opt=optim.optimizer, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum,
        filter_bias_and_bn=not optim.decay_norm_bias, **eps,
    )  # fmt: skip


def _freeze(job: Job) -> None:
    """Everything but the classifier, for a linear probe."""
    if job.run.net.freeze == "backbone":
        model: Any = job.model
        head = {id(p) for p in model.get_classifier().parameters()}
        for parameter in job.model.parameters():
            parameter.requires_grad_(id(parameter) in head)


def _say_what(t: Training) -> None:
    job, p = t.job, t.position
    counts = ", ".join(f"{n} {split}" for split, n in job.data["counts"].items())
    h, w = job.preprocess.size
    t.log.say(
        f"{job.spec}: {len(job.task.labels)} classes, {counts} images"
        + (f"; left out: {job.data['bad']}, see bad_images.csv" if job.data["bad"] else "")
    )
    for note in job.notes:
        t.log.say(f"note: {note}")
    params = sum(x.numel() for x in job.model.parameters())
    t.log.say(
        f"{job.run.model}: {params / 1e6:.2f} M parameters, {h}x{w} px, recipe {job.run.recipe}, "
        f"{t.precision} on {t.accelerator.device.type}, into {job.out}"
    )
    if t.tuning.trials and not p.step:
        t.log.say(f"training in {t.tuning}")
    if p.step:
        t.log.say(f"resuming at step {p.step} of {p.plan.total_steps}, epoch {len(p.history) + 1}")


def _refuse_taken(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists already; give another --out, or --resume to go on with the training in it")


def _refuse_changes(job: Job, spec: str, recipe: str | None, overrides: Mapping[str, object]) -> None:
    """A resumed training keeps its settings; another value is an error rather than silently ignored."""
    if recipe is not None and recipe != job.run.recipe:
        raise ConfigError(f"recipe {recipe}: {job.out} was started with {job.run.recipe} and goes on with it")
    for key, value in overrides.items():
        if override(job.run, {key: value}) != job.run:
            raise ConfigError(f"{key}: {job.out} was started with another value; a resumed training keeps its settings")
    if spec != job.spec and Path(spec).resolve() != Path(job.spec).resolve():
        raise ConfigError(f"{job.out} was started on {job.spec}, not on {spec}")
