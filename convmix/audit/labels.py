"""Labels that are probably wrong: confident learning on predictions for images that the run has not learned from.

run + facts -> held-out images -> probabilities n,k -> class thresholds -> confident joint -> suspicions, the surest first

Northcutt, Jiang, Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (arXiv 1911.00068), written from the
paper. A threshold per class makes up for a model that is surer of some classes than of others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.provenance import recorded_digests
from convmix.artifacts.renumbering import columns
from convmix.audit.duplicates import Copies
from convmix.audit.finding import Finding
from convmix.audit.image_facts import ImageFacts
from convmix.data.loaders import eval_batches
from convmix.errors import DataError
from convmix.inference.batches import resolve, run_model
from convmix.inference.engine_choice import accelerate
from convmix.tasks import create_task

BATCH = 64


@dataclass(frozen=True)
class Suspicions:
    """Images whose label a model contradicts, the surest first."""

    index: np.ndarray  # m int64, rows of the probabilities
    given: np.ndarray  # m int64, column of the label
    suggested: np.ndarray  # m int64, column of what the model says
    margin: np.ndarray  # m float, probability of the suggestion less that of the label
    joint: np.ndarray  # k,k int64: images by given label (row) and by the class they confidently are (column)


@dataclass(frozen=True)
class LabelCheck:
    """What a run says about the labels of a data set."""

    findings: tuple[Finding, ...]
    examined: int  # images that the run had not learned from
    right: float  # share of them whose label the model gives too
    left_out: int  # images that it had, and copies of them


def suspect(probabilities: np.ndarray, given: np.ndarray) -> Suspicions:
    """Confident learning on held-out probabilities n,k and the labels n.

    A class's threshold is the mean probability that its own images get for it. An image counts as the most probable of the classes whose
    threshold it reaches (equation 1 of the paper): the confident joint. Its rows are scaled to all images of their label, since about half
    of them reach no threshold (equation 3); that says how many of each label are wrong. As many are suspected (section 4.3, prune by
    class): those to whose label the model gives the least compared with what it says instead, never one that it agrees with.
    """
    n, k = probabilities.shape
    own = probabilities[np.arange(n), given]
    size = np.bincount(given, minlength=k)
    threshold = np.full(k, np.inf)  # a class without images has no threshold to reach
    np.divide(np.bincount(given, weights=own, minlength=k), size, out=threshold, where=size > 0)
    reached = np.where(probabilities >= threshold, probabilities, -1.0)
    is_confident = reached.max(1, initial=-1.0) >= 0
    joint = np.zeros((k, k), np.int64)
    np.add.at(joint, (given[is_confident], reached.argmax(1)[is_confident]), 1)
    wrong = np.rint(size * (1 - joint.diagonal() / np.maximum(joint.sum(1), 1))).astype(np.int64)
    possible = np.where(size > 0, probabilities, -1.0)
    suggested = possible.argmax(1)
    margin = possible.max(1) - own
    order = np.argsort(-margin, kind="stable")
    order = order[margin[order] > 0]
    index = order[_occurrence(given[order]) < wrong[given[order]]]
    return Suspicions(index, given[index], suggested[index], margin[index], joint)


def _occurrence(values: np.ndarray) -> np.ndarray:
    """How often each value came before."""
    before = np.zeros(len(values), np.int64)
    for value in np.unique(values):
        at = values == value
        before[at] = np.arange(int(at.sum()))
    return before


def check_labels(
    facts: ImageFacts, copies: Copies, artifact: Artifact, *, data: str, device: str | None = None, workers: int | None = None
) -> LabelCheck:
    """Suspicions about the images that the run was not trained on, nor on copies of them.

    Raises DataError where an image has a class that the run does not know, or where the run was trained on everything.
    """
    findings: list[Finding] = []
    held_out, left_out = held_out_of(facts, copies, artifact, data=data)
    probabilities, given, at = _predict(facts, held_out, artifact, data=data, device=device, workers=workers)
    found = suspect(probabilities, given)
    for row, label, other in zip(found.index.tolist(), found.given.tolist(), found.suggested.tolist(), strict=True):
        i = int(at[row])
        said = f"the model says {artifact.labels[other]} ({percent(probabilities[row, other])}); "
        said += f"the label has {percent(probabilities[row, label])}"
        findings.append(Finding("probable label error", facts.name(i), facts.split(i), facts.label_name(i), said, at=i))
    right = float((probabilities.argmax(1) == given).mean())
    return LabelCheck(tuple(findings), len(at), right, left_out)


def held_out_of(facts: ImageFacts, copies: Copies, artifact: Artifact, *, data: str) -> tuple[np.ndarray, int]:
    """Positions of the images that the run was not trained on, nor on copies of them, and how many others there are. DataError for none."""
    trained = np.array([int(digest, 16) for digest in recorded_digests(artifact)["train"] if digest], np.uint64)
    known = facts.ok & np.isin(facts.digest, trained)
    known |= np.isin(copies.group, copies.group[known]) & facts.ok
    held_out = np.flatnonzero(facts.ok & ~known)
    if not len(held_out):
        raise DataError(
            f"{data}: {artifact.path} was trained on all of its {int(known.sum())} readable images or on copies of them, "
            "so its opinion of their labels is worth nothing; leave the run out, or give data with a split that it has not seen"
        )
    return held_out, int(known.sum())


def _predict(
    facts: ImageFacts, held_out: np.ndarray, artifact: Artifact, *, data: str, device: str | None, workers: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities n,k, columns of the labels n, and positions in the facts n, of the images that the model can read."""
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    where, how = resolve(device, "auto")
    ready = accelerate(artifact, len(held_out), batch_size=BATCH, device=where, precision=how, optimize="auto")
    probabilities, given, at = [], [], []
    for part, start, positions in by_part(facts, held_out):
        examples = facts.parts[part].select(positions - start)
        column = columns(examples.classes, artifact.labels, data, used=examples.labels.tolist())
        batches = eval_batches(examples, artifact.preprocess, batch_size=BATCH, workers=workers)
        outputs = run_model(ready.model, batches, device=where, precision=ready.precision)
        if len(outputs.values):
            probabilities.append(task.decode(outputs.values).probabilities.double().numpy())
            given.append(column[outputs.targets.numpy()])
            at.append(positions[outputs.indices.numpy()])
    if not at:
        raise DataError(f"{data}: {artifact.path} can read none of its images")
    return np.concatenate(probabilities), np.concatenate(given), np.concatenate(at)


def by_part(facts: ImageFacts, chosen: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Part, its first position and the chosen positions in it, of every part that has some."""
    start = 0
    for part, examples in enumerate(facts.parts):
        positions = chosen[(chosen >= start) & (chosen < start + len(examples))]
        if len(positions):
            yield part, start, positions
        start += len(examples)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
