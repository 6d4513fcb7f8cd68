"""From what the user asked for to everything a training needs: data opened and checked, settings resolved, model built.

spec, recipe, overrides -> open and scan the data -> facts -> Run -> splits, preprocessing, task, model -> TrainingSetup
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from torch import nn

from convmix import config, recipes
from convmix.config import Data, Run
from convmix.data.coco_ids import CocoIds
from convmix.data.examples import Examples, Source
from convmix.data.facts import DataFacts
from convmix.data.inspection import announce, refuse_too_little
from convmix.data.preprocessing import Preprocess
from convmix.data.remote.urls import is_url
from convmix.data.scan import Scan, clean, scan, split_rows
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from convmix.documents import checked, read_object
from convmix.errors import ConfigError, DataError, ModelError, RunError, first_line
from convmix.models import catalog
from convmix.models.expected_input import expected_input
from convmix.system.locking import Held
from convmix.tasks import create_task, task_class
from convmix.tasks.base import Task
from convmix.training.autotune import Tuning
from convmix.training.distributed import from_all, from_main
from convmix.training.log import scan_progress
from convmix.training.start import bring_weights, choose_start
from convmix.training.teacher import refuse_another_teacher, teacher_digest

JOB = Path("state") / "job.json"
PRECISIONS = ("fp32", "bf16", "fp16")
STATE = Path("state") / "last.safetensors"
CPU = torch.device("cpu")
NAMELESS = "none"  # torchrun's id of every job over several machines that was given no --rdzv-id


@dataclass
class TrainingSetup:
    """A training that can start."""

    spec: str  # the data set as the user named it
    out: Path
    run: Run
    overrides: dict[str, Any]  # what the user changed, for the run record
    task: Task
    splits: dict[str, Examples]  # without broken images; "train", and "val" and "test" where there are any
    sizes: dict[str, np.ndarray]  # split -> n,2: height and width of its images, pixels
    preprocess: Preprocess
    model: nn.Module
    data: dict[str, Any]  # provenance, for convmix.json
    notes: list[str] = field(default_factory=list)  # one line each, for people
    split_rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    bad_rows: list[tuple[str, str, str]] = field(default_factory=list)
    held: Held | None = None  # `out`, which the main process has locked
    coco_ids: CocoIds | None = None  # of images and categories, where the data set has some
    tuning: Tuning | None = None  # how it computes; None where that is still to be found out
    unlabelled: str | None = None  # digest of the images without labels, as this training began


def new_job(
    spec: str,
    *,
    recipe: str | None,
    overrides: Mapping[str, object],
    out: Path,
    console: Console,
    speaks: bool,
    device: torch.device = CPU,
) -> TrainingSetup:
    """Open the data, resolve the settings and build the model; raises a ConvmixError for any mistake found on the way."""
    name = recipe or ("digits" if spec == "digits" else None)
    model = overrides.get("model")
    unseen = DataFacts(num_train=1, num_classes=1, height=224, width=224, in_chans=3, model=str(model) if model else None)
    asked = config.override(recipes.recipe(name or "default", unseen), overrides)  # mistakes in settings are said before any image is read
    scanned, source = _read_data(spec, asked, console=console, speaks=speaks)
    kind = task_class(source.task)
    start = choose_start(
        asked, scanned.facts, kind, named_model=unseen.model, named_recipe=name is not None, accelerator=device.type != "cpu"
    )  # fmt: skip
    budget_s = config.parse_duration(asked.schedule.budget) if asked.schedule.budget and device.type == "cpu" else None
    facts = dataclasses.replace(scanned.facts, model=start.model, cpu_budget_s=budget_s)
    from_weights = start.pretrained or asked.net.weights is not None
    base = recipes.recipe(name or (from_weights and kind.finetunes) or kind.recipe, facts)
    run = config.override(base, overrides)
    net = dataclasses.replace(run.net, pretrained="yes" if start.pretrained else "no")
    run = dataclasses.replace(run, net=net, data=dataclasses.replace(run.data, task=cast(Any, source.task)))
    if run.net.head_first and kind.finetunes is None:
        raise ConfigError(f"net.head_first is for classification; leave it out for the task {source.task}")
    if start.pretrained:
        bring_weights(run.model, say=lambda text: console.print(text, highlight=False, soft_wrap=True) if speaks else None)
    asked_for = {key.replace("-", "_").split(".")[-1] for key in overrides}
    run, notes = _as_weights_expect(run, kind, asked_for=asked_for, made_for_weights=base.net.pretrained == "yes")
    notes += [start.note] if start.note else []
    unhurried = recipes.recipe(base.recipe, dataclasses.replace(facts, cpu_budget_s=None)).model
    if run.model != unhurried and "model" not in asked_for:
        notes.append(f"{run.model} instead of {unhurried}, for which {run.schedule.budget} on a CPU are too short; --model takes another")
    return _build(spec, run, scanned, source, out=out, overrides=dict(overrides), asked_for=asked_for, fresh=True, notes=notes)


def check_resumable(out: Path) -> None:
    """RunError where `out` holds no training to go on with."""
    _read_job(out)


def resumed_job(out: Path, *, console: Console, speaks: bool) -> TrainingSetup:
    """The job that `out` was started with; its data must not have changed since."""
    saved = from_main(lambda: _read_job(out))
    run = config.from_dict(saved.run)
    scanned, source = _read_data(saved.spec, run, console=console, speaks=speaks)
    if scanned.fingerprint != saved.fingerprint:
        raise RunError(
            f"{saved.spec} has changed since {out} was started (fingerprint {scanned.fingerprint}, then {saved.fingerprint}); "
            "start a new run or bring the old data back"
        )
    refuse_another_teacher(run.optim, saved.teacher)
    # everything is resolved and not looked up again; so are the weights, unless it was killed before its first save
    fresh = not (out / STATE).is_file()
    job = _build(saved.spec, run, scanned, source, out=out, overrides=saved.overrides, asked_for={"size"}, fresh=fresh)
    job.tuning, job.unlabelled = saved.tuning, saved.unlabelled
    return job


def goes_on(out: Path, *, autoresume: bool) -> bool:
    """Whether a command that may be a restart finds its own training in `out`.

    torchrun gives the processes that it restarts the arguments of the first ones, and the id of the job that they belong to.
    """
    if not (out / JOB).is_file():
        return False
    launch = _read_job(out).launch
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return autoresume or (launch is not None and launch == _launch() and (restarted or launch != NAMELESS))


def saved_spec(out: Path) -> str:
    """The data set that the training in `out` was started on; RunError where there is no training."""
    return _read_job(out).spec


def _read_job(out: Path) -> "_Saved":
    place = out / JOB
    try:
        saved = checked(read_object(place), _Saved, where=str(place))
    except FileNotFoundError:
        raise RunError(f"{out} holds no training to resume: there is no readable {JOB}") from None
    except RunError as error:
        raise RunError(f"{out} holds no training to resume: there is no readable {JOB}: {error}") from None
    for name in config.SECTIONS:
        checked(saved.run.get(name, {}), dict[str, Any], where=f"{place}: run.{name}")
    for name in ("recipe", "source", "expect"):
        checked(saved.run.get(name, ""), str, where=f"{place}: run.{name}")
    try:
        config.from_dict(saved.run)
    except ConfigError as error:
        raise RunError(f"{place}: run: {error}") from None
    return saved


@dataclass(frozen=True)
class _Saved:
    """What `job_file` wrote."""

    spec: str
    run: dict[str, Any]
    overrides: dict[str, Any]
    fingerprint: str
    tuning: Tuning | None = None
    launch: str | None = None
    teacher: str | None = None
    unlabelled: str | None = None

    def __post_init__(self) -> None:
        if self.tuning and self.tuning.tuned.precision not in PRECISIONS:
            raise RunError(f"tuning: precision: {self.tuning.tuned.precision[:60]!r} is not one of {', '.join(PRECISIONS)}")


def _launch() -> str | None:
    """torchrun's --rdzv-id, or what it drew itself; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def job_file(job: TrainingSetup) -> dict[str, Any]:
    """What `resumed_job` reads back."""
    return {
        "spec": job.spec,
        "run": config.to_dict(job.run),
        "overrides": job.overrides,
        "fingerprint": job.data["fingerprint"],
        "tuning": dataclasses.asdict(job.tuning) if job.tuning else None,
        "launch": _launch(),
        "teacher": teacher_digest(job.run.optim),
        "unlabelled": job.unlabelled,
    }


