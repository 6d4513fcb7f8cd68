"""The training loop, in four parts: `fit` (epochs), `train_step` (one batch), `Task.loss` (what differs), state and log.

Everything random is a function of (seed, epoch, example) or (seed, step), so a resumed training repeats the uninterrupted one bit by bit.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convmix.artifacts.artifact import save_weights
from convmix.data.device_cache import DeviceCache, resident_batches
from convmix.data.image_cache import ImageCache
from convmix.data.loaders import Batch, eval_batches, train_batches
from convmix.errors import TrainingError
from convmix.inference.batches import Outputs, run_model
from convmix.metrics.classification import headline
from convmix.models.features import Features, extract
from convmix.training.autotune import Compiled, Tuning, learning
from convmix.training.budget import Budget
from convmix.training.distributed import equal_parts, from_all, from_main, gather_outputs, share_buffers
from convmix.training.log import TrainingLog
from convmix.training.schedule import full_plan, learning_rate
from convmix.training.setup import JOB, STATE, TrainingSetup
from convmix.training.sharding import whole
from convmix.training.signals import Interrupted, StopRequests
from convmix.training.state import SavedState, TrainState, gather_state, seed_step, write_state
from convmix.training.teacher import Teacher
from convmix.training.unlabelled import Unlabelled, shown_with

AGREE_EVERY = 5  # steps between two talks of several processes about signals and saves
STARVED = 0.1  # share of an epoch's training time spent waiting for images above which the user is told,
NOTICEABLE_S = 3.0  # once it has cost this much: the workers of a short epoch take a moment to start
CHECK_EVERY = 20  # steps between two looks at the losses on an accelerator, where every look waits for it


@dataclass(frozen=True)
class First:
    """What the stage before the first step knows of images, with the classifier fitted and the rest as it came."""

    train: Features
    val_outputs: Outputs | None
    val_features: Tensor | None  # n,d; None also where several processes have a part each


@dataclass
class Training:
    """A job with its moving parts."""

    job: TrainingSetup
    accelerator: Any
    model: nn.Module  # as prepared by accelerate
    optimizer: Any
    ema: Any  # timm's ModelEmaV3, or None
    position: TrainState
    log: TrainingLog
    budget: Budget | None
    started: float  # time.monotonic() at which elapsed time was zero
    tuning: Tuning
    unsharded: nn.Module | None = None  # with FSDP, what is validated and kept: a copy of the model that `gather_judged` fills
    teacher: Teacher | None = None  # whose answers are learned too
    unlabelled: Unlabelled | None = None  # images without labels, for the teacher alone
    compiled: Compiled | None = None  # the forward pass of training steps, where that is faster
    memories: Mapping[str, ImageCache] = field(default_factory=dict)  # split -> its decoded images, where they are kept
    resident: DeviceCache | None = None  # the training images, where they are kept and changed on the device
    unsaved: bool = False  # whether it is a new one, whose first state is still to be written
    first: First | None = None  # what the first stage found, where this sitting had one
    saved_at: float = field(default_factory=time.monotonic)
    mark: float = 0.0  # when the last step ended
    pending: list[tuple[int, Tensor, Tensor, int]] = field(default_factory=list)  # step, loss, correct, images

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return self.tuning.tuned.precision

    @property
    def raw_model(self) -> nn.Module:
        """The model without accelerate's wrappers."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def eval_model(self) -> nn.Module:
        """What is validated and kept: the moving average where there is one; with FSDP as it was when it was last gathered."""
        if self.unsharded is not None:
            return self.unsharded
        return self.ema.module if self.ema is not None else self.raw_model


def fit(t: Training) -> None:
    """Train until the plan ends or early stopping ends it; a signal makes it save and raise Interrupted."""
    p = t.position
    learn(t)
    with t.log, StopRequests() as requests:
        while p.step < p.plan.total_steps and not p.stopped:
            signal = train_epoch(t, requests)
            if p.step % p.plan.steps_per_epoch and p.step < p.plan.total_steps:
                save(t)
            else:
                end_epoch(t)
            if signal and p.step < p.plan.total_steps:
                raise Interrupted(
                    f"stopped after step {p.step} of {p.plan.total_steps}, state saved in {t.job.out}", number=signal, out=t.job.out
                )
    if p.history and p.history[0]["epoch"] == 0:
        t.log.fine_tuned(p.history, kept_epoch=p.kept_epoch)
    if not p.stopped:
        asked = full_plan(t.job.run.schedule, p.plan.steps_per_epoch).total_steps
        p.stopped = "epochs" if p.step >= asked else "budget"


def learn(t: Training) -> None:
    """Training mode."""
    learning(t.model, t.job.run.net.freeze)


