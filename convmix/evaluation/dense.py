"""The evaluation of runs whose answers are more than one class: objects, a class for every pixel, or several labels.

run + data -> Selection -> network -> answers -> `found`, `mapped` or `labelled` -> JSON, CSV, page
"""

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.errors import ConfigError, DataError
from convmix.evaluation.appearance import Brightness, original_sizes
from convmix.evaluation.attributes import Attributes, read_attributes
from convmix.evaluation.dense_result import DenseEvaluation, Groups
from convmix.evaluation.detection import evaluate_objects
from convmix.evaluation.labelled import evaluate_labels
from convmix.evaluation.model_outputs import Answerer, Means
from convmix.evaluation.robustness import left_out, passes, under_damage
from convmix.evaluation.segmentation import evaluate_maps
from convmix.evaluation.selection import Selection, select
from convmix.evaluation.slices import by_appearance
from convmix.evaluation.slices import slices as sliced
from convmix.inference.batches import Outputs, in_order
from convmix.metrics.resampling import Sampled
from convmix.results import Boxes, ImageLabels, SemanticMap
from convmix.tasks import task_class


def evaluate_dense(
    artifact: Artifact, data: str | Path | None, *, split: str, against: str | Path | Artifact | None, slices: str | Path | None,
    robustness: bool, output: Callable[[Selection], Path], means: Means, console: Console | None = None,
) -> DenseEvaluation:  # fmt: skip
    """`score.evaluate` for these runs. Raises as it does."""
    selection = select(artifact, data, split=split, console=console)
    examples = _renumbered(artifact, selection)
    attributes = read_attributes(str(slices), selection.examples.names) if slices is not None else Attributes({}, ())
    places = task_class(artifact.task).places
    answerer = Answerer(artifact, len(examples) * (1 + robustness * passes(artifact.preprocess, places=places)), means)
    brightness = Brightness(artifact.preprocess)
    outputs = answerer(examples, answerer.task.preprocessing(artifact.preprocess), brightness.watch)
    said = answerer.task.everything(outputs.values)
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
        their_answerer = Answerer(other, len(examples), means)
        theirs = their_answerer(_renumbered(other, selection), their_answerer.task.preprocessing(other.preprocess))
        their_answers = their_answerer.task.everything(theirs.values)
        if theirs.indices.tolist() != outputs.indices.tolist():
            raise DataError(f"{other.path} and {artifact.path} cannot read the same images of {selection.data}, so they cannot be compared")
        rival = (str(other.path), their_answers)
    groups = _groups(answerer, selection, outputs, brightness.values, attributes)
    if robustness:
        groups = replace(groups, robustness=under_damage(answerer, examples, lambda some: answerer.task.sampled(some.values, some.targets)))
    notes = [*selection.notes, *attributes.notes, *([answerer.ready.note] if answerer.ready.note else [])]
    notes += left_out(artifact.preprocess, places=places) if robustness else ()
    truths = [truth if isinstance(truth, Tensor) else truth.annotation for truth in outputs.targets]
    evaluation: DenseEvaluation = _report(said[0])(
        artifact, selection, said, truths, bad=bad, notes=notes, output=output(selection),
        indices=outputs.indices.tolist(), against=rival, groups=groups,
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


def _renumbered(artifact: Artifact, selection: Selection) -> Renumbered:
    column_of = columns(selection.examples.classes, artifact.labels, selection.data)
    return Renumbered(selection.examples, column_of, len(artifact.labels))


def _groups(answerer: Answerer, selection: Selection, outputs: Outputs, brightness: np.ndarray, attributes: Attributes) -> Groups:
    """The score of all images and by what they look like or the user's table says of them."""
    task = answerer.task

    def sampled(at: np.ndarray) -> Sampled:
        some = torch.from_numpy(at)
        return task.sampled(in_order(outputs.values, some), in_order(outputs.targets, some))

    indices = outputs.indices.numpy()
    whole = sampled(np.arange(len(indices))).score
    if whole is None:
        return Groups(task.score_title)
    sizes = original_sizes(selection.examples, indices, answerer.artifact.preprocess)
    groupings = [*by_appearance(sizes, brightness), *attributes.groupings(indices)]
    return Groups(task.score_title, whole, sliced(groupings, sampled, overall=whole.value))
