"""The evaluation of runs whose answers are more than one class: objects, a class for every pixel, or several labels.

run + data -> Selection -> network -> answers -> `found`, `mapped` or `labelled` -> JSON, CSV, page
"""

from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.errors import ConfigError, DataError
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.evaluation.detection import evaluate_objects
from convmix.evaluation.labelled import evaluate_labels
from convmix.evaluation.model_outputs import Answerer, Means
from convmix.evaluation.segmentation import evaluate_maps
from convmix.evaluation.selection import Selection, select
from convmix.inference.batches import Outputs
from convmix.results import Boxes, ImageLabels, SemanticMap


def evaluate_dense(
    artifact: Artifact, data: str | Path | None, *, split: str, against: str | Path | Artifact | None, output: Callable[[Selection], Path],
    means: Means, console: Console | None = None,
) -> DenseEvaluation:  # fmt: skip
    """`score.evaluate` for these runs. Raises as it does."""
    selection = select(artifact, data, split=split, console=console)
    outputs, said, note = _answers(artifact, selection, means)
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
        theirs, their_answers, _ = _answers(other, selection, means)
        if theirs.indices.tolist() != outputs.indices.tolist():
            raise DataError(f"{other.path} and {artifact.path} cannot read the same images of {selection.data}, so they cannot be compared")
        rival = (str(other.path), their_answers)
    truths = [truth if isinstance(truth, Tensor) else truth.annotation for truth in outputs.targets]
    evaluation: DenseEvaluation = _report(said[0])(
        artifact, selection, said, truths, bad=bad, notes=(*selection.notes, *note), output=output(selection),
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


def _answers(artifact: Artifact, selection: Selection, means: Means) -> tuple[Outputs, list[Any], tuple[str, ...]]:
    """What is kept of the outputs, the answers themselves, every one however unsure, and which engine gave them."""
    answerer = Answerer(artifact, len(selection.examples), means)
    task = answerer.task
    examples = Renumbered(selection.examples, columns(selection.examples.classes, artifact.labels, selection.data), len(artifact.labels))
    outputs = answerer(examples, task.preprocessing(artifact.preprocess))
    return outputs, task.everything(outputs.values), () if answerer.ready.note is None else (answerer.ready.note,)
