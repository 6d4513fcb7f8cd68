"""Labels with probabilities for files, batch by batch; a broken image becomes a row that says why.

files -> Preprocess of the model directory -> model -> calibrated probabilities -> Prediction -> table, CSV, JSON lines, JSON or parquet
"""

import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.atomic import csv_line
from convmix.data.formats import printable
from convmix.data.loaders import default_workers, eval_batches
from convmix.errors import ConfigError
from convmix.inference.batches import resolve
from convmix.inference.dense_prediction import predict_dense
from convmix.inference.embedding import neighbours_for
from convmix.inference.file_names import Files, find_files
from convmix.inference.output_forms import output_format
from convmix.inference.prediction_files import DetectionFile, opened, visible
from convmix.inference.predictor import Answer, Predictor
from convmix.metrics.calibration import check_threshold
from convmix.results import Classes
from convmix.tasks import task_class

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table


@dataclass(frozen=True)
class Prediction:
    """What the model says about one file, or why it cannot."""

    name: str  # as the user gave it
    label: str | None  # None: see `error`
    probability: float | None  # of `label`, 0..1
    alternatives: tuple[tuple[str, float], ...] = ()  # the next most probable (label, probability), best first
    error: str | None = None
    sure: bool | None = True  # whether `probability` reaches the run's threshold; None: see `error`
    unlike: bool | None = None  # whether the image is unlike the training images; None: not known
    distance: float | None = None  # to the training images, see `models.neighbours`
    nearest: tuple[tuple[str, str, float], ...] = ()  # training images: name, label and cosine, the nearest first; where asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a name that is no UTF-8 has its odd bytes as \\xNN."""
        return {
            "name": printable(self.name),
            "label": self.label,
            "probability": self.probability,
            "sure": self.sure,
            "alternatives": [{"label": label, "probability": p} for label, p in self.alternatives],
            "error": self.error,
            **({} if self.unlike is None else {"unlike": self.unlike, "distance": self.distance}),
            **({"nearest": [{"name": printable(n), "label": label, "cosine": c} for n, label, c in self.nearest]} if self.nearest else {}),
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
    nearest: int = 0,
) -> list[Prediction] | list[DetectionFile]:
    """Label every file, in the order given, duplicates kept; or say its labels, objects, or the class of every pixel, as the task is.

    run: a model directory, or one already loaded.
    files: files, folders, quoted patterns; '-' reads names from standard input.
    output: where the rows are written ('-': standard output; None: nowhere); the file appears when it is complete.
    format: of classes and labels table, csv (csv-raw: names and labels that a spreadsheet would compute), jsonl, json or parquet; of
    objects and class maps also coco, voc, masks and pictures, as far as the task has them. None: by the output's suffix.
    top: labels per image, the most probable first; for classifiers.
    threshold: an image whose best probability is below it is "not sure"; None: the threshold that `convmix calibrate` stored, if any.
    Objects with a smaller score are left out; None: 0.5. Labels with a smaller probability are not said of an image that may have several;
    None: each label's own threshold.
    batch_size: images that are computed at once.
    device: cpu, cuda or mps; None: what this machine is best at.
    precision: auto (what this machine is best at), fp32, bf16, fp16 or int8.
    optimize: auto, always or never run the model in the fastest engine that `convmix.optimize` finds; auto: where that ends sooner.
    workers: processes that decode (None: by the number of cores).
    recursive: whether folders inside a folder count.
    nearest: so many of the training images that look most alike to the model, for every image; of classifiers.

    A run that knows the features of its training images (those that started from weights do) also says which images are unlike all of them.
    An image that cannot be read is a row with its error. Raises RunError for a directory that holds no model, DataError where no
    file matches, ConfigError for settings that do not exist.
    """
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if not task_class(artifact.task).single_label:
        if nearest:
            raise ConfigError(f"nearest is for classifiers, and {artifact.path} is for the task {artifact.task}; leave it out")
        return predict_dense(
            artifact, files, output=output, format=format, threshold=threshold, batch_size=batch_size, device=device,
            precision=precision, optimize=optimize, workers=workers, recursive=recursive,
        )  # fmt: skip
    form = output_format(format, output, kind=Classes)
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
        nearest=nearest,
    )
    if output is None:
        return list(stream)
    predictions: list[Prediction] = []

    def kept() -> Iterator[Prediction]:
        for prediction in stream:
            predictions.append(prediction)
            yield prediction

    with opened(output) as file:
        for part in encode(kept(), format=form, top=top, is_terminal=file.isatty(), nearest=nearest):
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
    nearest: int = 0,
) -> Iterator[Prediction]:
    """`predict` one row at a time; a few batches of images are in memory at once, however many files there are."""
    for name, value, low in (("top", top, 1), ("batch_size", batch_size, 1), ("workers", workers, 0), ("nearest", nearest, 0)):
        if value is not None and value < low:
            raise ConfigError(f"{name}: {value} is too small, expected at least {low}")
    if threshold is not None:
        check_threshold(threshold)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    if not task_class(artifact.task).single_label:
        raise ConfigError(f"{artifact.path} is for the task {artifact.task}; rows of labels are what classifiers give, use predict")
    resolve(device, precision)  # a mistake is said before any file is looked for
    found = Files(tuple(find_files(files, recursive=recursive)))
    if workers is None:
        workers = default_workers() if len(found) > batch_size else 0  # one batch is read sooner than a process starts
    neighbours = neighbours_for(artifact, len(found), nearest=nearest, plain=optimize != "always" and precision != "int8")
    predictor = Predictor(
        artifact, images=len(found), batch_size=batch_size, device=device, precision=precision, optimize=optimize, neighbours=neighbours,
        nearest=nearest,
    )  # fmt: skip
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
    like = answer.likeness
    return Prediction(
        name, label, probability, tuple(others), sure=bool(answer.result.sure), unlike=None if like is None else like.unlike,
        distance=None if like is None else like.distance, nearest=() if like is None else like.nearest,
    )  # fmt: skip


