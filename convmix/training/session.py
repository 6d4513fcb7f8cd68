"""One training from the user's words to the finished model directory: job, accelerate's engine, fit, finish."""

import copy
import itertools
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convmix.atomic import is_leftover, remove_leftovers, write_csv, write_json
from convmix.config import Run, override, parse_duration
from convmix.data.augment.device_augment import for_transform
from convmix.data.coco_ids import FILE as COCO_IDS
from convmix.data.device_cache import DeviceCache, fits, load
from convmix.data.image_cache import ImageCache, allot, memory_limit
from convmix.data.order import batch_bounds
from convmix.data.remote.urls import redact
from convmix.errors import ConfigError, RunError, TrainingError, did_you_mean
from convmix.hardware import default_device, keep_freed_memory
from convmix.ops import build
from convmix.ops.gpu import routes
from convmix.system.locking import NAME as LOCK
from convmix.system.locking import locked
from convmix.system.surroundings import refuse_unwritable
from convmix.training.autotune import Compiled, Tuning, default, lay_out, tune
from convmix.training.batch_norm import synchronised
from convmix.training.budget import Budget
from convmix.training.distributed import SILENCE, from_main, lost_another
from convmix.training.extension import extend, named_alone, plan_of, with_more_epochs
from convmix.training.finalize import TrainResult, describe_run, finish
from convmix.training.head_first import begin_with_head, can_begin_with_head
from convmix.training.log import TrainingLog
from convmix.training.loop import Training, fit, save
from convmix.training.named_teacher import named_teacher, open_teaching
from convmix.training.optimizer import create_optimizer
from convmix.training.setup import JOB, STATE, TrainingSetup, check_resumable, goes_on, job_file, new_job, resumed_job
from convmix.training.sharding import refuse_unshardable, shard
from convmix.training.state import TrainState, read_state, restore_optimizer, restore_weights
from convmix.training.teacher import is_named
from convmix.training.unlabelled import images_of_step
from convmix.training.whitening import start_whitened


def train_session(
    spec: str,
    *,
    recipe: str | None,
    overrides: Mapping[str, object],
    out: Path | None,
    resume: bool,
    console: Console,
    device: str | None,
    autoresume: bool = False,
) -> TrainResult:
    """Train into `out` (None: runs/NAME); with `resume` continue the training that `out` holds, with `autoresume` if it holds one.

    With `resume`, `spec` may be the model directory alone, and `overrides` may hold more epochs than it was begun with.

    Raises a ConvmixError for every mistake of the user, Interrupted after SIGINT or SIGTERM with the state saved.
    """
    started = time.monotonic()
    spec, out = named_alone(redact(spec), out, resume=resume)
    processes = _processes(device)
    speaks = processes.is_main_process
    _refuse_unrestartable(out, autoresume=autoresume)
    resume = resume or from_main(lambda: out is not None and goes_on(out, autoresume=autoresume))
    place = out or from_main(lambda: default_out(spec, resume=resume))
    with ExitStack() as lock:
        if resume:
            from_main(lambda: check_resumable(place))
        from_main(lambda: refuse_unwritable(place, option="--out"))
        held = from_main(lambda: lock.enter_context(locked(place)))  # before the scan, and until the directory is complete
        if resume:
            job = resumed_job(place, console=console, speaks=speaks)
            overrides = with_more_epochs(job, overrides)
            from_main(lambda: _refuse_changes(job, spec, recipe, overrides))
        else:
            from_main(lambda: _refuse_taken(place))
            job = new_job(spec, recipe=recipe, overrides=overrides, out=place, console=console, speaks=speaks, device=processes.device)
        job.held = held
        from_main(lambda: _tidy(place))
        return _carried_out(job, processes, console, started=started, resume=resume)


def _carried_out(job: TrainingSetup, processes: Any, console: Console, *, started: float, resume: bool) -> TrainResult:
    tuning = job.tuning = _tuning(job, processes, console, started=started, resume=resume)
    accelerator = _accelerator(job, processes.device, tuning.tuned.precision)
    training = _training(job, tuning, accelerator, console, started=started, resume=resume)
    if resume:
        extend(training)
    _say_what(training)
    try:
        if training.unsaved:
            _begin(training)
        if not training.position.stopped:
            fit(training)
        return finish(training)
    except torch.cuda.OutOfMemoryError:
        raise TrainingError(
            f"out of memory at batch {job.run.optim.batch_size}; try --accumulate {job.run.optim.accumulate * 2} "
            "(same effective batch) or --grad-checkpointing"
        ) from None
    except RuntimeError as error:
        if not lost_another(error):
            raise
        raise TrainingError(f"another process of this training is gone; the last state saved is in {job.out}") from error
    finally:
        if job.run.tracker:
            accelerator.end_training()


