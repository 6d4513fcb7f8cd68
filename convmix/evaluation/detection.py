"""How good a run is at finding objects: COCO's scores, what goes wrong, and the images where most does.

what was found + the truth -> detection_metrics, mistakes -> ObjectsEvaluation -> JSON, CSV, page
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmix.artifacts.artifact import Artifact
from convmix.atomic import write_csv, write_json
from convmix.data.targets import Objects
from convmix.evaluation.dense_page import Originals
from convmix.evaluation.dense_result import NO_GROUPS, Difference, Groups, ObjectsEvaluation, ScoredObjects, SizeRecall
from convmix.evaluation.detection_page import write_page
from convmix.evaluation.intervals import ENDS
from convmix.evaluation.prediction_errors import KINDS, MISSED, RIGHT, ErrorCounts, outcome
from convmix.evaluation.selection import Selection
from convmix.metrics.calibration import expected_calibration_error, reliability
from convmix.metrics.classification import wilson_interval
from convmix.metrics.detection import detection_metrics, precision_recall, resamples, scores
from convmix.metrics.matching import AREAS, match, true_areas
from convmix.metrics.score_calibration import scores_and_truth
from convmix.results import Boxes, Masks

_WITHOUT_THRESHOLD = 0.5  # the score from which answers are looked at of a class of which nothing is right
_COLUMNS = ("name", "objects", "found", "right", *(kind.replace(" ", "_") for kind in KINDS), "missed", "f1", "mean_iou")


def evaluate_objects(
    artifact: Artifact,
    selection: Selection,
    found: Sequence[Boxes],
    truths: Sequence[Objects],
    *,
    bad: Sequence[tuple[str, str]],
    notes: Sequence[str],
    output: Path,
    indices: Sequence[int] | None = None,
    against: tuple[str, Sequence[Boxes]] | None = None,
    groups: Groups = NO_GROUPS,
) -> ObjectsEvaluation:
    """Score what a run found in n images, and write `output` (JSON) with a CSV, a page and its pictures beside it.

    found: every answer however unsure, in pixels of the upright images. truths: with the run's labels.
    bad: (name, reason) of images that could not be read. indices: n positions in the selection (None: all of it, in order).
    against: another run's directory, and what it found in the same images.
    Outlines are scored beside the boxes where both sides have them. Raises ValueError for no images.
    """
    labels, places = artifact.labels, [int(i) for i in (range(len(found)) if indices is None else indices)]
    masks = all(isinstance(f, Masks) for f in found) and all(t.masks is not None for t in truths)
    metrics = detection_metrics(found, truths, labels, masks=masks)
    shown = [_worth_showing(f, metrics, masks=masks) for f in found]
    outcomes = [outcome(f, t, masks=masks) for f, t in zip(shown, truths, strict=True)]
    names = selection.examples.names
    sure, right = scores_and_truth(found, truths, len(labels), masks=masks)
    result = ObjectsEvaluation(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        metrics=metrics,
        left_out=selection.left_out,
        bad=tuple(bad),
        notes=tuple(notes),
        output=output,
        by_outline=masks,
        images=tuple(_scored(names[i], o) for i, o in zip(places, outcomes, strict=True)),
        mistakes=_by_class(shown, truths, outcomes, labels),
        sizes=_by_size(truths, outcomes),
        reliability=tuple(reliability(sure, right)) if len(sure) else (),
        calibration_error=expected_calibration_error(sure, right) if len(sure) else None,
        calibrated=artifact.calibration is not None,
        against=_difference(*against, found, truths, num_classes=len(labels), masks=masks) if against else None,
        groups=groups,
    )
    write_json(output, result.to_dict())
    rows = [(i.name, i.objects, i.found, i.right, *i.mistakes.values(), i.missed, i.f1, i.mean_iou) for i in result.images]
    write_csv(output.with_suffix(".csv"), _COLUMNS, rows)
    originals = Originals(
        selection.examples, places, max_pixels=artifact.preprocess.max_pixels, value_range=artifact.preprocess.value_range
    )
    write_page(result, precision_recall(found, truths, labels, masks=masks), shown, truths, originals)
    return result


def _worth_showing(found: Boxes, metrics: dict[str, Any], *, masks: bool) -> Boxes:
    """The answers whose score reaches the threshold where F1 of their class is highest."""
    thresholds = [scores["mask_threshold" if masks else "threshold"] for scores in metrics["per_class"].values()]
    least = torch.tensor([_WITHOUT_THRESHOLD if t is None else t for t in thresholds], dtype=torch.float64)
    return found.take(found.scores.double() >= least[found.columns])


def _scored(name: str, o: ErrorCounts) -> ScoredObjects:
    mistakes = {kind: o.kinds.count(kind) for kind in KINDS}
    return ScoredObjects(name, o.objects, o.answers, o.right, mistakes, o.missed, o.f1, o.mean_iou)


def _by_class(
    found: Sequence[Boxes], truths: Sequence[Objects], outcomes: Sequence[ErrorCounts], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Class -> RIGHT, KINDS by the class that is said, MISSED by the class that is true -> how many."""
    counts = [Counter[str]() for _ in labels]
    for f, t, o in zip(found, truths, outcomes, strict=True):
        for column, kind in zip(f.columns.tolist(), o.kinds, strict=True):
            counts[column][kind] += 1
        for label in t.labels[o.counted & ~o.touched].tolist():
            counts[label][MISSED] += 1
    return {name: {kind: of_class[kind] for kind in (RIGHT, *KINDS, MISSED)} for name, of_class in zip(labels, counts, strict=True)}


def _by_size(truths: Sequence[Objects], outcomes: Sequence[ErrorCounts]) -> tuple[SizeRecall, ...]:
    """Recall by the area of the true objects; a size without any is left out."""
    area = np.concatenate([true_areas(t)[o.counted] for t, o in zip(truths, outcomes, strict=True)])
    hit = np.concatenate([o.found[o.counted] for o in outcomes])
    rows = []
    for size, (low, high) in AREAS.items():
        of_size = (area >= low) & (area < high)
        if size != "all" and of_size.any():
            objects, hits = int(of_size.sum()), int(hit[of_size].sum())
            rows.append(SizeRecall(size, objects, hits, hits / objects, wilson_interval(hits, objects)))
    return tuple(rows)


def _difference(
    rival: str, rival_found: Sequence[Boxes], found: Sequence[Boxes], truths: Sequence[Objects], *, num_classes: int, masks: bool
) -> Difference:
    """Paired bootstrap over the images: both runs are scored on the same resamples."""
    ours, theirs = (match(each, truths, num_classes, masks=masks) for each in (found, rival_found))
    whole = np.ones((1, len(truths)), np.int64)
    weights = resamples(len(truths), max(sum(map(len, ours)), sum(map(len, theirs))))
    value, rival_value = (float(scores(m, whole)["ap50"][0]) for m in (ours, theirs))
    drawn = scores(ours, weights)["ap50"] - scores(theirs, weights)["ap50"]
    low, high = np.percentile(drawn[~np.isnan(drawn)], ENDS)
    name = "mask AP50" if masks else "AP50"
    return Difference(rival, name, len(truths), value, rival_value, (float(low), float(high)))