def _read_data(spec: str, run: Run, *, console: Console, speaks: bool) -> tuple[Scan, Source]:
    """The data set with its splits, and what one look at every image found; the main process looks for all."""
    opened = _open(spec, run.data, console=console, speaks=speaks)
    announce(opened, spec, console=console if speaks else None)
    refuse_too_little(opened, spec)
    source = with_splits(opened, run.data)

    def look() -> Scan:
        with scan_progress(console) as bar:
            row = bar.add_task("reading images", total=None, visible=speaks)
            return scan(source, run.data, progress=lambda done, total: bar.update(row, completed=done, total=total))

    scanned = from_main(look, takes_long=True)
    if len(set(from_all(_listing(source)))) > 1:
        raise DataError(f"{spec}: is not the same data on every machine; each needs all images under this path, or a disk that all share")
    return scanned, source


def _open(spec: str, data: Data, *, console: Console, speaks: bool) -> Source:
    """The data set as it came; shards behind a URL are looked into by the main process for all."""
    with scan_progress(console) as bar:
        row = bar.add_task("fetching shards", total=None, visible=False)

        def opened() -> Source:
            return open_source(spec, data, fetched=lambda done, total: bar.update(row, completed=done, total=total, visible=speaks))

        return from_main(opened, takes_long=True) if is_url(spec) else opened()


