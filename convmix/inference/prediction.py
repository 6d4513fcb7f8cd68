"""Labels with probabilities for files, batch by batch; a broken image becomes a row that says why.

files -> Preprocess of the model directory -> model -> calibrated probabilities -> Prediction -> table, CSV, JSON lines, JSON or parquet
"""

import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.atomic import csv_line
from convmix.data.formats import printable
from convmix.data.loaders import default_workers, eval_batches
from convmix.errors import ConfigError, did_you_mean
from convmix.inference.batches import resolve
from convmix.inference.dense_prediction import predict_dense
from convmix.inference.file_names import Files, find_files
from convmix.inference.prediction_files import DetectionFile, opened, visible
from convmix.inference.predictor import Answer, Predictor
from convmix.metrics.calibration import check_threshold
from convmix.results import Classes
from convmix.tasks import task_class

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

FORMATS = ("table", "csv", "csv-raw", "jsonl", "json", "parquet")
_SUFFIXES = {
    "": "table", ".txt": "table", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """What the model says about one file, or why it cannot."""

    name: str  # as the user gave it
    label: str | None  # None: see `error`
    probability: float | None  # of `label`, 0..1
    alternatives: tuple[tuple[str, float], ...] = ()  # the next most probable (label, probability), best first
    error: str | None = None
    sure: bool | None = True  # whether `probability` reaches the run's threshold; None: see `error`

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a name that is no UTF-8 has its odd bytes as \\xNN."""
        return {
            "name": printable(self.name),
            "label": self.label,
            "probability": self.probability,
            "sure": self.sure,
            "alternatives": [{"label": label, "probability": p} for label, p in self.alternatives],
            "error": self.error,
        }


def predict(
    run: str | Path | Artifact,
    files: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    format: str | None = None,
    top: int = 1,
    threshold: float | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    workers: int | None = None,
    recursive: bool = True,
) -> list[Prediction] | list[DetectionFile]:
    """Label every file, in the order given, duplicates kept; or say its labels, objects, or the class of every pixel, as the task is.

    run: a model directory, or one already loaded.
    files: files, folders, quoted patterns; '-' reads names from standard input.
    output: where the rows are written ('-': standard output; None: nowhere); the file appears when it is complete.
    format: table, csv (csv-raw: names and labels as they are, see `artifact.csv_line`),
    jsonl, json or parquet; of objects and class maps `prediction_files.FORMATS`: coco, voc, masks, pictures ...;
    None: by the output's suffix.
    top: labels per image, the most probable first; for classifiers.
    threshold: an image whose best probability is below it is "not sure"; None: the threshold that `convmix calibrate` stored, if any.
    Objects with a smaller score are left out; None: 0.5. Labels with a smaller probability are not said of an image that may have several;
    None: each label's own threshold.
    device, precision: where and how to compute; None and auto: what this machine is best at.
    optimize: auto, always or never run the model in the fastest engine that `convmix.optimize` finds; auto: where that ends sooner.
    workers: processes that decode (None: by the number of cores).
    recursive: whether folders inside a folder count.

    An image that cannot be read is a row with its error. Raises RunError for a directory that holds no model, DataError where no
    file matches, ConfigError for settings that do not exist.
    """
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if task_class(artifact.task).result is not Classes:
        return predict_dense(
            artifact, files, output=output, format=format, threshold=threshold, batch_size=batch_size, device=device,
            precision=precision, optimize=optimize, workers=workers, recursive=recursive,
        )  # fmt: skip
    form = output_format(format, output)
    stream = predict_stream(
        artifact,
        files,
        top=top,
        threshold=threshold,
        batch_size=batch_size,
        device=device,
        precision=precision,
        optimize=optimize,
        workers=workers,
        recursive=recursive,
    )
    if output is None:
        return list(stream)
    predictions: list[Prediction] = []

    def kept() -> Iterator[Prediction]:
        for prediction in stream:
            predictions.append(prediction)
            yield prediction

    with opened(output) as file:
        for part in encode(kept(), format=form, top=top, is_terminal=file.isatty()):
            file.write(part)
            if os.fspath(output) == "-":
                file.flush()
    return predictions


def predict_stream(
    run: str | Path | Artifact,
    files: Sequence[str | Path],
    *,
    top: int = 1,
    threshold: float | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    workers: int | None = None,
    recursive: bool = True,
) -> Iterator[Prediction]:
    """`predict` one row at a time; a few batches of images are in memory at once, however many files there are."""
    for name, value, low in (("top", top, 1), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < low:
            raise ConfigError(f"{name}: {value} is too small, expected at least {low}")
    if threshold is not None:
        check_threshold(threshold)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if task_class(artifact.task).result is not Classes:
        raise ConfigError(f"{artifact.path} is for the task {artifact.task}; rows of labels are what classifiers give, use predict")
    resolve(device, precision)  # a mistake is said before any file is looked for
    found = Files(tuple(find_files(files, recursive=recursive)))
    if workers is None:
        workers = default_workers() if len(found) > batch_size else 0  # one batch is read sooner than a process starts
    predictor = Predictor(artifact, images=len(found), batch_size=batch_size, device=device, precision=precision, optimize=optimize)
    return _stream(predictor, found, top=top, threshold=threshold, workers=workers)


def _stream(predictor: Predictor, files: Files, *, top: int, threshold: float | None, workers: int) -> Iterator[Prediction]:
    for batch in eval_batches(files, predictor.loads, batch_size=predictor.batch_size, workers=workers):
        answers = predictor.answer_batch(batch, threshold=threshold)
        yield from (prediction(files.names[i], answers[i], top=top) for i in sorted(answers))


def prediction(name: str, answer: Answer, *, top: int = 1) -> Prediction:
    """A classifier's answer to the image of this name, as a row."""
    if not isinstance(answer.result, Classes):
        return Prediction(name, None, None, error=answer.error, sure=None)
    [((label, probability), *others)] = answer.result.top(top)
    return Prediction(name, label, probability, tuple(others), sure=bool(answer.result.sure))


def output_format(format: str | None, output: str | Path | None) -> str:
    """The format to write; raises ConfigError for one that does not exist or that the suffix does not tell."""
    if format is not None:
        if format not in FORMATS:
            raise ConfigError(f"format: {format} is not one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
        return format
    suffix = "" if output is None or os.fspath(output) == "-" else Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigError(
            f"output: {output} has the unknown suffix {suffix}; end it in {', '.join(s for s in _SUFFIXES if s)} or give format"
        )
    return _SUFFIXES[suffix]


def encode(predictions: Iterable[Prediction], *, format: str, top: int = 1, is_terminal: bool = False) -> Iterator[bytes]:
    """The rows in one of `FORMATS`, part by part; `top` is the number of labels that a CSV row has room for."""
    if format in ("csv", "csv-raw"):
        raw, numbers = format == "csv-raw", range(2, top + 1)
        yield csv_line(["name", "label", "probability", "sure", *(f"{c}_{i}" for i in numbers for c in ("label", "probability")), "error"])
        for p in predictions:
            others: list[object] = [value for pair in p.alternatives[: top - 1] for value in pair]
            others += [None] * (2 * (top - 1) - len(others))
            sure = None if p.sure is None else str(p.sure).lower()
            yield csv_line([printable(p.name), p.label, p.probability, sure, *others, p.error], raw=raw)
    elif format == "jsonl":
        for p in predictions:
            yield (json.dumps(p.to_dict(), ensure_ascii=False) + "\n").encode()
    elif format == "json":
        before = "[\n"
        for p in predictions:
            yield (before + json.dumps(p.to_dict(), ensure_ascii=False)).encode()
            before = ",\n"
        yield b"\n]\n" if before == ",\n" else b"[]\n"
    elif format == "parquet":
        yield _parquet(predictions)
    else:
        from rich.console import Console

        text = io.StringIO()
        width = None if is_terminal else 100_000  # a table in a file is as wide as its longest name
        Console(file=text, width=width, force_terminal=is_terminal).print(table(list(predictions)))
        yield text.getvalue().encode()


def table(predictions: Sequence[Prediction]) -> "Table":
    """The rows for a terminal."""
    from rich.table import Table
    from rich.text import Text

    columns = 1 + max((len(p.alternatives) for p in predictions), default=0)
    has_errors = any(p.error for p in predictions)
    result = Table(box=None, header_style="bold", pad_edge=False)
    result.add_column("file", overflow="fold")
    for i in range(1, columns + 1):
        result.add_column("label" if i == 1 else f"{i}.", overflow="fold")
        result.add_column("probability" if i == 1 else "", justify="right")
    if has_errors:
        result.add_column("error", style="red", overflow="fold")
    for p in predictions:
        pairs = [] if p.label is None or p.probability is None else [(p.label, p.probability), *p.alternatives]
        cells = [cell for label, share in pairs for cell in (Text(visible(label)), Text(_percent(share)))]
        if cells and not p.sure:
            cells[0] = Text(f"not sure ({visible(pairs[0][0])})", style="yellow")
        cells += [Text("")] * (2 * columns - len(cells))
        result.add_row(Text(visible(printable(p.name))), *cells, *([Text(p.error or "")] if has_errors else []))
    return result


def _percent(share: float) -> str:
    return f"{math.floor(1000 * share) / 10:.1f} %"  # rounded down: 100.0 % is said of certainty alone


def arrow_schema() -> "pa.Schema":
    """The columns of `Prediction.to_dict` in a parquet file."""
    import pyarrow as pa

    pair = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    columns = [("name", pa.string()), ("label", pa.string()), ("probability", pa.float64()), ("sure", pa.bool_())]
    return pa.schema([*columns, ("alternatives", pa.list_(pair)), ("error", pa.string())])


def _parquet(predictions: Iterable[Prediction]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([p.to_dict() for p in predictions], schema=arrow_schema()), sink)
    return sink.getvalue()
