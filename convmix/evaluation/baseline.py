"""A second run on the images of the first: made ready before anything is computed, then scored and compared."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.renumbering import columns
from convmix.errors import ConfigError, DataError
from convmix.evaluation.model_outputs import Answerer, Answers, Means
from convmix.evaluation.pairing import Pairing, pair
from convmix.evaluation.selection import Selection, unseen_by


@dataclass(frozen=True)
class Baseline:
    """The other run, and what it may be judged on."""

    artifact: Artifact
    positions: np.ndarray  # m int64, in the selection: images that it was not trained or chosen on
    columns: np.ndarray  # class number of the data -> column of its labels
    notes: tuple[str, ...]


def prepare_rival(against: str | Path | Artifact, artifact: Artifact, selection: Selection, *, split: str) -> Baseline:
    """The run to compare with; its preprocessing, model and order of labels may be others.

    Raises RunError for an incomplete run, ConfigError for the same run twice, DataError where it has seen all of the images or does not
    know one of their classes.
    """
    rival = against if isinstance(against, Artifact) else load_artifact(against)
    if os.path.realpath(rival.path) == os.path.realpath(artifact.path):
        raise ConfigError(f"against: {rival.path} is the run itself; give another one")
    try:
        known = columns(selection.examples.classes, rival.labels, selection.data, used=selection.examples.labels.tolist())
    except DataError as error:
        raise DataError(f"against: {rival.path} cannot be compared: {error}") from None
    positions = unseen_by(rival, selection, split=split)
    if not len(positions):
        n = len(selection.digests)
        raise DataError(f"against: {rival.path} was trained on, or chosen by, all of these {n} images; nothing is left to compare on")
    notes = []
    if seen := len(selection.digests) - len(positions):
        notes.append(f"{seen} images are left out of the comparison: {rival.path} was trained on or chosen by them")
    if set(rival.labels) != set(artifact.labels):
        notes.append(f"the runs choose among different classes, {len(artifact.labels)} here and {len(rival.labels)} in {rival.path}")
    return Baseline(rival, positions, known, tuple(notes))


def compare(rival: Baseline, selection: Selection, answers: Answers, means: Means) -> Pairing:
    """Score the rival and compare it with the first run's answers, on the images that both can read."""
    examples = selection.examples.select(rival.positions)
    outputs = Answerer(rival.artifact, len(examples), means)(examples, rival.artifact.preprocess)
    theirs = np.zeros(len(selection.examples), dtype=np.int8) - 1  # -1: not scored
    if len(outputs.values):
        said, truth = outputs.values.argmax(1).numpy(), rival.columns[outputs.targets.numpy()]
        theirs[rival.positions[outputs.indices.numpy()]] = said == truth
    shared = theirs[answers.indices] >= 0
    if not shared.any():
        raise DataError(f"against: {rival.artifact.path} can read none of the images")
    return pair(
        answers.correct[shared],
        theirs[answers.indices][shared] == 1,
        rival=str(rival.artifact.path),
        left_out=int((~shared).sum()),
        notes=rival.notes,
    )