def _listing(source: Source) -> str:
    """A digest of which images there are, in which order: processes speak of them by number."""
    digest = hashlib.blake2b(digest_size=16)
    for split, examples in source.splits.items():
        digest.update("\n".join([split, *examples.names]).encode("utf-8", "surrogatepass"))
        digest.update(examples.targets.tobytes())
    return digest.hexdigest()


def _build(
    spec: str,
    run: Run,
    scanned: Scan,
    source: Source,
    *,
    out: Path,
    overrides: dict[str, Any],
    asked_for: set[str],
    fresh: bool,
    notes: Sequence[str] = (),
) -> TrainingSetup:
    cleaned = clean(source, scanned)
    if not len(cleaned.splits.get("train", ())):
        raise DataError(f"{spec} has no training images")
    hosts = int(os.environ.get("GROUP_WORLD_SIZE", "1"))  # torchrun's
    train, reading = cleaned.splits["train"].mixing(window=run.data.shuffle_shards, batch_size=run.optim.batch_size, hosts=hosts)
    cleaned = dataclasses.replace(cleaned, splits={**cleaned.splits, "train": train})
    task = create_task(cleaned.task, cleaned.classes)
    if len(train) < run.optim.batch_size:
        reading = [*reading, _too_few(len(train), run.optim.batch_size)]
    torch.manual_seed(run.seed)
    model, size, of_weights = _build_model(run, task, size_asked_for="size" in asked_for, with_weights=fresh)
    preprocess = _preprocess(run, size, scanned, asked_for=asked_for)
    _try_forward(model, run.model, preprocess)
    data = dataclasses.replace(run.data, size=preprocess.size, mean=preprocess.mean, std=preprocess.std, crop_pct=preprocess.crop_pct)
    data = dataclasses.replace(data, value_range=preprocess.value_range)
    run = dataclasses.replace(run, data=data)
    counts = {name: len(split) for name, split in cleaned.splits.items()}
    provenance = {
        "spec": spec,
        "fingerprint": scanned.fingerprint,
        "origin": dict(source.origin),
        "counts": counts,
        "bad": len(scanned.bad),
        "notes": list(scanned.notes),
    }
    sizes = {name: scanned.splits[name].sizes for name in cleaned.splits}
    return TrainingSetup(
        spec, out, run, overrides, task, cleaned.splits, sizes, preprocess, model, provenance,
        notes=[*scanned.notes, *reading, *notes, *of_weights], split_rows=split_rows(source, scanned), bad_rows=list(scanned.bad),
        coco_ids=source.ids,
    )  # fmt: skip


def _too_few(images: int, batch: int) -> str:
    return (
        f"{images} training image{'s are' if images > 1 else ' is'} less than a batch of {batch}: an epoch is one step of all of them; "
        f"--batch-size {max(1, images // 4)} makes it {images // max(1, images // 4)}"
    )


