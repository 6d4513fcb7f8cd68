"""How good a run is at saying a class for every pixel: scores from the confusion of each image, and the images to look at.

maps and truths, one by one -> confusions n,k,k -> segmentation_metrics -> MapsEvaluation -> JSON, CSV, page
"""

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convmix.artifacts.artifact import Artifact
from convmix.atomic import write_csv, write_json
from convmix.errors import DataError
from convmix.evaluation.dense_page import Originals
from convmix.evaluation.dense_result import NO_GROUPS, Difference, Groups, MapsEvaluation, ScoredMap
from convmix.evaluation.intervals import ENDS
from convmix.evaluation.segmentation_page import Example, write_page
from convmix.evaluation.selection import Selection
from convmix.metrics.segmentation import RESAMPLES, confusion, scores, segmentation_metrics, tallies
from convmix.results import SemanticMap

_COLUMNS = ("name", "pixels", "pixel_accuracy", "miou")


@dataclass(frozen=True)
class _Packed:
    """A map that waits for its turn: street scenes take a fiftieth of their pixels, so those of thousands of images fit in memory."""

    data: bytes
    shape: tuple[int, ...]
    kind: np.dtype

    @classmethod
    def of(cls, classes: np.ndarray) -> "_Packed":
        return cls(zlib.compress(classes.tobytes(), 1), classes.shape, classes.dtype)

    def classes(self) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.data), self.kind).reshape(self.shape)


class _Examples:
    """Truth and answer of the images, unpacked as they are asked for."""

    def __init__(self, kept: Sequence[tuple[_Packed, _Packed]], originals: Originals) -> None:
        self.kept, self.originals = kept, originals

    def __call__(self, i: int) -> Example:
        truth, said = (packed.classes() for packed in self.kept[i])
        return Example(self.originals.pixels(i, (truth.shape[0], truth.shape[1])), truth, said)


def evaluate_maps(
    artifact: Artifact,
    selection: Selection,
    maps: Iterable[SemanticMap],
    truths: Iterable[np.ndarray],
    *,
    bad: Sequence[tuple[str, str]],
    notes: Sequence[str],
    output: Path,
    indices: Iterable[int] | None = None,
    against: tuple[str, Iterable[SemanticMap]] | None = None,
    groups: Groups = NO_GROUPS,
) -> MapsEvaluation:
    """Score a run's class maps of n images, and write `output` (JSON) with a CSV, a page and its pictures beside it.

    maps, truths (H,W uint8 with the run's classes, IGNORE where nothing is scored): gone through once, side by side, in step with
    indices, their n positions in the selection (None: all of it, in order). bad and notes are read after that.
    against: another run's directory, and what it says of the same images, gone through in step too.
    Raises DataError where there is no pixel to score.
    """
    labels, names = artifact.labels, selection.examples.names
    rival = against[0] if against else ""
    rival_maps: Iterable[SemanticMap | None] = against[1] if against else itertools.repeat(None)
    confusions, rival_confusions, kept, places = [], [], [], []
    for i, said, truth, other in zip(range(len(names)) if indices is None else indices, maps, truths, rival_maps, strict=False):
        predicted = said.classes.numpy()
        confusions.append(confusion(truth, predicted, len(labels)))
        if other is not None:
            rival_confusions.append(confusion(truth, other.classes.numpy(), len(labels)))
        kept.append((_Packed.of(truth), _Packed.of(predicted)))
        places.append(int(i))
    if not any(counts.any() for counts in confusions):
        raise DataError(f"{selection.data}: there is no pixel to score in its {len(confusions)} images")
    counted = np.stack(confusions)  # n,k,k
    result = MapsEvaluation(
        run=str(artifact.path),
        data=selection.data,
        split=selection.split,
        metrics=segmentation_metrics(counted, labels),
        left_out=selection.left_out,
        bad=tuple(bad),
        notes=tuple(notes),
        output=output,
        images=tuple(_scored(names[i], c) for i, c in zip(places, confusions, strict=True)),
        against=_difference(rival, np.stack(rival_confusions), counted) if against else None,
        groups=groups,
    )
    write_json(output, result.to_dict())
    rows = [(i.name, i.pixels, i.pixel_accuracy, i.miou) for i in result.images]
    write_csv(output.with_suffix(".csv"), _COLUMNS, rows)
    write_page(
        result,
        _Examples(
            kept,
            Originals(selection.examples, places, max_pixels=artifact.preprocess.max_pixels, value_range=artifact.preprocess.value_range),
        ),
    )
    return result


def _scored(name: str, counts: np.ndarray) -> ScoredMap:
    """One image by its confusion, k,k."""
    pixels = int(counts.sum())
    if not pixels:
        return ScoredMap(name, 0, None, None)
    of_image = scores(tallies(counts[None]))
    return ScoredMap(name, pixels, float(of_image["pixel_accuracy"][0]), float(of_image["miou"][0]))


def _difference(rival: str, theirs: np.ndarray, ours: np.ndarray) -> Difference:
    """Paired bootstrap over the images: both runs are scored on the same resamples."""
    n, k, _ = ours.shape
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)  # r,n
    values, drawn = [], []
    for counts in (tallies(ours), tallies(theirs)):
        values.append(float(scores(counts.sum(0, keepdims=True))["miou"][0]))
        drawn.append(scores((weights @ counts.reshape(n, -1)).reshape(-1, 3, k))["miou"])
    difference = drawn[0] - drawn[1]
    low, high = np.percentile(difference[~np.isnan(difference)], ENDS)
    return Difference(rival, "mIoU", n, values[0], values[1], (float(low), float(high)))
