"""What is odd about the labels of images that may have several: labels never together, images that probably lack one.

matrix n,k of 1, 0 and UNKNOWN -> pairs that chance would bring together, and company that is nearly always there -> findings
run + images it has not learned from -> probabilities n,k -> label by label as `labels.suspect` judges classes -> findings
"""

from collections.abc import Iterator

import numpy as np

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.audit.duplicates import Copies
from convmix.audit.finding import Finding
from convmix.audit.image_facts import ImageFacts
from convmix.audit.labels import BATCH, LabelCheck, by_part, held_out_of, percent, suspect
from convmix.data.loaders import eval_batches
from convmix.data.targets import UNKNOWN
from convmix.errors import DataError
from convmix.inference.batches import resolve, run_model
from convmix.inference.engine_choice import accelerate
from convmix.tasks import create_task
from convmix.tasks.multilabel import Multilabel

BY_CHANCE = 10.0  # images that two labels would share if they had nothing to do with each other: none at all is then no accident
COMPANY, ENOUGH = 0.95, 20  # share of a label's images that have another one too, and the fewest that show it
MOST = 30  # pairs that are never together; there are k * k of them


def examine_labels(facts: ImageFacts) -> Iterator[Finding]:
    """Of readable images alone, all splits together."""
    if facts.matrix is None:
        return
    some = np.flatnonzero(facts.ok)
    matrix = facts.matrix[some]
    yes, known = (matrix == 1).astype(np.int64), (matrix != UNKNOWN).astype(np.int64)
    together, both_known = yes.T @ yes, known.T @ known  # k,k
    of_known = yes.T @ known  # k,k: images with the one of which it is known whether they have the other
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(of_known * of_known.T / both_known)
        share = np.nan_to_num(together / of_known)
    apart = [(a, b) for a, b in np.argwhere((together == 0) & (expected >= BY_CHANCE)).tolist() if a < b]
    for a, b in sorted(apart, key=lambda pair: -expected[pair])[:MOST]:
        about = f"never on one image with {facts.classes[b]}, where chance would bring them together on {expected[a, b]:.0f}"
        yield Finding("never together", "", "", facts.classes[a], about)
    usual = (share >= COMPANY) & (share < 1) & (of_known >= ENOUGH)
    np.fill_diagonal(usual, False)
    for a, b in np.argwhere(usual).tolist():
        about = (
            f"has {facts.classes[a]} and not {facts.classes[b]}, which {percent(share[a, b])} of the {of_known[a, b]} images with it have"
        )
        for i in some[(matrix[:, a] == 1) & (matrix[:, b] == 0)].tolist():
            yield Finding("probable missing label", facts.name(i), facts.split(i), facts.label_name(i), about, at=i)


def check_several(
    facts: ImageFacts, copies: Copies, artifact: Artifact, *, data: str, device: str | None = None, workers: int | None = None
) -> LabelCheck:
    """Labels that the run contradicts, of the images that it was not trained on, nor on copies of them. Raises as `labels.check_labels`."""
    held_out, left_out = held_out_of(facts, copies, artifact, data=data)
    probabilities, truth, at = _predict(facts, held_out, artifact, data=data, device=device, workers=workers)
    suspicions: list[tuple[float, Finding]] = []
    agreed = 0
    for c, label in enumerate(artifact.labels):
        rows = np.flatnonzero(truth[:, c] != UNKNOWN)
        if not len(rows):
            continue
        p, given = probabilities[rows, c], truth[rows, c].astype(np.int64)
        agreed += int(((p >= 0.5) == (given == 1)).sum())
        found = suspect(np.stack([1 - p, p], 1), given)
        for row, has_it, margin in zip(found.index.tolist(), found.given.tolist(), found.margin.tolist(), strict=True):
            i = int(at[rows[row]])
            kind = "probable label error" if has_it else "probable missing label"
            said = f"{'has' if has_it else 'lacks'} {label}, to which the model gives {percent(p[row])}"
            suspicions.append((margin, Finding(kind, facts.name(i), facts.split(i), facts.label_name(i), said, at=i)))
    suspicions.sort(key=lambda pair: -pair[0])
    known = int((truth != UNKNOWN).sum())
    return LabelCheck(tuple(finding for _, finding in suspicions), len(at), agreed / max(known, 1), left_out)


def _predict(
    facts: ImageFacts, held_out: np.ndarray, artifact: Artifact, *, data: str, device: str | None, workers: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities n,k, what is known n,k, and positions in the facts n, of the images that the model can read."""
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    assert isinstance(task, Multilabel)
    where, how = resolve(device, "auto")
    ready = accelerate(artifact, len(held_out), batch_size=BATCH, device=where, precision=how, optimize="auto")
    column_of = columns(facts.classes, artifact.labels, data)
    probabilities, truth, at = [], [], []
    for part, start, positions in by_part(facts, held_out):
        examples = Renumbered(facts.parts[part].select(positions - start), column_of, len(artifact.labels))
        batches = eval_batches(examples, artifact.preprocess, batch_size=BATCH, workers=workers)
        outputs = run_model(ready.model, batches, device=where, precision=ready.precision)
        if len(outputs.values):
            probabilities.append(task.probabilities(outputs.values).double().numpy())
            truth.append(outputs.targets.numpy())
            at.append(positions[outputs.indices.numpy()])
    if not at:
        raise DataError(f"{data}: {artifact.path} can read none of its images")
    return np.concatenate(probabilities), np.concatenate(truth), np.concatenate(at)
