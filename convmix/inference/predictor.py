"""Images to answers, a batch at a time: what `predict`, the server and the cluster have in common.

file or bytes  --  prepare  -->  Prepared            in any thread or process; BadImage where it cannot be read
Prepared, ...  --  answers  -->  Answer, ...         one caller at a time
Batch          --  answer_batch  -->  Answer by index   where `data.loaders` reads the images
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convmix.artifacts.artifact import Artifact
from convmix.data.decode import Image, fits_in_memory
from convmix.data.loaders import Batch, stack, to_inputs
from convmix.data.targets import as_batch
from convmix.inference.batches import resolve, run_model
from convmix.inference.engine_choice import accelerate, check_exported
from convmix.models.features import watched
from convmix.models.neighbours import Neighbours
from convmix.results import Boxes, Classes, ImageLabels, SemanticMap
from convmix.tasks import create_task

Result = Classes | ImageLabels | Boxes | SemanticMap  # of one image


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it, and the way back to its own pixels."""

    image: Image | Tensor  # at the input size; a tensor is C,H,W float32, normalised
    target: Any  # `data.targets.Truth` for tasks whose answers are places in the image, else None


@dataclass(frozen=True)
class Likeness:
    """How like the training images an image is."""

    distance: float  # of the K-th nearest of them, 0..2
    unlike: bool  # whether that is more than nearly all validation images have
    nearest: tuple[tuple[str, str, float], ...] = ()  # name, label and cosine, the nearest first


@dataclass(frozen=True)
class Answer:
    """What the model says of one image, or why it says nothing."""

    result: Result | None  # Classes: a single row; None: see `error`
    error: str | None = None
    likeness: Likeness | None = None  # where the predictor was given the training images


class Predictor:
    """A model directory that answers: in the fastest engine that is known to pay, or as `device`, `precision` and `optimize` say.

    images: how many are to come, about; so many are worth finding a fast engine for. batch_size: as many at once, at most.
    neighbours: the training images; every answer then says how like them its image is, and names the `nearest`, where they have names.
    Raises ConfigError for settings that do not exist or do not go together.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        images: int,
        batch_size: int,
        device: str | None = None,
        precision: str = "auto",
        optimize: str = "auto",
        neighbours: Neighbours | None = None,
        nearest: int = 0,
    ) -> None:
        self.artifact, self.neighbours, self.nearest = artifact, neighbours, nearest
        if neighbours is not None and artifact.engine is None:
            optimize = "never"  # measured engines give no features; what was exported with them does
        self.task = create_task(artifact.task, artifact.labels, artifact.calibration)
        self.loads = self.task.preprocessing(artifact.preprocess)
        check_exported(artifact, precision=precision, optimize=optimize)
        self.device, how = resolve(device, precision)
        self.batch_size = batch_size = artifact.batch(batch_size)
        self._ready = accelerate(artifact, images, batch_size=batch_size, device=self.device, precision=how, optimize=optimize)

    def prepare(self, source: bytes | str | Path) -> Prepared:
        """Encoded bytes or a file, decoded and brought to the input size; raises BadImage as `decode` does."""
        with fits_in_memory():
            return Prepared(*self.loads.change(self.loads.read(source), None))

    def answers(self, prepared: Sequence[Prepared], *, threshold: float | None = None) -> list[Answer]:
        """One for every image, in their order; threshold as in `Task.decode`."""
        step = self.artifact.batch(len(prepared))
        if step < len(prepared):
            return [a for i in range(0, len(prepared), step) for a in self.answers(prepared[i : i + step], threshold=threshold)]
        images = to_inputs(stack([p.image for p in prepared], self.loads), self.loads, self.device)
        batch = Batch(images, as_batch([p.target for p in prepared]), torch.arange(len(prepared)), ())
        found = self.answer_batch(batch, threshold=threshold)
        return [found[i] for i in range(len(prepared))]

    def answer_batch(self, batch: Batch, *, threshold: float | None = None) -> dict[int, Answer]:
        """Index of the split -> answer, broken images too."""
        ready = self._ready
        with watched(ready.model) if self.neighbours is not None else nullcontext() as doors:
            outputs = run_model(ready.model, [batch], device=self.device, precision=ready.precision, observe=self.task.observe)
        likeness = self._likeness(doors.main(), outputs.indices) if doors is not None and len(outputs.indices) else {}
        found = {i: Answer(None, reason) for i, reason in outputs.bad}
        values, indices = outputs.values, outputs.indices
        if isinstance(values, Tensor) and len(values):
            finite = values.isfinite().all(1)
            found |= {i: Answer(None, "the model's output is not finite") for i in indices[~finite].tolist()}
            values, indices = values[finite], indices[finite]
        if len(indices):
            results = _each(self.task.decode(values, threshold=threshold))
            found |= {i: Answer(result, likeness=likeness.get(i)) for i, result in zip(indices.tolist(), results, strict=True)}
        return found

    def _likeness(self, features: Tensor, indices: Tensor) -> dict[int, Likeness]:
        """Of every image by its index; features n,d."""
        known = self.neighbours
        assert known is not None
        distances = known.distances(features).tolist()
        near = known.nearest(features, self.nearest) if self.nearest and known.names else [[]] * len(distances)
        labels = self.artifact.labels
        return {
            i: Likeness(d, d > known.threshold, tuple((known.names[at], labels[int(known.labels[at])], cosine) for at, cosine in row))
            for i, d, row in zip(indices.tolist(), distances, near, strict=True)
        }


def _each(decoded: Classes | Sequence[Result]) -> Sequence[Result]:
    """Image by image."""
    if isinstance(decoded, Classes):
        return [Classes(row[None], decoded.labels, decoded.threshold) for row in decoded.probabilities]
    return decoded
