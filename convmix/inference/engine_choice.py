"""The measured choice for a run: which engine answers for it, and when a trial of engines pays for itself.

run -> its own validation images -> speed.select.optimize -> Optimized        `predict` and `evaluate` ask `accelerate` for their model

A trial takes minutes, so a job that is not told otherwise measures only where it is long enough to win them back, and uses what an earlier
trial has found wherever that starts soon enough.
"""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.runtime.network import ExportedNetwork
from convmix.errors import ConfigError, DataError, RunError, did_you_mean
from convmix.hardware import autocast, keep_freed_memory, resolve_precision
from convmix.inference.batches import in_order
from convmix.inference.task_judge import TaskJudge, validation_images
from convmix.speed import store
from convmix.speed.backends import Finish, as_tuple
from convmix.speed.select import BUDGET_S, PRECISIONS, Optimized, Precision, optimize, restore
from convmix.tasks import create_task
from convmix.tasks.base import Task

OPTIMIZE = ("auto", "always", "never")
BATCH = 32  # images that an engine is built for; a job's own batches may be larger
CHECKED, CALIBRATING = 200, 300  # at most so many validation images to compare outputs on, and for the value ranges of int8
FEWEST = 10  # for int8
CHECKED_BYTES = 512 * 2**20  # of outputs that are compared: a detector's are megabytes for an image
TRIAL_SHARE = 0.1  # of a job's estimated time may go into a trial
SHORTEST_TRIAL_S = 60.0  # a shorter one does not get to the engines that compile
_ALLOWED: dict[str, Precision] = {"fp32": "exact", "bf16": "bf16", "int8": "int8"}


@dataclass(frozen=True)
class Accelerated:
    """What a job runs its images through: run_model(model, ..., precision=precision)."""

    model: nn.Module
    precision: str
    note: str | None = None  # which engine answers, where it is not the plain model


def optimize_run(
    artifact: Artifact, *, batch_size: int = BATCH, precision: str = "auto", budget_s: float = BUDGET_S, again: bool = False
) -> Optimized:
    """The fastest way to run a run's model on this machine's CPU, for images of the run's own size.

    Outputs are compared on the run's validation images; int8 takes its value ranges from others of them. Where they cannot be had exact and
    bf16 are compared on noise, and int8 raises DataError. precision: as in `speed.select.optimize`; auto is bf16 where this machine
    computes in it, else exact. ConfigError for another.
    """
    if precision == "auto":
        precision = _ALLOWED[resolve_precision("auto", torch.device("cpu"))]
    if precision not in PRECISIONS:
        choices = ("auto", *PRECISIONS)
        raise ConfigError(f"precision: {precision} is not one of {', '.join(choices)}{did_you_mean(precision, choices)}")
    if artifact.engine:
        raise ConfigError(f"{artifact.path} is exported for {artifact.engine}, which runs it; optimize its run")
    part = _Part.of(artifact)
    sizes = (batch_size, *artifact.preprocess.size)
    if not again and (kept := restore(part.model, store.key(part.model, sizes=sizes, precision=precision), part.finish)):
        return kept
    images, targets, calibration = _validation_images(artifact, precision, part)
    found = optimize(
        part.model,
        sizes=sizes,
        precision=precision,  # type: ignore[arg-type]  # checked above
        images=images,
        judge=None if images is None else TaskJudge(part.task, targets, artifact.preprocess.size, part.finish),
        calibration=calibration,
        limits=part.task.engine_limits,
        budget_s=budget_s,
        again=True,
    )
    return Optimized(found.runner, found.report, part.finish)


class _Part(NamedTuple):
    """Of a run's network what engines compute, on the CPU, and what makes the network's own outputs of that."""

    task: Task
    model: nn.Module
    finish: Finish | None

    @classmethod
    def of(cls, artifact: Artifact) -> "_Part":
        task = create_task(artifact.task, artifact.labels, artifact.calibration)
        network = artifact.model.cpu().eval()
        return cls(task, task.engine_part(network), task.engine_finish(network))


def check_exported(artifact: Artifact, *, precision: str, optimize: str) -> None:
    """ConfigError where an exported model is asked to be another than it was exported as."""
    if not isinstance(artifact.model, ExportedNetwork):
        return
    own = artifact.model.description.precision
    if precision not in ("auto", own):
        raise ConfigError(f"precision: {artifact.path} was exported in {own}; leave precision out, or export the run in {precision}")
    if optimize == "always":
        raise ConfigError(
            f"optimize: {artifact.path} is exported for {artifact.engine}, which runs it; leave optimize out, or give the run"
        )


