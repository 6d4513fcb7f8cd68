"""A training gone on with: named by its directory alone, and with more epochs than it was begun with.

convmix train runs/photos --resume                the data set and every setting come from the directory
convmix train runs/photos --resume --epochs 60    the schedule becomes that of 60 epochs, from the step that was reached on
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from convmix.atomic import write_json
from convmix.config import override
from convmix.data.order import steps_per_epoch
from convmix.errors import ConfigError, RunError
from convmix.training.loop import Training
from convmix.training.schedule import StepPlan, full_plan, learning_rate, total_epochs
from convmix.training.setup import JOB, TrainingSetup, job_file, saved_spec


def named_alone(spec: str, out: Path | None, *, resume: bool) -> tuple[str, Path | None]:
    """The data set and the model directory that are meant, where `spec` may be the directory itself.

    Raises RunError for a training that is given as a data set.
    """
    place = Path(spec)
    if not (place / JOB).is_file():
        return spec, out
    if not resume:
        raise RunError(f"{spec} is a training and no data set; add --resume to go on with it, and --epochs for more epochs than it had")
    if out is not None and out.resolve() != place.resolve():
        raise RunError(f"{spec} is a training, {out} another place; leave --out out to go on with {spec}")
    return saved_spec(place), place


def with_more_epochs(job: TrainingSetup, overrides: Mapping[str, object]) -> dict[str, object]:
    """Take a larger number of epochs over into `job`; returns the other settings. ConfigError where it cannot be extended."""
    rest = dict(overrides)
    for key in [key for key in rest if key.replace("-", "_").split(".")[-1] == "epochs"]:
        before, asked = job.run.schedule.epochs, override(job.run, {key: rest[key]}).schedule.epochs
        if asked == before:
            continue
        if job.run.schedule.budget:
            raise ConfigError(
                f"{key}: {job.out} was trained for a budget of {job.run.schedule.budget}, which is spent; "
                f"a new run can start from its weights: --weights {job.out}"
            )
        if asked < before:
            raise ConfigError(f"{key}: {job.out} was begun with {before} epochs; more extend it, {asked} is less")
        job.run = replace(job.run, schedule=replace(job.run.schedule, epochs=asked))
        job.overrides[key.split(".")[-1]] = asked
        del rest[key]
    return rest


def plan_of(job: TrainingSetup) -> StepPlan:
    """The plan that no clock cuts short."""
    run = job.run
    return full_plan(run.schedule, steps_per_epoch(len(job.splits["train"]), run.optim.batch_size, drop_last=run.data.drop_last))


def extend(t: Training) -> None:
    """Where the job has come to have more epochs than the saved state was planned for, plan anew and say so."""
    run, p, plan = t.job.run, t.position, plan_of(t.job)
    if run.schedule.budget or p.plan.total_steps >= plan.total_steps:
        return
    before, ended = p.plan.epochs, f", which {p.stopped} had ended" if p.stopped else ""
    p.plan, p.stopped, p.stale_epochs = plan, "", 0
    if t.accelerator.is_main_process:
        write_json(t.job.out / JOB, job_file(t.job))
    first, last = (learning_rate(run.schedule, run.optim.lr, plan, step) for step in (p.step, plan.total_steps - 1))
    t.log.say(
        f"extended from {before} to {total_epochs(run.schedule)} epochs{ended}: from step {p.step} of {plan.total_steps} on, the learning "
        f"rate is that of the longer {run.schedule.schedule} schedule, {first:.2g} now and {last:.2g} at its end"
    )