def _build_model(run: Run, task: Task, *, size_asked_for: bool, with_weights: bool) -> tuple[nn.Module, tuple[int, int], list[str]]:
    """The model, its input size and what the user should know about its weights."""
    cfg = catalog.published_input(run.model)  # the input a timm model insists on
    size = run.data.size or (224, 224)
    model_args = config.model_arguments(run.net)
    if cfg is not None and not size_asked_for and cfg.fixed_size:
        size = cfg.size
    elif cfg is not None and cfg.fixed_size:
        model_args.setdefault("img_size", size)
    model = task.build(
        run.model,
        in_chans=run.data.in_chans,
        dense=run.dense,
        pretrained=run.net.pretrained == "yes" and with_weights,
        drop_path=run.net.drop_path,
        dropout=run.net.dropout,
        model_args=model_args,
    )
    notes = list(getattr(model, "load_notes", ()))
    if run.net.weights is not None and with_weights:
        notes += task.start_from(model, run.net.weights)
    if run.net.grad_checkpointing:
        switch: Any = getattr(model, "set_grad_checkpointing", None)
        if switch is None:
            raise ModelError(f"{run.model} has no gradient checkpointing; leave --grad-checkpointing out")
        switch(True)
    return model, size, notes


def _as_weights_expect(run: Run, kind: type[Task], *, asked_for: set[str], made_for_weights: bool) -> tuple[Run, list[str]]:
    """The settings of the images as the starting weights want them, where the user says nothing else; and the line that says so.

    made_for_weights: the recipe itself starts from weights, so that its size and geometry are meant; it says nothing of mean and std.
    """
    if run.net.pretrained != "yes" and run.net.weights is None:
        return run, []
    expected = expected_input(run.model, run.net.weights).for_channels(run.data.in_chans)
    theirs: dict[str, Any] = {} if asked_for & {"mean", "std"} else {"mean": expected.mean, "std": expected.std}
    if kind.whole_input:
        geometry = {name: getattr(expected, name) for name in ("size", "crop_pct", "interpolation", "fit")}
        own = asked_for if not made_for_weights else {*geometry, *asked_for}
        theirs |= {name: value for name, value in geometry.items() if value is not None and name not in own}
    words = {"mean": "mean", "std": "std", "size": "size", "crop_pct": "crop", "interpolation": "interpolation", "fit": "fit"}
    said = ", ".join(f"{words[name]} {_said(value)}" for name, value in theirs.items())
    notes = [f"images are prepared as the weights expect: {said} ({expected.origin})"] if theirs else []
    return dataclasses.replace(run, data=dataclasses.replace(run.data, **theirs)), notes


def _said(value: object) -> str:
    if isinstance(value, tuple) and all(isinstance(v, int) for v in value):
        return "x".join(map(str, value))
    return ", ".join(f"{v:.3g}" for v in value) if isinstance(value, tuple) else f"{value}"


def _preprocess(run: Run, size: tuple[int, int], scanned: Scan, *, asked_for: set[str]) -> Preprocess:
    """Mean and std: as set by the user, the weights or the recipe, else the data's own."""
    data = run.data
    mean, std = data.mean, data.std
    if mean is not None and len(mean) != data.in_chans and "mean" not in asked_for:
        mean = std = None  # a recipe's three numbers for images of another kind
    mean, std = mean or scanned.mean, std or scanned.std
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != data.in_chans:
            raise ConfigError(f"data.{key}: {len(values)} numbers for {data.in_chans} channels")
    if min(std) <= 0:
        raise ConfigError(f"data.std: {std} has a channel without variation; give --std yourself or check the images")
    crop_pct = data.crop_pct or (1.0 if min(size) <= 64 else 0.9)
    return Preprocess(
        size=size, fit=data.fit, interpolation=data.interpolation, crop_pct=crop_pct, mean=mean, std=std,
        in_chans=data.in_chans, max_pixels=data.max_pixels, value_range=scanned.value_range,
    )  # fmt: skip


def _try_forward(model: nn.Module, name: str, preprocess: Preprocess) -> None:
    """One forward pass of an empty image, so that an impossible input size is said before the training starts."""
    h, w = preprocess.size
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, preprocess.in_chans, h, w))
    except ModelError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        first = first_line(error)
        raise ModelError(f"{name} cannot take images of {h}x{w}: {first}; try another --size") from None
    finally:
        model.train(was_training)
