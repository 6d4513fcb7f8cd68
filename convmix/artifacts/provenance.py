"""The data that a run was trained on, found again: opened with the run's settings, split as the run recorded it."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from convmix import config
from convmix.artifacts.artifact import Artifact
from convmix.artifacts.runtime.network import ExportedNetwork
from convmix.data.examples import Examples, Source
from convmix.data.scan import digest_of
from convmix.data.sources import open_source
from convmix.errors import DataError, RunError

SPLITS = ("train", "val", "test")
_COLUMNS = {"split", "name", "digest", "label"}
_WORDS = {"train": "training", "val": "validation", "test": "test"}


def home(artifact: Artifact) -> Path | None:
    """The model directory: of an exported model the run that it came from, where that still is where it was."""
    if not isinstance(artifact.model, ExportedNetwork):
        return artifact.path
    source = artifact.model.description.source
    place = None if source is None else artifact.path / source
    return place if place is not None and (place / "convmix.json").is_file() else None


def data_spec(artifact: Artifact) -> str:
    """How the user named the data; RunError where the directory does not say."""
    try:
        return str(artifact.info["data"]["spec"])
    except KeyError as error:
        raise RunError(f"{artifact.path / 'convmix.json'} has no {error.args[0]}; expected a folder that `convmix train` made") from None


def open_data(artifact: Artifact, data: str | Path, *, is_default: bool) -> Source:
    """The data set, read with the settings of the run."""
    try:
        return open_source(data, config.from_dict(artifact.info["run"]).data)
    except KeyError:
        raise RunError(f"{artifact.path / 'convmix.json'} has no run; expected a folder that `convmix train` made") from None
    except DataError as error:
        if is_default:
            raise DataError(f"{error}; the run was trained on {data}: go to the folder it was started in, or name the data") from None
        raise


def recorded_rows(artifact: Artifact) -> list[dict[str, str]]:
    """The images of the run: split, name, digest and label of each. RunError where that is not recorded."""
    place = home(artifact)
    if place is None:
        raise RunError(f"{artifact.path} is an exported model without its run: what it was trained on is not known; name the data")
    path = place / "splits.csv"
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise RunError(f"{artifact.path} has no splits.csv, so the images it was trained on cannot be distinguished from others") from None
    except csv.Error as error:
        raise RunError(f"{path} cannot be read: {error}; expected the columns split, name, digest, label") from None
    if rows and not rows[0].keys() >= _COLUMNS:
        raise RunError(f"{path} has the columns {', '.join(map(str, rows[0]))[:200]}, expected split, name, digest, label")
    for number, row in enumerate(rows):
        if missing := [name for name in _COLUMNS if not isinstance(row[name], str)]:
            raise RunError(f"{path} has no {min(missing)} in row {number + 1}; expected split, name, digest, label")
    return rows


def recorded_digests(artifact: Artifact) -> dict[str, Counter[str]]:
    """Per split of the run the digests of its images, with how many images have each."""
    splits: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    for row in recorded_rows(artifact):
        splits.setdefault(row["split"], Counter())[row["digest"]] += 1
    return splits


def digests(examples: Examples) -> list[str]:
    return [digest_of(examples.source(i)) for i in range(len(examples))]


def validation_examples(artifact: Artifact, *, at_most: int) -> list[Examples]:
    """`examples_of` the validation split."""
    return examples_of(artifact, "val", at_most=at_most)


def examples_of(artifact: Artifact, split: str, *, at_most: int) -> list[Examples]:
    """Examples of one of the run's splits, evenly over it; from several splits of today's data where they were moved.

    They are found by name and recognised by their bytes, so a large data set is not read through. Raises DataError where the data or
    all of these images are gone, RunError for an incomplete run.
    """
    rows = [row for row in recorded_rows(artifact) if row["split"] == split and row["label"] in artifact.labels]
    chosen = [rows[i * len(rows) // at_most] for i in range(at_most)] if len(rows) > at_most else rows
    source = open_data(artifact, data_spec(artifact), is_default=True)
    parts = []
    for pool in source.splits.values():
        position = {name: i for i, name in enumerate(pool.names)}
        found = [(position[row["name"]], row) for row in chosen if row["name"] in position]
        found = [(i, row) for i, row in found if digest_of(pool.source(i)) == row["digest"]]
        if found:
            parts.append(pool.select(np.array([i for i, _ in found], dtype=np.int64)))
    if not parts:
        raise DataError(f"none of the {_WORDS[split]} images of {artifact.path} is found in {data_spec(artifact)}")
    return parts
