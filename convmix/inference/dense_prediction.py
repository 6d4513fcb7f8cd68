"""Objects, class maps and several labels for files, batch by batch; a broken image becomes a row that says why.

files -> the task's preprocessing -> network -> Boxes | Masks | SemanticMap | ImageLabels -> DetectionFile -> files
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from convmix.artifacts.artifact import Artifact
from convmix.data.coco_ids import read_coco_ids
from convmix.data.loaders import default_workers, eval_batches
from convmix.errors import ConfigError
from convmix.inference.file_names import Files, find_files
from convmix.inference.output_forms import output_format
from convmix.inference.prediction_files import DetectionFile, common_folder, write
from convmix.inference.predictor import Answer, Predictor
from convmix.metrics.calibration import check_threshold
from convmix.results import Classes
from convmix.tasks import task_class


def predict_dense(
    artifact: Artifact,
    files: Sequence[str | Path],
    *,
    output: str | Path | None,
    format: str | None,
    threshold: float | None,
    batch_size: int,
    device: str | None,
    precision: str,
    optimize: str,
    workers: int | None,
    recursive: bool,
) -> list[DetectionFile]:
    """`prediction.predict` for the tasks whose answers are more than one class; with an output the rows come back without results.

    threshold: objects with a smaller score are left out (None: one half), as labels with a smaller probability (None: each label's own).
    """
    kind = task_class(artifact.task).result
    form = output_format(format, output, kind=kind)
    for name, value, low in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < low:
            raise ConfigError(f"{name}: {value} is too small, expected at least {low}")
    if threshold is not None:
        check_threshold(threshold)
    found = Files(tuple(find_files(files, recursive=recursive)))
    workers = (default_workers() if len(found) > batch_size else 0) if workers is None else workers
    predictor = Predictor(artifact, images=len(found), batch_size=batch_size, device=device, precision=precision, optimize=optimize)
    stream = _stream(predictor, found, threshold=threshold, workers=workers)
    if output is None:
        return list(stream)
    rows: list[DetectionFile] = []

    def watched() -> Iterator[DetectionFile]:
        for row in stream:
            rows.append(row if os.fspath(output) == "-" else DetectionFile(row.name, row.path, None, row.error))
            yield row

    write(
        watched(), kind=kind, format=form, output=output, labels=artifact.labels, root=common_folder(found.names),
        max_pixels=artifact.preprocess.max_pixels, value_range=artifact.preprocess.value_range, ids=read_coco_ids(artifact.path),
    )  # fmt: skip
    return rows


def _stream(predictor: Predictor, files: Files, *, threshold: float | None, workers: int) -> Iterator[DetectionFile]:
    for batch in eval_batches(files, predictor.loads, batch_size=predictor.batch_size, workers=workers):
        answers = predictor.answer_batch(batch, threshold=threshold)
        yield from (found_in(files.names[i], answers[i]) for i in sorted(answers))


def found_in(name: str, answer: Answer) -> DetectionFile:
    """The answer to the image of this name, as a row."""
    assert not isinstance(answer.result, Classes)
    return DetectionFile(name, name, answer.result, answer.error)
