"""The evaluation of runs whose answers are more than one class: objects, a class for every pixel, or several labels.

run + data -> Selection -> network -> answers -> `found`, `mapped` or `labelled` -> JSON, CSV, page
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.data.examples import Examples
from convmix.data.loaders import eval_batches
from convmix.data.targets import IGNORE, UNKNOWN, Annotation, Objects, Regions
from convmix.errors import ConfigError, DataError, did_you_mean
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.evaluation.detection import evaluate_objects
from convmix.evaluation.labelled import evaluate_labels
from convmix.evaluation.model_outputs import Means
from convmix.evaluation.segmentation import evaluate_maps
from convmix.evaluation.selection import Selection, select
from convmix.inference.batches import Outputs, run_model
from convmix.results import Boxes, ImageLabels, SemanticMap
from convmix.tasks import create_task


def evaluate_dense(
    artifact: Artifact, data: str | Path | None, *, split: str, against: str | Path | Artifact | None, output: Callable[[Selection], Path],
    means: Means, console: Console | None = None,
) -> DenseEvaluation:  # fmt: skip
    """`score.evaluate` for these runs. Raises as it does."""
    selection = select(artifact, data, split=split, console=console)
    outputs, said = _answers(artifact, selection, means)
    bad = tuple((selection.examples.name(i), reason) for i, reason in outputs.bad)
    if not len(outputs.indices):
        raise DataError(f"{selection.data}: none of its {len(bad)} images can be read; the first: {bad[0][1]}")
    rival = None
    if against is not None:
        other = against if isinstance(against, Artifact) else load_artifact(against)
        if other.task != artifact.task or other.labels != artifact.labels:
            raise ConfigError(
                f"against: {other.path} is for the task {other.task} with {len(other.labels)} classes, {artifact.path} for {artifact.task} "
                f"with {len(artifact.labels)}; give a run of the same task and classes"
            )
        theirs, their_answers = _answers(other, selection, means)
        if theirs.indices.tolist() != outputs.indices.tolist():
            raise DataError(f"{other.path} and {artifact.path} cannot read the same images of {selection.data}, so they cannot be compared")
        rival = (str(other.path), their_answers)
    truths = [truth if isinstance(truth, Tensor) else truth.annotation for truth in outputs.targets]
    evaluation: DenseEvaluation = _report(said[0])(
        artifact, selection, said, truths, bad=bad, notes=selection.notes, output=output(selection),
        indices=outputs.indices.tolist(), against=rival,
    )  # fmt: skip
    return evaluation


@singledispatch
def _report(answer: Any) -> Callable[..., DenseEvaluation]:
    """What writes the report of such answers."""
    raise TypeError(f"no evaluation of {type(answer).__name__}")


@_report.register
def _(answer: Boxes) -> Callable[..., DenseEvaluation]:
    return evaluate_objects


@_report.register
def _(answer: SemanticMap) -> Callable[..., DenseEvaluation]:
    return evaluate_maps


@_report.register
def _(answer: ImageLabels) -> Callable[..., DenseEvaluation]:
    return evaluate_labels


def _answers(artifact: Artifact, selection: Selection, means: Means) -> tuple[Outputs, list[Any]]:
    """What is kept of the outputs, and the answers themselves, every one however unsure."""
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    examples = Renumbered(selection.examples, columns(selection.examples.classes, artifact.labels, selection.data), len(artifact.labels))
    loads = task.preprocessing(artifact.preprocess)
    batches = eval_batches(examples, loads, batch_size=artifact.batch(means.batch_size), workers=means.workers)
    outputs = run_model(artifact.model.to(means.device), batches, device=means.device, precision=means.precision, observe=task.observe)
    return outputs, task.everything(outputs.values)


def columns(classes: tuple[str, ...], labels: tuple[str, ...], data: str) -> np.ndarray:
    """Class number of the data -> column of the run's labels, by name; DataError for a class that the run does not know."""
    known = {label: i for i, label in enumerate(labels)}
    for name in classes:
        if name not in known:
            listed = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
            raise DataError(f"{data}: the run does not know its class {name}{did_you_mean(name, labels)} (it knows {listed})")
    return np.array([known[name] for name in classes], dtype=np.int64)


@dataclass(frozen=True)
class Renumbered:
    """Examples whose classes are the run's columns."""

    examples: Examples
    columns: np.ndarray  # class number of the data -> column
    num_columns: int = 0  # labels of the run, where images have several

    @property
    def labels(self) -> np.ndarray:
        return self.columns[self.examples.labels]

    def __len__(self) -> int:
        return len(self.examples)

    def source(self, i: int, /) -> bytes | str:
        return self.examples.source(i)

    def annotation(self, i: int, /) -> Annotation:
        known = self.examples.annotation(i)
        if isinstance(known, Tensor):  # of a label that the data does not have nobody knows
            placed = torch.full((self.num_columns,), UNKNOWN, dtype=known.dtype)
            placed[torch.from_numpy(self.columns)] = known
            return placed
        if isinstance(known, Objects):
            return replace(known, labels=self.columns[known.labels])
        if isinstance(known, Regions):
            return replace(known, classes=tuple(c if c == IGNORE else int(self.columns[c]) for c in known.classes))
        return int(self.columns[known])