def encode(predictions: Iterable[Prediction], *, format: str, top: int = 1, is_terminal: bool = False, nearest: int = 0) -> Iterator[bytes]:
    """The rows in one of `output_forms.FORMATS`, part by part; `top` and `nearest` are the numbers of labels and training images that a
    CSV row has room for. Columns about the training images are there where the first row with an answer knows of them."""
    if format in ("csv", "csv-raw", "parquet"):
        known, predictions = _know_training_images(predictions)
    if format in ("csv", "csv-raw"):
        raw, numbers = format == "csv-raw", range(2, top + 1)
        like = [*(["unlike", "distance"] if known else []), *(f"{c}_{i + 1}" for i in range(nearest) for c in ("nearest", "cosine"))]
        more = [f"{c}_{i}" for i in numbers for c in ("label", "probability")]
        yield csv_line(["name", "label", "probability", "sure", *more, *like, "error"])
        for p in predictions:
            others: list[object] = [value for pair in p.alternatives[: top - 1] for value in pair]
            others += [None] * (2 * (top - 1) - len(others))
            sure = None if p.sure is None else str(p.sure).lower()
            about: list[object] = [None if p.unlike is None else str(p.unlike).lower(), p.distance] if known else []
            near: list[object] = [value for name, _, cosine in p.nearest for value in (printable(name), cosine)]
            near += [None] * (2 * nearest - len(near))
            yield csv_line([printable(p.name), p.label, p.probability, sure, *others, *about, *near, p.error], raw=raw)
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
        yield _parquet(predictions, known=known)
    else:
        from rich.console import Console

        text = io.StringIO()
        width = None if is_terminal else 100_000  # a table in a file is as wide as its longest name
        Console(file=text, width=width, force_terminal=is_terminal).print(table(list(predictions)))
        yield text.getvalue().encode()


def _know_training_images(predictions: Iterable[Prediction]) -> tuple[bool, Iterable[Prediction]]:
    """Whether the rows say how like the training images an image is, and the rows, some of which had to be looked at for that."""
    rest, first = iter(predictions), []
    for p in rest:
        first.append(p)
        if p.error is None:
            return p.unlike is not None, chain(first, rest)
    return False, first


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
    if near := any(p.nearest for p in predictions):
        result.add_column("nearest training images", overflow="fold")
    if has_errors:
        result.add_column("error", style="red", overflow="fold")
    for p in predictions:
        pairs = [] if p.label is None or p.probability is None else [(p.label, p.probability), *p.alternatives]
        cells = [cell for label, share in pairs for cell in (Text(visible(label)), Text(_percent(share)))]
        if cells and p.unlike:
            cells[0] = Text(f"unlike the training images ({visible(pairs[0][0])})", style="yellow")
        elif cells and not p.sure:
            cells[0] = Text(f"not sure ({visible(pairs[0][0])})", style="yellow")
        cells += [Text("")] * (2 * columns - len(cells))
        if near:
            cells.append(Text(", ".join(f"{visible(printable(name))} ({visible(label)} {c:.2f})" for name, label, c in p.nearest)))
        result.add_row(Text(visible(printable(p.name))), *cells, *([Text(p.error or "")] if has_errors else []))
    return result


def _percent(share: float) -> str:
    return f"{math.floor(1000 * share) / 10:.1f} %"  # rounded down: 100.0 % is said of certainty alone


def arrow_schema(*, likeness: bool = False) -> "pa.Schema":
    """The columns of `Prediction.to_dict` in a parquet file; likeness: those about the training images too."""
    import pyarrow as pa

    pair = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    columns = [("name", pa.string()), ("label", pa.string()), ("probability", pa.float64()), ("sure", pa.bool_())]
    near = pa.struct([("name", pa.string()), ("label", pa.string()), ("cosine", pa.float64())])
    more = [("unlike", pa.bool_()), ("distance", pa.float64()), ("nearest", pa.list_(near))] if likeness else []
    return pa.schema([*columns, ("alternatives", pa.list_(pair)), ("error", pa.string()), *more])


def _parquet(predictions: Iterable[Prediction], *, known: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([p.to_dict() for p in predictions], schema=arrow_schema(likeness=known)), sink)
    return sink.getvalue()