def default_out(spec: str, *, resume: bool) -> Path:
    """runs/NAME after the data set; with a number where that is taken, the last one taken when resuming."""
    name = Path(re.split(r"[*?[{]", spec)[0].split(":")[-1]).resolve().name.split(".")[0].rstrip("-_") or "run"
    places = [Path("runs") / name, *(Path("runs") / f"{name}-{i}" for i in range(2, 10_000))]
    first_free = next(i for i, place in enumerate(places) if not place.exists())
    return places[max(0, first_free - 1)] if resume else places[first_free]


def _tuning(job: TrainingSetup, processes: Any, console: Console, *, started: float, resume: bool) -> Tuning:
    """How this training computes: as it began where it is resumed, else as the main process finds out. Task and model are made ready."""
    run, device = job.run, processes.device
    train = job.splits["train"]
    _refuse_apart(run, len(train), processes)
    classes = torch.as_tensor(train.targets)
    job.task.prepare_training(run.optim, run.augment, classes)
    if run.net.weights is None and run.net.pretrained == "no":  # a saved state follows and has the last word
        job.task.start_classifier(job.model, classes)
    if run.net.whiten and not (job.out / STATE).is_file():
        start_whitened(job)
    _freeze(job)
    if device.type == "cpu":
        keep_freed_memory()
    if run.precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision: fp16 needs a GPU; on a CPU use bf16 or fp32")
    usual = (resume and job.tuning) or Tuning(default(run.precision, device))
    if _sharded(run, processes):  # parts are rows of weights that lie as they are indexed
        return Tuning(replace(usual.tuned, layout="nchw", compile=False))
    if resume or (run.net.head_first and run.net.freeze == "backbone"):  # which takes no steps
        return usual
    budget_s = parse_duration(run.schedule.budget) if run.schedule.budget else float("inf")
    part = max(1, run.optim.batch_size // processes.num_processes)
    transform = job.task.training_transform(job.preprocess, run.augment)
    return from_main(
        lambda: tune(
            job.model, run, task=job.task, images=job.preprocess.shape, targets=lambda: job.task.trial_targets(train, transform, part),
            device=device, steps=plan_of(job).total_steps,
            left_s=budget_s - (time.monotonic() - started), processes=processes.num_processes,
            say=lambda text: console.print(text, highlight=False, soft_wrap=True),
        ), takes_long=True,
    )  # fmt: skip


def _sharded(run: Run, processes: Any) -> bool:
    return run.parallel == "fsdp" and processes.num_processes > 1


def _training(job: TrainingSetup, tuning: Tuning, accelerator: Any, console: Console, *, started: float, resume: bool) -> Training:
    """Model, optimiser and averages through accelerate; the state restored or its files begun."""
    run = job.run
    sharded = _sharded(run, accelerator)
    lay_out(job.model, tuning.tuned.layout)
    if run.sync_batch_norm and accelerator.num_processes > 1:
        job.model = synchronised(job.model, accelerator.device)
    job.model.to(accelerator.device)
    ema = None
    if run.optim.ema_decay:
        from timm.utils import ModelEmaV3

        ema = ModelEmaV3(job.model, decay=run.optim.ema_decay)
    path = job.out / STATE
    saved = from_main(lambda: read_state(path) if resume and path.exists() else None)
    if saved:
        restore_weights(saved, model=job.model, ema=ema.module if ema else None)
    unsharded = copy.deepcopy(job.model) if sharded else None
    for module in (job.model, *([ema.module] if ema else ())) if sharded else ():
        shard(module, accelerator.device)
    optimizer = create_optimizer(job.model, run.optim)
    position = restore_optimizer(saved, optimizer=optimizer, scaler=accelerator.scaler) if saved else TrainState(plan_of(job))
    # evaluation mode: accelerate adds autocast and no DistributedDataParallel
    model, optimizer = accelerator.prepare_model(job.model, evaluation_mode=sharded), accelerator.prepare_optimizer(optimizer)
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
    resident = _resident(job, accelerator)
    training = Training(
        job, accelerator, model, optimizer, ema, position, log, budget, started, tuning,
        unsharded=unsharded, memories=_memories(job, accelerator.num_processes, keeps_train=resident is None), resident=resident,
    )  # fmt: skip
    open_teaching(training, resume=resume)
    if tuning.tuned.compile:
        training.compiled = Compiled(model, images_of_step(run.optim) // run.optim.accumulate, say=log.say)
    if not saved:
        if accelerator.is_main_process:
            write_json(job.out / JOB, job_file(job))  # first: what `goes_on` asks for
            write_csv(job.out / "splits.csv", ("split", "name", "digest", "label"), job.split_rows, raw=True)
            if job.coco_ids is not None:
                write_json(job.out / COCO_IDS, job.coco_ids.to_dict())
            write_csv(job.out / "bad_images.csv", ("name", "split", "reason"), job.bad_rows)
            describe_run(training, {}, finished=False)
        training.unsaved = True
    if is_named(run.optim):
        training.teacher = named_teacher(training)
    return training


def _begin(t: Training) -> None:
    """What stands before the first step, and the first save."""
    if t.job.run.net.head_first:
        if why_not := can_begin_with_head(t):
            t.log.say(f"the classifier is not fitted first: {why_not}")
        else:
            t.first = begin_with_head(t)
    save(t)


def _resident(job: TrainingSetup, accelerator: Any) -> DeviceCache | None:
    """The training images on the device, where they are to be changed there; ConfigError where that cannot be done."""
    run, device, sizes = job.run, accelerator.device, job.sizes["train"]
    if run.data.augment_on != "device":  # auto: nobody has measured on a card what it gains
        return None
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(f"augment_on: {device.type} has no float64, which resampling takes; set it to workers")
    if (sizes != sizes[0]).any():
        raise ConfigError("augment_on: device takes images of one size, these differ; set it to workers")
    height, width = (int(side) for side in sizes[0])
    augment = for_transform(job.task.training_transform(job.preprocess, run.augment), (height, width))
    limit = memory_limit(run.data.cache_gib, processes=accelerator.num_processes)
    if not fits(len(sizes), (height, width), job.preprocess.in_chans, device=device, limit=limit):
        raise ConfigError(f"augment_on: {len(sizes)} images of {height}x{width} are too many to keep; a larger cache_gib, or workers")
    return load(job.splits["train"], augment, workers=run.data.workers, device=device)


def _memories(job: TrainingSetup, processes: int, *, keeps_train: bool) -> dict[str, ImageCache]:
    """Where decoded training images are kept, and validation images as evaluation reads them; the test is decoded once anyway."""
    sizes = {"train": job.sizes["train"]} if keeps_train else {}
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
    return PartialState(cpu=(device or default_device().type) == "cpu", timeout=SILENCE)


def _accelerator(job: TrainingSetup, device: torch.device, precision: str) -> Any:
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


def _freeze(job: TrainingSetup) -> None:
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
    if t.unlabelled is not None:
        t.log.say(t.unlabelled.sentence)
    for kernels in (build.said(t.accelerator.device.type), routes.said(t.accelerator.device.type)):
        if kernels:
            t.log.say(kernels)
    if t.tuning.trials and not p.step:
        t.log.say(f"training in {t.tuning}")
    if p.step:
        t.log.say(f"resuming at step {p.step} of {p.plan.total_steps}, epoch {p.epochs_done + 1}")


def _refuse_unrestartable(out: Path | None, *, autoresume: bool) -> None:
    """What may have to begin again needs to be told where its training is, and a meeting place that forgets the processes that ended."""
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if out is None and (autoresume or restarts):
        raise ConfigError(f"{'--autoresume' if autoresume else 'torchrun --max-restarts'} needs --out, where a restart finds the training")
    hosts = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    if restarts and hosts > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(
            "torchrun --max-restarts on several hosts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment: "
            "the store that it shares otherwise gives restarted processes the addresses of those that ended"
        )


def _refuse_apart(run: Run, images: int, processes: Any) -> None:
    """What several processes cannot do together."""
    world, accumulate = processes.num_processes, run.optim.accumulate
    if world == 1:
        return
    bounds = batch_bounds(images, run.optim.batch_size, drop_last=run.data.drop_last)
    fewest = min(b - a for a, b in itertools.pairwise(bounds))
    if fewest // world < accumulate:
        raise ConfigError(
            f"optim.batch_size: a batch of {fewest} images is too small for {world} processes"
            + (f" that accumulate {accumulate} parts" if accumulate > 1 else "")
        )
    if run.parallel == "fsdp":
        refuse_unshardable(run.optim)


def _tidy(out: Path) -> None:
    """What killed trainings left half written; nobody but a training writes into the folder of its state."""
    remove_leftovers(out / JOB.parent, older_than_s=0)
    remove_leftovers(out, older_than_s=60)  # `calibrate` may be at work


def _refuse_taken(out: Path) -> None:
    if out.is_dir() and not all(_is_nothing(entry) for entry in out.iterdir()):
        raise RunError(f"{out} exists already; give another --out, or --resume to go on with the training in it")


def _is_nothing(entry: Path) -> bool:
    """Whether it is what a training leaves that was killed before its first file was whole: it begins as if that had never been."""
    if entry.name == JOB.parent.name and entry.is_dir() and not entry.is_symlink():
        return all(_is_nothing(inner) for inner in entry.iterdir())
    return entry.name == LOCK or is_leftover(entry.name)


def _refuse_changes(job: TrainingSetup, spec: str, recipe: str | None, overrides: Mapping[str, object]) -> None:
    """A resumed training keeps its settings; another value is an error rather than silently ignored."""
    if recipe is not None and recipe != job.run.recipe:
        raise ConfigError(f"recipe {recipe}: {job.out} was started with {job.run.recipe} and continues with it")
    for key, value in overrides.items():
        if key.split(".")[-1] == "pretrained" and value == "auto":
            continue  # settled when it was started
        if override(job.run, {key: value}) != job.run:
            raise ConfigError(f"{key}: {job.out} was started with another value; a resumed training keeps its settings")
    if spec != job.spec and Path(spec).resolve() != Path(job.spec).resolve():
        raise ConfigError(f"{job.out} was started on {job.spec}, not on {spec}")
