"""A teacher made of a published model: its network as it came, and a classifier fitted to the features of the training images.

    name and weights -> network, frozen -> features of the training images, once -> logistic regression -> a model directory, state/teacher

It is a function of the weights and the training images, made once, before the first step, and read again where a training is resumed.
"""

from pathlib import Path

from torch import nn

from convmix.artifacts.artifact import save_artifact
from convmix.data.loaders import eval_batches
from convmix.errors import ConfigError, RunError
from convmix.inference.embedding import published_network
from convmix.models.features import classifier_layers, extract
from convmix.tasks.classify import Classify
from convmix.training.distributed import from_main
from convmix.training.head_first import fitted_heads, install_heads, plain_part, views_for
from convmix.training.loop import Training
from convmix.training.setup import STATE
from convmix.training.teacher import Teacher, is_named, open_teacher, refuse_impossible
from convmix.training.unlabelled import open_unlabelled

PLACE = "teacher"  # in the folder of the training's state


def open_teaching(t: Training, *, resume: bool) -> None:
    """The teacher where it is a run, and the images that it alone says something of; all mistakes, also of a teacher that is named.

    RunError where a resumed training finds other images without labels than it began with.
    """
    job, optim = t.job, t.job.run.optim
    refuse_impossible(optim, job.task, in_chans=job.preprocess.in_chans)
    if not is_named(optim):
        t.teacher = open_teacher(optim, job.preprocess, job.task, device=t.accelerator.device, precision=t.precision)
    t.unlabelled = open_unlabelled(job.run, job.split_rows)
    found = None if t.unlabelled is None else t.unlabelled.digest
    if resume and found != job.unlabelled:
        raise RunError(f"{optim.unlabelled} has changed since {job.out} was started; bring the old images back, or start again")
    job.unlabelled = found


def named_teacher(t: Training) -> Teacher | None:
    """Made by the main process where it is not there yet."""
    job = t.job
    place = job.out / STATE.parent / PLACE
    from_main(lambda: _make(t, place), takes_long=True)
    return open_teacher(job.run.optim, job.preprocess, job.task, device=t.accelerator.device, precision=t.precision, place=place)


def _make(t: Training, place: Path) -> None:
    """Write the model directory `place`, unless it is there. ConfigError for a model that does not end in a linear classifier."""
    if (place / "convmix.json").is_file():  # written last
        return
    job, optim, device = t.job, t.job.run.optim, t.accelerator.device
    train, labels = job.splits["train"], job.task.labels
    assert optim.teacher is not None
    network, preprocess = published_network(optim.teacher, optim.teacher_weights)
    model: nn.Module = network.to(device)
    reset = getattr(model, "reset_classifier", None)
    if reset is None or not classifier_layers(model):
        raise ConfigError(f"optim.teacher: {optim.teacher} does not end in a linear classifier, so none can be fitted; name another model")
    reset(len(labels))
    some = plain_part(train, seed=job.run.seed)
    batches = eval_batches(some, preprocess, batch_size=32, workers=job.run.data.workers, device=device)
    features = extract(model.to(device), batches, device=device, precision=t.precision, views=views_for(len(train)))
    heads = fitted_heads(features, len(labels), balanced=optim.class_weights == "balanced")
    install_heads(model, heads)
    head = next(iter(heads.values()))
    held_out = "" if head.held_out_accuracy is None else f", {head.held_out_accuracy:.1%} of them right where they were held out"
    t.log.say(f"teacher: {optim.teacher} with a classifier on frozen features of {len(features)} training images{held_out}")
    info = {"finished": True, "model": optim.teacher}
    save_artifact(place, model=model.cpu().eval(), task=Classify(labels), preprocess=preprocess, info=info)
