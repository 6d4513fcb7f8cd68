"""Answers as rows of a partition: for classifiers those of `Prediction`, for objects, class maps and labels those of `Found.to_dict`."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from convmix.inference.dense_prediction import found_in
from convmix.inference.prediction import arrow_schema, prediction
from convmix.inference.prediction_files import label_schema
from convmix.inference.predictor import Answer, Result
from convmix.results import Boxes, Classes, ImageLabels, Masks, SemanticMap

if TYPE_CHECKING:
    import pyarrow as pa


def schema(kind: type[Result], labels: tuple[str, ...]) -> "pa.Schema":
    """The columns for results of this type."""
    import pyarrow as pa

    if kind is Classes:
        return arrow_schema()
    if kind is ImageLabels:
        return label_schema(labels)
    if kind is SemanticMap:
        answer = [("shares", pa.struct([(label, pa.float64()) for label in labels])), ("certainty", pa.float64())]
    else:
        found = [("label", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))]
        if kind is Masks:
            found.append(("segmentation", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])))
        answer = [("objects", pa.list_(pa.struct(found)))]
    return pa.schema([("name", pa.string()), ("size", pa.list_(pa.int32())), *answer, ("error", pa.string())])


def row(kind: type[Result], name: str, answer: Answer, *, top: int) -> dict[str, Any]:
    """One image's row, of an image without an answer too."""
    return prediction(name, answer, top=top).to_dict() if kind is Classes else found_in(name, answer).to_dict()


def labels_in(answer: Answer) -> Counter[str]:
    """What is counted per label: the image's class or labels, the objects in it, or the classes its map holds."""
    result = answer.result
    if isinstance(result, Classes):
        return Counter(label for [(label, _), *_] in result.top(1))
    if isinstance(result, ImageLabels):
        return Counter(label for label, _ in result.said())
    if isinstance(result, Boxes):
        return Counter(result.labels[c] for c in result.columns.tolist())
    if isinstance(result, SemanticMap):
        return Counter(label for label, share in zip(result.labels, result.shares.tolist(), strict=True) if share > 0)
    return Counter()
