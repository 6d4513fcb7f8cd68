"""A trained run that teaches another: its answers to the very images of a training step are targets beside the true labels.

    images as the student gets them -> as the teacher was trained on them -> its logits, in the student's order of labels
    loss = (1 - share) * the task's own + share * T^2 * KL(teacher at T, student at T)

Hinton et al. 2015, arXiv 1503.02531; that both see the same random changes is Beyer et al. 2022, arXiv 2106.05237. A teacher has no state:
its answers are a function of the batch, so a resumed training repeats them; `job.json` keeps the digest of its weights.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.config import Optim
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, RunError
from convmix.hardware import autocast
from convmix.models import catalog
from convmix.models.neighbours import digest_of_file, digest_of_weights
from convmix.results import Classes
from convmix.tasks import task_class
from convmix.tasks.base import Task

RGB = 3


class Teacher:
    """A classifier's run in evaluation, on the device of the student's training."""

    def __init__(
        self, artifact: Artifact, preprocess: Preprocess, task: Task, optim: Optim, *, device: torch.device, precision: str
    ) -> None:
        self.model = artifact.model.to(device).eval().requires_grad_(False)
        self.share, self.temperature = optim.teacher_share, optim.teacher_temperature
        self.device, self.precision, self.size = device, precision, artifact.preprocess.size
        self.columns = torch.tensor([artifact.labels.index(label) for label in task.labels], device=device)
        (own_scale, own_shift), (scale, shift) = (
            tuple(torch.from_numpy(values).to(device) for values in p.affine(levels=1)) for p in (preprocess, artifact.preprocess)
        )
        self.scale, self.shift = scale / own_scale, shift - own_shift * scale / own_scale  # C,1,1 each

    def logits(self, images: Tensor) -> Tensor:
        """N,C,H,W as the student gets them -> N,k float32 in the student's order of labels."""
        x = images.float() * self.scale + self.shift
        if tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        context: AbstractContextManager[None] = autocast(self.precision, self.device)
        with torch.no_grad(), context:
            return self.model(x).float()[:, self.columns]

    def loss(self, own: Tensor, outputs: Tensor, images: Tensor) -> Tensor:
        """The task's own loss, a scalar, mixed with how far the student's logits N,k are from the teacher's."""
        t = self.temperature
        wanted = F.log_softmax(self.logits(images) / t, 1)
        far = F.kl_div(F.log_softmax(outputs.float() / t, 1), wanted, reduction="batchmean", log_target=True)
        return (1 - self.share) * own + self.share * t * t * far


def is_named(optim: Optim) -> bool:
    """Whether the teacher is a published model by its name, for which `named_teacher` makes a model directory."""
    return optim.teacher is not None and not Path(optim.teacher).is_dir()


def refuse_impossible(optim: Optim, task: Task, *, in_chans: int) -> None:
    """ConfigError, and ModelError for an unknown name, where the settings name a teacher that there cannot be."""
    if optim.teacher is None:
        if optim.teacher_weights is not None:
            raise ConfigError("optim.teacher_weights: are those of a teacher that is named; name it with --teacher")
        return
    if task.result is not Classes:
        raise ConfigError(f"optim.teacher is for classification; leave it out for the task {task.name}")
    if not is_named(optim):
        if optim.teacher_weights is not None:
            raise ConfigError(f"optim.teacher_weights: {optim.teacher} has its own; leave them out, or give the name of a model")
        return
    if os.sep in optim.teacher:
        raise ConfigError(f"optim.teacher: {optim.teacher} is neither a model directory nor the name of a model")
    catalog.check_name(optim.teacher)
    if optim.teacher_weights is not None and not Path(optim.teacher_weights).is_file():
        raise ConfigError(f"optim.teacher_weights: there is no file {optim.teacher_weights}")
    if in_chans != RGB:
        raise ConfigError(
            f"optim.teacher: {optim.teacher} takes images of {RGB} channels, these have {in_chans}; train a teacher on them first"
        )


def open_teacher(
    optim: Optim, preprocess: Preprocess, task: Task, *, device: torch.device, precision: str, place: Path | None = None
) -> Teacher | None:
    """The teacher that the settings name; None where they name none. ConfigError for one that cannot teach this training.

    place: its model directory where the settings give a name.
    """
    refuse_impossible(optim, task, in_chans=preprocess.in_chans)
    if optim.teacher is None:
        return None
    artifact = load_artifact(optim.teacher if place is None else place)
    if artifact.engine is not None or task_class(artifact.task).result is not Classes:
        raise ConfigError(f"optim.teacher: {optim.teacher} is not a run of a classifier, which alone can teach one")
    if missing := [label for label in task.labels if label not in artifact.labels]:
        raise ConfigError(
            f"optim.teacher: {optim.teacher} does not know {', '.join(missing[:3])}; it knows {', '.join(artifact.labels[:5])}"
        )
    if artifact.preprocess.in_chans != preprocess.in_chans:
        raise ConfigError(
            f"optim.teacher: {optim.teacher} takes images of {artifact.preprocess.in_chans} channels, these have {preprocess.in_chans}"
        )
    return Teacher(artifact, preprocess, task, optim, device=device, precision=precision)


def teacher_digest(optim: Optim) -> str | None:
    """Of the teacher's weights, for `job.json`; None where they are published ones."""
    if optim.teacher is not None and not is_named(optim):
        return digest_of_weights(Path(optim.teacher))
    file = None if optim.teacher_weights is None else Path(optim.teacher_weights)
    return None if file is None or not file.is_file() else digest_of_file(file)


def refuse_another_teacher(optim: Optim, digest: str | None) -> None:
    """RunError where the teacher is not the one that a training was started with."""
    if teacher_digest(optim) != digest:
        raise RunError(
            f"the teacher {optim.teacher} is no longer the one that this training was started with; bring it back, or start again"
        )
