"""How good a run is where an image may have several labels: scores of the labels and of the images, and the images to look at.

probabilities and truths, image by image -> Judged -> multilabel_metrics -> LabelsEvaluation -> JSON, CSV, page
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmix.artifacts.artifact import Artifact
from convmix.atomic import write_csv, write_json
from convmix.data.targets import UNKNOWN
from convmix.errors import DataError
from convmix.evaluation.dense_result import NO_GROUPS, Difference, Groups, LabelsEvaluation, ScoredLabels
from convmix.evaluation.labelled_page import write_page
from convmix.evaluation.selection import Selection
from convmix.results import ImageLabels
from convmix.tasks.label_metrics import Judged, interval, multilabel_metrics, resamples

_COLUMNS = ("name", "truth", "unknown", "prediction", "f1", "loss")
MARK = "|"  # between labels, as tables that training reads may have it


def evaluate_labels(
    artifact: Artifact,
    selection: Selection,
    said: Sequence[ImageLabels],
    truths: Sequence[Any],
    *,
    bad: Sequence[tuple[str, str]],
    notes: Sequence[str],
    output: Path,
    indices: Sequence[int] | None = None,
    against: tuple[str, Sequence[ImageLabels]] | None = None,
    groups: Groups = NO_GROUPS,
) -> LabelsEvaluation:
    """Score what a run says of n images, and write `output` (JSON) with a CSV, a page and its pictures beside it.

    truths: k of 1, 0 and UNKNOWN each, with the run's labels. bad: (name, reason) of images that could not be read.
    indices: n positions in the selection (None: all of it, in order).
    against: another run's directory, and what it says of the same images.
    Raises DataError where nothing is known of any label.
    """
    labels, names = artifact.labels, selection.examples.names
    truth = np.stack([np.asarray(t) for t in truths])  # n,k
    judged = _judged(said, truth)
    if not judged.known.any():
        raise DataError(f"{selection.data}: nobody says of any of its {len(truth)} images whether it has a label that the run knows")
    places = list(range(len(truth))) if indices is None else [int(i) for i in indices]
    foreign = [labels[c] for c in np.flatnonzero(~judged.known.any(axis=0)).tolist()]
    more = (
        (f"of {', '.join(foreign[:5])}{' and more' if len(foreign) > 5 else ''} nobody knows anything here: not scored",) if foreign else ()
    )
    result = LabelsEvaluation(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        metrics=multilabel_metrics(judged, labels),
        left_out=selection.left_out,
        bad=tuple(bad),
        notes=(*notes, *more),
        output=output,
        images=tuple(_scored(names[place], labels, judged, i) for i, place in enumerate(places)),
        confusions=_confusions(judged, labels),
        against=_difference(against[0], _judged(against[1], truth), judged) if against else None,
        groups=groups,
    )
    write_json(output, result.to_dict())
    rows = [(i.name, *(MARK.join(x) for x in (i.truth, i.unknown, i.said)), i.f1, i.loss) for i in result.images]
    write_csv(output.with_suffix(".csv"), _COLUMNS, rows)
    write_page(result, judged, selection.examples, places, artifact.preprocess)
    return result


def _judged(said: Sequence[ImageLabels], truth: np.ndarray) -> Judged:
    probabilities = torch.stack([s.probabilities for s in said]).double().numpy()
    return Judged(probabilities, truth, said[0].thresholds.numpy())


def _scored(name: str, labels: Sequence[str], judged: Judged, i: int) -> ScoredLabels:
    def named(which: np.ndarray) -> tuple[str, ...]:
        return tuple(labels[c] for c in np.flatnonzero(which).tolist())

    f1, loss = (None if np.isnan(values[i]) else float(values[i]) for values in (judged.sample_f1, judged.loss))
    said = judged.probabilities[i] >= judged.thresholds
    return ScoredLabels(name, named(judged.true[i]), named(judged.truth[i] == UNKNOWN), named(said), f1, loss)


def _confusions(judged: Judged, labels: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    """(missed label, label that is said and wrong, images where both happen), the most frequent first."""
    missed, extra = judged.true & ~judged.said, judged.said & ~judged.true
    counts = missed.T.astype(np.int64) @ extra.astype(np.int64)  # k,k
    order = np.argsort(-counts, axis=None, kind="stable")[: int((counts > 0).sum())]
    return tuple((labels[a], labels[b], int(counts[a, b])) for a, b in (divmod(int(at), len(labels)) for at in order))


def _difference(rival: str, theirs: Judged, ours: Judged) -> Difference:
    """Paired bootstrap over the images: both runs are scored on the same resamples."""
    n, k = ours.truth.shape
    one, weights = np.ones((1, n)), resamples(n, 2 * n * k)
    value, rival_value = (float(judged.scores(one)["map"][0]) for judged in (ours, theirs))
    found = interval(ours.scores(weights)["map"] - theirs.scores(weights)["map"])
    at = value - rival_value
    return Difference(rival, "mean AP", n, value, rival_value, (at, at) if found is None else (found[0], found[1]))