def train_epoch(t: Training, requests: StopRequests) -> int:
    """The rest of the current epoch; returns the signal that ended it early, else 0."""
    p = t.position
    t.mark = time.monotonic()
    for batch in _rest_of_epoch(t):
        train_step(t, batch)
        _after_step(t)
        signal = _agreed_signal(t, requests.received)
        if signal or p.step >= p.plan.total_steps:
            return signal
    return 0


def train_step(t: Training, batch: Batch) -> None:
    """One optimiser step on one batch."""
    run, p = t.job.run, t.position
    for group in t.optimizer.param_groups:
        group["lr"] = learning_rate(run.schedule, run.optim.lr, p.plan, p.step) * group.get("lr_scale", 1.0)  # timm's layer decay
    seed = seed_step(run.seed, p.step, t.accelerator.process_index)
    device = t.accelerator.device
    images, targets = batch.images.to(device, non_blocking=True), batch.targets.to(device, non_blocking=True)
    if len(images) >= (run.optim.accumulate if t.accelerator.num_processes > 1 else 1):
        images, targets = t.job.task.augment_batch(images, targets, seed=seed)
        losses, corrects = [], []
        more = None if batch.unlabelled is None else batch.unlabelled.to(device, non_blocking=True)
        parts = shown_with(equal_parts(images, targets, run.optim.accumulate), more)
        # gradients are averaged over processes, so those with more images of the batch count for more
        weight = len(images) * t.accelerator.num_processes / batch.planned if t.accelerator.num_processes > 1 else 1.0
        for i, (x, y, shown) in enumerate(parts):
            last = i + 1 == len(parts)
            with contextlib.nullcontext() if last else t.accelerator.no_sync(t.model):
                with t.accelerator.autocast():
                    of_all = t.job.task.forward(t.compiled or t.model, shown, y)
                outputs = of_all if shown is x else of_all[: len(x)]
                loss = t.job.task.loss(outputs, y)
                loss = (loss if t.teacher is None else t.teacher.loss(loss, of_all, shown)) * (len(x) / len(images))
                t.accelerator.backward(loss * weight)
            losses.append(loss.detach())
            corrects.append(t.job.task.count_correct(outputs, y))
        if run.optim.clip_grad:
            t.accelerator.clip_grad_norm_(t.model.parameters(), run.optim.clip_grad)
        t.optimizer.step()
        t.optimizer.zero_grad()
        if t.ema is not None:
            t.ema.update(t.raw_model, step=p.step)
        t.pending.append((p.step, torch.stack(losses).sum(), torch.stack(corrects).sum(), len(images)))
    elif t.accelerator.num_processes > 1:
        raise TrainingError(f"too many images of one process's part of step {p.step} became unreadable: {batch.bad[:3]}")
    for index, reason in batch.bad:
        p.bad[t.job.splits["train"].name(index)] = reason
    p.step += 1
    p.images_seen += batch.planned if t.accelerator.num_processes > 1 else len(images)
    if device.type == "cpu" or len(t.pending) >= CHECK_EVERY:
        look_at_losses(t)


def look_at_losses(t: Training) -> None:
    """Move the losses of the last steps into the sums of the epoch; TrainingError where one is not finite."""
    p = t.position
    for step, loss, correct, images in t.pending:
        value = float(loss)
        if value != value or value in (float("inf"), float("-inf")):
            t.pending.clear()
            raise TrainingError(
                f"the loss of step {step} is {value}; the state before it is kept in {t.job.out}. "
                "A smaller --lr, --clip-grad 1 or --precision fp32 usually helps"
            )
        p.epoch_loss += value * images
        p.epoch_correct += int(correct)
        p.epoch_images += images
    t.pending.clear()


def end_epoch(t: Training) -> None:
    """Validate, keep the weights if they are to be kept, write a row of the history, save."""
    look_at_losses(t)
    p, job = t.position, t.job
    elapsed_s = time.monotonic() - t.started
    began = time.monotonic()
    gather_judged(t)
    metrics = validate(t, "val") if "val" in job.splits else {}
    if t.budget and metrics:
        t.budget.evaluation_took(time.monotonic() - began, metrics["n"])
    row = _history_row(t, metrics, elapsed_s)
    p.history.append(row)
    score = metrics.get(job.task.score_name)
    better = score is None or p.best_score is None or score > p.best_score
    p.stale_epochs = 0 if better else p.stale_epochs + 1
    equal = score is not None and score == p.best_score
    if equal and p.kept_epoch == 0:  # the classifier alone, beside which fine-tuning has to be better in something
        equal = metrics["loss"] < p.kept_metrics["loss"]
    keep = better or equal or job.run.schedule.keep == "last"  # of equals the later one: the rate was lower
    if better:
        p.best_score = score
    if keep:
        p.kept_epoch, p.kept_metrics = row["epoch"], metrics
        from_main(lambda: _keep(t))
    if 0 < job.run.schedule.patience <= p.stale_epochs:
        p.stopped = "early stopping"
    p.epoch_loss, p.epoch_correct, p.epoch_images = 0.0, 0, 0
    save(t)
    t.log.epoch(row, p.history, epochs=p.plan.epochs, kept=keep)  # what is printed is safe
    if row["data_wait_share"] > STARVED and p.data_wait_s > NOTICEABLE_S:
        t.log.hint(f"the model waits for images {row['data_wait_share']:.0%} of the time: {_remedy(t)}")


