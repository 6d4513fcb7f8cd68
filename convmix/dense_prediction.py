"""Objects and class maps for files, batch by batch; a broken image becomes a row that says why.

files -> the task's preprocessing -> network -> Boxes | Masks | SemanticMap in the image's own pixels -> Found -> files
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from convmix.artifact import Artifact
from convmix.calibration import check_threshold
from convmix.data.loaders import default_workers, eval_batches
from convmix.errors import ConfigError
from convmix.files import Files, find_files
from convmix.inference import resolve, run_model
from convmix.prediction_files import Found, common_folder, output_format, write
from convmix.tasks import create_task
from convmix.tasks.base import Task


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
    workers: int | None,
    recursive: bool,
) -> list[Found]:
    """`prediction.predict` for the tasks whose answers are places in the image; with an output the rows come back without results.

    threshold: objects with a smaller score are left out (None: one half).
    """
    task = create_task(artifact.task, artifact.labels, artifact.calibration)
    form = output_format(format, output, kind=task.result)
    for name, value, low in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < low:
            raise ConfigError(f"{name}: {value} is too small, expected at least {low}")
    if threshold is not None:
        check_threshold(threshold)
    where, how = resolve(device, precision)
    if how == "int8":
        raise ConfigError(
            f"precision: int8 exists for classifiers alone, and {artifact.path} is for the task {task.name}; take bf16 or fp32"
        )
    found = Files(tuple(find_files(files, recursive=recursive)))
    workers = (default_workers() if len(found) > batch_size else 0) if workers is None else workers
    stream = _stream(artifact, task, found, threshold=threshold, batch_size=batch_size, device=where, precision=how, workers=workers)
    if output is None:
        return list(stream)
    rows: list[Found] = []

    def watched() -> Iterator[Found]:
        for row in stream:
            rows.append(row if os.fspath(output) == "-" else Found(row.name, row.path, None, row.error))
            yield row

    write(
        watched(), kind=task.result, format=form, output=output, labels=artifact.labels, root=common_folder(found.names),
        max_pixels=artifact.preprocess.max_pixels,
    )  # fmt: skip
    return rows


def _stream(
    artifact: Artifact,
    task: Task,
    files: Files,
    *,
    threshold: float | None,
    batch_size: int,
    device: torch.device,
    precision: str,
    workers: int,
) -> Iterator[Found]:
    model = artifact.model.to(device)
    loads = task.preprocessing(artifact.preprocess)
    for batch in eval_batches(files, loads, batch_size=batch_size, workers=workers):
        outputs = run_model(model, [batch], device=device, precision=precision, observe=task.observe)
        rows = {i: Found(files.names[i], files.names[i], None, error=reason) for i, reason in outputs.bad}
        results: list[Any] = task.decode(outputs.values, threshold=threshold) if len(outputs.indices) else []
        for i, result in zip(outputs.indices.tolist(), results, strict=True):
            rows[i] = Found(files.names[i], files.names[i], result)
        yield from (rows[i] for i in sorted(rows))