def accelerate(artifact: Artifact, num_images: int, *, batch_size: int, device: torch.device, precision: str, optimize: str) -> Accelerated:
    """The run's model for a job of so many images.

    precision: as `inference.resolve` gives it. optimize: never takes the plain model; always the fastest, measured now where it is not
    known; auto whatever ends first by estimate. Raises ConfigError for a combination that does not exist.
    """
    if optimize not in OPTIMIZE:
        raise ConfigError(f"optimize: {optimize} is not one of {', '.join(OPTIMIZE)}{did_you_mean(optimize, OPTIMIZE)}")
    if isinstance(artifact.model, ExportedNetwork):
        return Accelerated(artifact.model, "fp32", f"computed by {artifact.engine} in {artifact.model.description.precision}, as exported")
    possible = device.type == "cpu" and precision in _ALLOWED
    if optimize == "always" and not possible:
        raise ConfigError(
            f"optimize: always needs the device cpu and a precision of {', '.join(_ALLOWED)}, not {device.type} and {precision}"
        )
    if precision == "int8" and (optimize == "never" or not possible):
        raise ConfigError("precision: int8 exists on the CPU alone, through optimize auto or always; take bf16 or fp32")
    if optimize != "never" and possible:
        faster = _faster(artifact, num_images, min(batch_size, BATCH), precision, must=optimize == "always" or precision == "int8")
        if faster:
            keep_freed_memory()  # every batch needs the same amounts again
            plan, speedup = faster.plan, faster.report.speedup
            rest = "bf16" if faster.finish is not None and precision == "bf16" else "fp32"  # in what lies behind the engine
            return Accelerated(faster, rest, f"computed by {plan}, measured to be {speedup:.1f} times as fast as plain float32 here")
    return Accelerated(artifact.model.to(device), precision)


def _faster(artifact: Artifact, num_images: int, batch_size: int, precision: str, *, must: bool) -> Optimized | None:
    """The kept choice, or one measured now, where it saves time or `must` be; else None."""
    part, allowed = _Part.of(artifact), _ALLOWED[precision]
    name = store.key(part.model, sizes=(batch_size, *artifact.preprocess.size), precision=allowed)
    report = store.load(name)
    if report and not must and report.saved_s(num_images) < report.restart_s:
        return None
    if report and (kept := restore(part.model, name, part.finish)):
        return kept
    if must:
        return optimize_run(artifact, batch_size=batch_size, precision=allowed)
    plain_s = _plain_s(artifact, num_images, batch_size, precision)
    if plain_s * TRIAL_SHARE < SHORTEST_TRIAL_S:
        return None
    return optimize_run(artifact, batch_size=batch_size, precision=allowed, budget_s=min(BUDGET_S, plain_s * TRIAL_SHARE))


def _plain_s(artifact: Artifact, num_images: int, batch_size: int, precision: str) -> float:
    """How long the plain model would take for all images, from one image, then from one batch where that looks long."""
    model = artifact.model.eval()
    for n in (1, batch_size):
        images = torch.zeros(n, *artifact.preprocess.shape)
        started = time.perf_counter()
        with torch.inference_mode(), autocast(precision, images.device):
            model(images)
        total_s = (time.perf_counter() - started) * num_images / n
        if total_s * TRIAL_SHARE < SHORTEST_TRIAL_S:
            break
    return total_s


def _validation_images(artifact: Artifact, precision: str, part: _Part) -> tuple[Tensor | None, Any, Tensor | None]:
    """To compare on: images and their targets; and others for calibration, for int8 alone."""
    quantised = precision == "int8"
    try:
        images, targets = validation_images(artifact, at_most=CHECKED + (CALIBRATING if quantised else 0))
    except (DataError, RunError) as error:
        if quantised:
            raise DataError(f"int8 is calibrated on the run's validation images: {error}") from error
        return None, None, None
    if quantised and len(images) < FEWEST:
        raise DataError(f"int8 needs at least {FEWEST} validation images, {artifact.path} has {len(images)}; take bf16 or exact")
    # as CHECKED is to CALIBRATING, of every class
    to_check = torch.arange(len(images)) % 5 < 2 if quantised else torch.ones(len(images), dtype=torch.bool)
    calibration = images[~to_check] if quantised else None
    checked = to_check.nonzero()[:, 0]
    checked = checked[torch.arange(most := min(len(checked), _fitting(part, images[:1]))) * len(checked) // max(most, 1)]
    return images[checked], in_order(targets, checked), calibration


def _fitting(part: _Part, image: Tensor) -> int:
    """How many images' outputs may be held at a time."""
    with torch.inference_mode():
        outputs = as_tuple(part.model(image))
    return max(FEWEST, CHECKED_BYTES // sum(output.nelement() * output.element_size() for output in outputs))
