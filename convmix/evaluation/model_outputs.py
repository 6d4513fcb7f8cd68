"""What a run answers to a set of images, and the means to compute it.

examples + a preprocessing -> batches -> the model, in the engine that ends soonest -> Outputs
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from convmix.artifacts.artifact import Artifact
from convmix.data.loaders import Annotated, Batch, eval_batches
from convmix.data.preprocessing import Loads
from convmix.errors import ConfigError, RunError
from convmix.inference.batches import Outputs, resolve, run_model
from convmix.inference.engine_choice import Accelerated, accelerate
from convmix.results import Classes
from convmix.tasks import create_task

Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


@dataclass(frozen=True)
class Means:
    """How the user wants it computed, checked."""

    batch_size: int
    device: torch.device
    precision: str  # not auto
    optimize: str
    workers: int | None


def check_means(*, batch_size: int, device: str | None, precision: str, optimize: str, workers: int | None) -> Means:
    """The user's words as means; ConfigError for what does not exist here."""
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is too small, expected at least 1")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers} is too small, expected at least 0")
    where, how = resolve(device, precision)
    return Means(batch_size, where, how, optimize, workers)


class Answerer:
    """One run's model, ready for about `num_images` images."""

    def __init__(self, artifact: Artifact, num_images: int, means: Means) -> None:
        self.artifact, self.means = artifact, means
        self.task = create_task(artifact.task, artifact.labels, artifact.calibration)
        self.ready: Accelerated = accelerate(
            artifact, num_images, batch_size=means.batch_size, device=means.device, precision=means.precision, optimize=means.optimize
        )

    def __call__(self, examples: Annotated, loads: Loads, watch: Watch = iter) -> Outputs:
        """Outputs for every image that can be read; `watch` sees the batches pass. RunError for outputs that are not finite."""
        batches = eval_batches(examples, loads, batch_size=self.artifact.batch(self.means.batch_size), workers=self.means.workers)
        outputs = run_model(
            self.ready.model, watch(batches), device=self.means.device, precision=self.ready.precision, observe=self.task.observe
        )
        if isinstance(outputs.values, Tensor) and not outputs.values.isfinite().all():
            raise RunError(f"{self.artifact.path}: the model's output is not finite; its weights are of no use")
        return outputs


@dataclass(frozen=True)
class Answers:
    """A run's answers to the n images that could be read, in the order of the selection."""

    logits: Tensor  # n,k float32, as the model gives them
    classes: Classes  # calibrated probabilities, n,k
    truth: np.ndarray  # n int64, columns
    predicted: np.ndarray  # n int64, columns
    indices: np.ndarray  # n int64, positions in the selection

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each answer is right, n bool."""
        return self.truth == self.predicted

    @cached_property
    def probability(self) -> np.ndarray:
        """Of the answer, n float32."""
        best: np.ndarray = self.classes.probabilities.amax(1).numpy()
        return best

    @cached_property
    def truth_probability(self) -> np.ndarray:
        """Of the true class, n float32."""
        of_truth: np.ndarray = self.classes.probabilities.gather(1, torch.from_numpy(self.truth)[:, None])[:, 0].numpy()
        return of_truth

    @cached_property
    def loss(self) -> np.ndarray:
        """Cross-entropy of the raw outputs, n float64, nats."""
        return torch.nn.functional.cross_entropy(self.logits.double(), torch.from_numpy(self.truth), reduction="none").numpy()
