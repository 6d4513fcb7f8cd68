"""Features to go: what a model knows of images before its classifier, for any program; and a run's training images as such.

    files -> preprocessing of the model -> network without classifier -> a row per file: name, features, error -> parquet
    a run -> its training and validation images, found again -> Neighbours, kept in the model directory

`neighbours.safetensors` is written here where a training did not leave it.
"""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.artifacts.provenance import examples_of
from convmix.atomic import write_tensors
from convmix.data.formats import printable
from convmix.data.loaders import default_workers, eval_batches
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError, RunError
from convmix.inference.batches import resolve
from convmix.inference.file_names import Files, find_files
from convmix.inference.prediction_files import opened
from convmix.models import catalog, weights
from convmix.models.expected_input import expected_input
from convmix.models.features import extract, gives_features
from convmix.models.neighbours import FILE, Neighbours, digest_of_weights, make_neighbours, read_neighbours
from convmix.models.published_files import fetch, place_of
from convmix.results import Classes
from convmix.tasks import task_class

MANY_FILES = 10_000  # from which a job that does not ask for the nearest images goes to the fastest engine, which gives no features
MOST = 20_000  # training images that are kept


@dataclass(frozen=True)
class Embedding:
    """What a model knows of one file, or why it knows nothing."""

    name: str  # as the user gave it
    features: tuple[float, ...] | None  # None: see `error`
    error: str | None = None


def embed(
    model: str | Path | Artifact,
    files: Sequence[str | Path],
    *,
    weights_file: str | Path | None = None,
    output: str | Path | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
    workers: int | None = None,
) -> list[Embedding]:
    """The features of every file, in the order given: the numbers that the model's classifier gets, of the plain view.

    model: a model directory, or the name of a model, ours or timm's, with published weights or those of `weights_file`.
    files: as in `predict`. output: a parquet file with the columns name, features (float32) and error ('-': standard output).

    An image that cannot be read is a row with its error. Raises ConfigError for settings that do not exist, ModelError and WeightsError
    for a name without weights, RunError for a directory that holds no model.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is too small, expected at least 1")
    if output is not None and os.fspath(output) != "-" and Path(output).suffix.lower() != ".parquet":
        raise ConfigError(f"output: {output} does not end in .parquet, which is what features are written as")
    if precision == "int8":
        raise ConfigError("precision: int8 gives no features; take fp32, bf16 or fp16")
    where, how = resolve(device, precision)
    network, preprocess = _network(model, weights_file)
    found = Files(tuple(find_files(files)))
    if workers is None:
        workers = default_workers() if len(found) > batch_size else 0
    rows: dict[int, Embedding] = {}
    batches = eval_batches(found, preprocess, batch_size=batch_size, workers=workers)
    features = extract(network.to(where), batches, device=where, precision=how)
    rows |= {i: Embedding(found.names[i], None, reason) for i, reason in features.bad}
    if len(features):
        rows |= {i: Embedding(found.names[i], tuple(x)) for i, x in zip(features.indices.tolist(), features.main.tolist(), strict=True)}
    answers = [rows[i] for i in sorted(rows)]
    if output is not None:
        with opened(output) as file:
            file.write(_parquet(answers))
    return answers


def _network(model: str | Path | Artifact, weights_file: str | Path | None) -> tuple[nn.Module, Preprocess]:
    """A network with its classifier, and how images are prepared for it."""
    if isinstance(model, Artifact) or Path(model).is_dir():
        artifact = model if isinstance(model, Artifact) else load_artifact(model)
        if weights_file is not None:
            raise ConfigError(f"weights: {artifact.path} has its own; give the name of a model to use those of {weights_file}")
        if artifact.engine is not None or task_class(artifact.task).result is not Classes:
            raise RunError(f"{artifact.path} gives no features: embed takes the run of a classifier, not exported")
        return artifact.model, artifact.preprocess
    return published_network(str(model), weights_file)


def published_network(name: str, weights_file: str | Path | None) -> tuple[nn.Module, Preprocess]:
    """A model by its name with the weights of the file, else its published ones, and the preprocessing that they bring.

    Raises RunError for a path, ModelError and WeightsError for a name without weights.
    """
    if os.sep in name or name.startswith("."):
        raise RunError(
            f"{name} is not a model directory: there is no such folder; give one that `convmix train` made, or the name of a model"
        )
    catalog.check_name(name)
    expected = expected_input(name, weights_file)
    if weights_file is not None:
        network = catalog.create_model(name, num_classes=1000)
        weights.load_weights(network, weights_file)
    else:
        place = place_of(name)
        if place is not None:
            fetch(place, say=lambda text: print(text, file=sys.stderr))
        network = catalog.create_model(name, pretrained=True)
    preprocess = Preprocess(
        size=expected.size or (224, 224), fit=expected.fit or "crop", interpolation=expected.interpolation or "bicubic",
        crop_pct=expected.crop_pct or 0.9, mean=expected.mean, std=expected.std,
    )  # fmt: skip
    return network, preprocess


def _parquet(rows: Sequence[Embedding]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("name", pa.string()), ("features", pa.list_(pa.float32())), ("error", pa.string())])
    values = [{"name": printable(r.name), "features": r.features, "error": r.error} for r in rows]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values, schema=schema), sink)
    return sink.getvalue()


def neighbours_for(artifact: Artifact, files: int, *, nearest: int, plain: bool) -> Neighbours | None:
    """The training images of a classifier's run, where a job of so many files is to be told of them.

    nearest: how many of them are to be named; they are then sought where the run does not know them yet. plain: whether the job may run in
    PyTorch, which alone gives features; ConfigError where it may not and they are asked for.
    """
    usable = plain and gives_features(artifact.model)
    if not nearest:
        return known_images(artifact) if usable and files <= MANY_FILES else None
    if not usable or artifact.engine is not None:
        raise ConfigError(f"nearest: {artifact.path} gives no features so; give the run itself, without int8 and without optimize always")
    return known_images(artifact) or index_run(artifact)


def known_images(artifact: Artifact) -> Neighbours | None:
    """The training images as a model directory or an export has them at hand."""
    return read_neighbours(artifact.path, exported=artifact.info if artifact.engine else None)


def index_run(artifact: Artifact) -> Neighbours:
    """Find the run's training images again, and keep their features in its directory. DataError where they are gone."""
    device, precision = resolve(None, "auto")
    train, labels, names = _features_of(artifact, "train", device, precision)
    has_val = any(count for split, count in artifact.info["data"]["counts"].items() if split == "val")
    val = _features_of(artifact, "val", device, precision)[0] if has_val else None
    found = make_neighbours(train, labels, names, val, weights=digest_of_weights(artifact.path))
    write_tensors(artifact.path / FILE, *found.tensors())
    return found


def _features_of(artifact: Artifact, split: str, device: torch.device, precision: str) -> tuple[Tensor, Tensor, list[str]]:
    """n,d; n labels as the run numbers them; n names."""
    features, labels, names = [], [], []
    for part in examples_of(artifact, split, at_most=MOST):
        columns = torch.tensor([artifact.labels.index(part.classes[c]) for c in part.labels], dtype=torch.int64)
        taken = extract(
            artifact.model.to(device), eval_batches(part, artifact.preprocess, batch_size=32), device=device, precision=precision
        )
        features.append(taken.main)
        labels.append(columns[taken.indices])
        names += [part.name(i) for i in taken.indices.tolist()]
    return torch.cat(features), torch.cat(labels), names
