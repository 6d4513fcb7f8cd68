"""The first stage of a training from weights: the classifier is fitted to the features of the frozen network, to convergence.

    training images, a few fixed views  -- network, once --> features -- linear_head --> the classifier's layers
    validation split -> the score of this stage: row 0 of the history, and what fine-tuning has to beat

Ownership: this file writes the classifier's weights into the training's model and sets its position, once, before the first optimiser
step; state and model directory are then saved by the loop as after any epoch, so a resumed training does not come here again. Killed on
the way, it begins here again, and ends with the same bits.

How long fine-tuning may be is decided here too, when the speed of the network is known: see `_epochs_that_fit`.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from convmix.artifacts.artifact import save_weights
from convmix.data.examples import Examples
from convmix.data.loaders import eval_batches
from convmix.errors import TrainingError
from convmix.models.features import Features, classifier_layers, extract, joined, watched
from convmix.training.distributed import from_all, from_main
from convmix.training.linear_head import LinearHead, fit_linear_head
from convmix.training.loop import First, Training, outputs_of, scores_of
from convmix.training.schedule import full_plan
from convmix.training.state import step_seed

MOST_IMAGES = 20_000  # that the classifier is fitted to; more make it no better and its fit slow
FOUR_VIEWS_UP_TO, TWO_VIEWS_UP_TO = 100, 5_000  # images
FIRST_MODEL_S = 50.0  # after which fine-tuning ends that nobody gave a length: a minute with the imports before and the pictures behind
MINUTES_S, TIMES_HEAD = 100.0, 2.0  # where this stage alone ended after so long, all may take so many times as long
STEP_COST = 7.0  # of an image in a training step, in forward passes: EfficientNet-Lite0 in bf16 on two cores of a Xeon; 3 by the arithmetic
END_COST = 4.0  # of an image in what follows the training, measured likewise


def can_begin_with_head(t: Training) -> str:
    """Why this training cannot begin with its classifier; "" where it can."""
    if t.unsharded is not None:
        return "its weights are in parts"
    if not classifier_layers(t.raw_model):
        return f"{t.job.run.model} does not end in a linear classifier"
    return ""


def begin_with_head(t: Training) -> First:
    """Fit the classifier, score it on the validation split, set the plan of what follows; what it saw on the way.

    Every process has to ask; raises TrainingError where features are not finite.
    """
    run, p = t.job.run, t.position
    began = time.monotonic()
    features = _features(t)
    extracted_s = time.monotonic() - began
    heads = from_main(lambda: _fitted(t, features), takes_long=True)
    _install(t, heads)
    images = len(features) * next(iter(features.layers.values())).shape[1]
    p.images_seen, p.train_s = images, time.monotonic() - began
    train_loss, train_accuracy = _on_training_images(t, features, heads)
    outputs = None
    with watched(t.eval_model) as doors:
        if "val" in t.job.splits:
            outputs = outputs_of(t, "val")
    of_val = doors.main() if outputs is not None and t.accelerator.num_processes == 1 else None
    metrics = scores_of(t, outputs, "val") if outputs is not None else {}
    score = t.job.task.score_name
    row: dict[str, Any] = {
        "epoch": 0, "step": 0, "lr": 0.0, "train_loss": train_loss, f"train_{score}": train_accuracy, "val_loss": metrics.get("loss"),
        f"val_{score}": metrics.get(score), "images_per_s": images / max(1e-9, p.train_s), "data_wait_share": 0.0,
        "elapsed_s": time.monotonic() - t.started, "images_seen": images, "train_s": p.train_s, "data_wait_s": 0.0,
    }  # fmt: skip
    p.history.append(row)
    p.best_score, p.kept_epoch, p.kept_metrics = metrics.get(score), 0, metrics
    if t.accelerator.is_main_process:
        save_weights(t.job.out, t.eval_model)
    _say(t, heads, features, metrics)
    t.log.epoch(row, p.history, epochs=p.plan.epochs, kept=True)
    if run.net.freeze == "backbone":
        p.stopped = "head"
    elif not metrics and run.schedule.keep == "best":
        p.stopped = "head"
        t.log.say("no fine-tuning: there are no validation images that could say whether it is better; --keep last trains all the same")
    else:
        _plan(t, extracted_s / max(1, images))
    return First(features, outputs, of_val)


def _features(t: Training) -> Features:
    """Of the training images, by all processes together."""
    job, acc = t.job, t.accelerator
    train = plain_part(job.splits["train"], seed=job.run.seed)
    batches = eval_batches(
        train, job.task.preprocessing(job.preprocess), batch_size=32, rank=acc.process_index, world=acc.num_processes,
        workers=job.run.data.workers, device=acc.device,
    )  # fmt: skip
    mine = extract(t.raw_model, batches, device=acc.device, precision=t.precision, views=views_for(len(job.splits["train"])))
    features = joined(from_all(mine))
    t.position.bad |= {train.name(index): reason for index, reason in features.bad}
    if not len(features):
        raise TrainingError(f"none of the {len(train)} training images can be read any more")
    for name, x in features.layers.items():
        if not x.isfinite().all():
            raise TrainingError(f"the features of {job.run.model} that {name} gets are not finite; try --precision fp32, or other weights")
    return features


def plain_part(train: Examples, *, seed: int) -> Examples:
    """The training images, or as many of them as a classifier is fitted to."""
    n = len(train)
    if n <= MOST_IMAGES:
        return train
    return train.select(np.sort(np.random.default_rng(step_seed(seed, 0, 0)).permutation(n)[:MOST_IMAGES]))


def views_for(images: int) -> int:
    """In how many fixed views each of them is seen."""
    return 4 if images <= FOUR_VIEWS_UP_TO else 2 if images <= TWO_VIEWS_UP_TO else 1


def _fitted(t: Training, features: Features) -> dict[str, LinearHead]:
    run = t.job.run
    return fitted_heads(features, len(t.job.task.labels), balanced=run.data.balanced or run.optim.class_weights == "balanced")


def fitted_heads(features: Features, num_classes: int, *, balanced: bool) -> dict[str, LinearHead]:
    """One for every layer of the classifier."""
    classes = features.labels.numpy()
    return {name: fit_linear_head(x.numpy(), classes, num_classes=num_classes, balanced=balanced) for name, x in features.layers.items()}


def _install(t: Training, heads: dict[str, LinearHead]) -> None:
    """Into the model and its moving average, in place: the optimiser holds these tensors."""
    for model in (t.raw_model, *([t.ema.module] if t.ema is not None else [])):
        install_heads(model, heads)


def install_heads(model: nn.Module, heads: dict[str, LinearHead]) -> None:
    """The layers of the classifier, by name, get these weights in place."""
    layers = classifier_layers(model)
    with torch.no_grad():
        for name, head in heads.items():
            layer, weight, bias = layers[name], torch.from_numpy(head.weight), torch.from_numpy(head.bias)
            layer.weight.copy_(weight.view_as(layer.weight))
            if layer.bias is not None:
                layer.bias.copy_(bias)


def _on_training_images(t: Training, features: Features, heads: dict[str, LinearHead]) -> tuple[float, float]:
    """Loss and accuracy of the plain views; of several layers their logits are averaged, as such networks do."""
    logits = torch.stack(
        [x[:, 0] @ torch.from_numpy(heads[n].weight).T + torch.from_numpy(heads[n].bias) for n, x in features.layers.items()]
    )
    mean = logits.mean(0)  # n,k
    return float(torch.nn.functional.cross_entropy(mean, features.labels)), float((mean.argmax(1) == features.labels).double().mean())


def _say(t: Training, heads: dict[str, LinearHead], features: Features, metrics: dict[str, Any]) -> None:
    head = next(iter(heads.values()))
    views = next(iter(features.layers.values())).shape[1]
    chosen = f"C {head.strength:.2g}"
    if head.held_out_accuracy is not None:
        chosen += f" by {head.folds} folds ({head.held_out_accuracy:.1%} held out)"
    seen = f"{len(features)} images" + (f" in {views} views" if views > 1 else "")
    of_val = f"; validation {t.job.task.sentence(metrics)}" if metrics else ""
    t.log.say(f"classifier first, on frozen features of {seen}: {chosen}{of_val}; {t.position.train_s:.0f} s")


def _plan(t: Training, forward_s: float) -> None:
    """How many epochs of fine-tuning follow; none where not even one would end in time."""
    run, p = t.job.run, t.position
    asked = {key.replace("-", "_").split(".")[-1] for key in t.job.overrides}
    p.plan = full_plan(run.schedule, p.plan.steps_per_epoch)
    if asked & {"epochs", "budget"}:
        return
    train, val, test = (len(t.job.splits.get(split, ())) for split in ("train", "val", "test"))
    epoch_s = forward_s * (STEP_COST * train + val)
    end_s = END_COST * forward_s * (train + 2 * val + test)  # neighbours, calibration, test
    fitting = from_main(lambda: _epochs_that_fit(time.monotonic() - t.started, epoch_s, end_s))
    if fitting >= p.plan.epochs:
        return
    if fitting == 0:
        p.stopped = "head"
        t.log.say(f"no fine-tuning: an epoch of it would take about {epoch_s:.0f} s on this machine; --epochs {p.plan.epochs} asks for it")
        return
    t.log.say(f"fine-tuning for {fitting} of {p.plan.epochs} epochs, about {epoch_s:.0f} s each on this machine; --epochs asks for more")
    p.plan = full_plan(run.schedule, p.plan.steps_per_epoch).ending_at(fitting * p.plan.steps_per_epoch, now=0)


def _epochs_that_fit(elapsed_s: float, epoch_s: float, end_s: float) -> int:
    """Whole epochs between now and the end of the time that the first model may take, what follows them taken off."""
    whole_s = FIRST_MODEL_S if elapsed_s <= MINUTES_S else TIMES_HEAD * elapsed_s
    return int(max(0.0, whole_s - elapsed_s - end_s) / max(1e-9, epoch_s))
