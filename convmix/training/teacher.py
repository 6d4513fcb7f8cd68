"""A trained run that teaches another: its answers to the very images of a training step are targets beside the true labels.

    images as the student gets them -> as the teacher was trained on them -> its logits, in the student's order of labels
    loss = (1 - share) * the task's own + share * T^2 * KL(teacher at T, student at T)

Hinton et al. 2015, arXiv 1503.02531; that both see the same random changes is Beyer et al. 2022, arXiv 2106.05237. A teacher has no state:
its answers are a function of the batch, so a resumed training repeats them; `job.json` keeps the digest of its weights.
"""

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
from convmix.models.neighbours import digest_of_weights
from convmix.results import Classes
from convmix.tasks import task_class
from convmix.tasks.base import Task


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


def open_teacher(optim: Optim, preprocess: Preprocess, task: Task, *, device: torch.device, precision: str) -> Teacher | None:
    """The teacher that the settings name; None where they name none. ConfigError for one that cannot teach this training."""
    if optim.teacher is None:
        return None
    if task.result is not Classes:
        raise ConfigError(f"optim.teacher is for classification; leave it out for the task {task.name}")
    if not Path(optim.teacher).is_dir():
        raise ConfigError(
            f"optim.teacher: {optim.teacher} is not a model directory; a published model learns to teach with "
            "`convmix train DATA --model NAME --freeze backbone --out runs/teacher`, then --teacher runs/teacher"
        )
    artifact = load_artifact(optim.teacher)
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
    """Of the teacher's weights, for `job.json`."""
    return digest_of_weights(Path(optim.teacher)) if optim.teacher is not None and Path(optim.teacher).is_dir() else None


def refuse_another_teacher(optim: Optim, digest: str | None) -> None:
    """RunError where the teacher is not the one that a training was started with."""
    if teacher_digest(optim) != digest:
        raise RunError(
            f"the teacher {optim.teacher} is no longer the one that this training was started with; bring it back, or start again"
        )