def _keep(t: Training) -> None:
    check_directory(t)
    save_weights(t.job.out, t.eval_model)


def _remedy(t: Training) -> str:
    """What makes batches come faster, as the user would type it."""
    if t.resident is not None:
        return "the device changes them beside training; less augmentation or a larger model leaves no gap"
    faster = "more --workers where cores are idle, or less augmentation"
    if "train" in t.memories:
        return f"give it {faster}"
    return f"keep the decoded images in memory with a larger --cache-gib, or give it {faster}, or smaller image files"


def _history_row(t: Training, metrics: dict[str, Any], elapsed_s: float) -> dict[str, Any]:
    """One epoch in numbers: of all processes, seconds since the start, losses in nats, shares of the time in training steps."""
    p, score_name = t.position, t.job.task.score_name
    loss, correct, images = map(sum, zip(*from_all((p.epoch_loss, p.epoch_correct, p.epoch_images)), strict=True))
    before = {"images_seen": 0, "train_s": 0.0, "data_wait_s": 0.0} | (p.history[-1] if p.history else {})
    train_s = max(1e-9, p.train_s - before["train_s"])
    return {
        "epoch": p.epochs_done + 1,
        "step": p.step,
        "lr": max(group["lr"] for group in t.optimizer.param_groups),
        "train_loss": loss / max(1, images),
        f"train_{score_name}": correct / max(1, images) if t.job.task.counts else None,
        "val_loss": metrics.get("loss"),
        f"val_{score_name}": metrics.get(score_name),
        "images_per_s": (p.images_seen - before["images_seen"]) / train_s,
        "data_wait_share": (p.data_wait_s - before["data_wait_s"]) / train_s,
        "elapsed_s": elapsed_s,
        "images_seen": p.images_seen,
        "train_s": p.train_s,
        "data_wait_s": p.data_wait_s,
    }


def gather_judged(t: Training) -> None:
    """With FSDP, put what is validated and kept together from all processes' parts."""
    if t.unsharded is not None:
        parts = t.ema.module if t.ema is not None else t.raw_model
        t.unsharded.load_state_dict({name: whole(value) for name, value in parts.state_dict().items()})


def validate(t: Training, split: str) -> dict[str, Any]:
    """Scores of the judged model over a whole split, the same on every process."""
    return scores_of(t, outputs_of(t, split), split)


def scores_of(t: Training, outputs: Outputs, split: str) -> dict[str, Any]:
    """The same of what the model said already."""
    return headline(t.job.task.metrics(outputs.values, outputs.targets, intervals=split == "test"))


def outputs_of(t: Training, split: str) -> Outputs:
    """What the judged model says of a whole split, the same on every process."""
    job, acc = t.job, t.accelerator
    examples = job.splits[split]
    batches = eval_batches(
        examples, job.task.preprocessing(job.preprocess), batch_size=max(1, job.run.optim.batch_size // acc.num_processes),
        rank=acc.process_index, world=acc.num_processes, workers=job.run.data.workers,
        memory=t.memories.get(split), device=acc.device,
    )  # fmt: skip
    share_buffers(t.eval_model)
    mine = run_model(t.eval_model, batches, device=acc.device, precision=t.precision, observe=job.task.observe)
    learn(t)
    outputs = gather_outputs(mine)
    t.position.bad |= {examples.name(index): reason for index, reason in outputs.bad}
    return outputs


def features_of(t: Training, split: str) -> Features:
    """What the judged model's classifier gets of every image of a split; alone, without other processes."""
    job = t.job
    batches = eval_batches(
        job.splits[split], job.task.preprocessing(job.preprocess), batch_size=32, workers=job.run.data.workers,
        memory=t.memories.get(split) if split != "train" else None, device=t.accelerator.device,
    )  # fmt: skip
    return extract(t.eval_model, batches, device=t.accelerator.device, precision=t.precision)


def save(t: Training) -> None:
    """The state file, by the main process."""
    look_at_losses(t)
    t.position.elapsed_s = time.monotonic() - t.started
    ema = t.ema.module if t.ema is not None else None
    state = gather_state(t.position, model=t.raw_model, optimizer=t.optimizer, ema=ema, scaler=t.accelerator.scaler)
    from_main(lambda: _write(t, state))  # the others wait
    t.saved_at = time.monotonic()


def _write(t: Training, state: SavedState) -> None:
    check_directory(t)
    write_state(t.job.out / STATE, state)


def check_directory(t: Training) -> None:
    """TrainingError where the directory, or what a resumed training needs of it, was removed: what is written then would be of no use."""
    if t.job.held is not None:
        t.job.held.check()
        if not (t.job.out / JOB).is_file():
            raise TrainingError(f"{t.job.out / JOB} was removed while the training ran; without it {t.job.out} is of no use, start again")


def _rest_of_epoch(t: Training) -> Iterator[Batch]:
    """Batches of the current epoch, from the current step on; counts how long each is waited for."""
    p = t.position
    began = time.monotonic()
    epoch, start = divmod(p.step, p.plan.steps_per_epoch)
    batches = _with_unlabelled(t, _batches(t, epoch, start), range(p.step, p.step - start + p.plan.steps_per_epoch))
    for batch in batches:
        p.data_wait_s += time.monotonic() - began
        yield batch
        began = time.monotonic()


def _with_unlabelled(t: Training, batches: Iterator[Batch], steps: range) -> Iterator[Batch]:
    job, acc = t.job, t.accelerator
    return batches if t.unlabelled is None else t.unlabelled.beside(
        batches, job.task.training_transform(job.preprocess, job.run.augment), t.position.bad, steps=steps, rank=acc.process_index,
        world=acc.num_processes, workers=job.run.data.workers, device=acc.device,
    )  # fmt: skip


def _batches(t: Training, epoch: int, start: int) -> Iterator[Batch]:
    """From the images that the device keeps, or by the loader's workers."""
    job, run, acc = t.job, t.job.run, t.accelerator
    if t.resident is not None:
        return resident_batches(
            t.resident, job.splits["train"], batch_size=run.optim.batch_size, seed=run.seed, epoch=epoch, start_step=start,
            rank=acc.process_index, world=acc.num_processes, balanced=run.data.balanced, drop_last=run.data.drop_last,
            shuffle_shards=run.data.shuffle_shards,
        )  # fmt: skip
    return train_batches(
        job.splits["train"], job.task.training_transform(job.preprocess, run.augment), batch_size=run.optim.batch_size,
        seed=run.seed, epoch=epoch, start_step=start, rank=acc.process_index, world=acc.num_processes,
        workers=run.data.workers, balanced=run.data.balanced, drop_last=run.data.drop_last,
        shuffle_shards=run.data.shuffle_shards, memory=t.memories.get("train"), device=acc.device,
    )  # fmt: skip


def _after_step(t: Training) -> None:
    """Timing, a new plan where a budget asks for one, the progress bar, a save now and then."""
    p, run = t.position, t.job.run
    now = time.monotonic()
    took, t.mark = now - t.mark, now
    p.train_s += took
    if t.budget is not None:
        t.budget.step_done()
        if t.budget.due:
            longest = full_plan(run.schedule, p.plan.steps_per_epoch).total_steps
            budget = t.budget
            p.plan = from_main(lambda: budget.replan(p.plan, p.step, longest))
    t.log.step(
        epoch=p.epochs_done + 1, epochs=p.plan.epochs, step=p.step, total=p.plan.total_steps,
        loss=p.epoch_loss / max(1, p.epoch_images), correct=p.epoch_correct / max(1, p.epoch_images) if t.job.task.counts else None,
        images_per_s=p.images_seen / max(1e-9, p.train_s), left_s=(p.plan.total_steps - p.step) * p.train_s / p.step,
    )  # fmt: skip
    inside = p.step % p.plan.steps_per_epoch and p.step < p.plan.total_steps
    if inside and _time_to_agree(t) and from_main(lambda: now - t.saved_at > run.save_every):
        save(t)
        t.mark = time.monotonic()


def _time_to_agree(t: Training) -> bool:
    """Processes talk about saving and stopping at the same steps only, and not at every one."""
    return t.accelerator.num_processes == 1 or t.position.step % AGREE_EVERY == 0


def _agreed_signal(t: Training, received: int) -> int:
    """The signal that any process received, on all of them, so that they stop after the same step."""
    return max(from_all(received)) if _time_to_agree(t) else 0
