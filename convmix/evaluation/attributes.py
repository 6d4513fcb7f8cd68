"""The user's own table about the images, as groups to slice by.

table.csv or table.csv:COLUMN[,COLUMN] + names of the images -> columns, a cell per image -> Grouping per column
"""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from convmix.errors import ConfigError, DataError, did_you_mean
from convmix.evaluation.slices import BUILT_IN, MOST_VALUES, Grouping, by_quarter, by_value

NAME_COLUMNS = ("name", "file", "filename", "file_name", "path", "image")
NOT_GIVEN = "not given"
FEW = 4  # different numbers are values like any other; more of them are sliced by quarter


@dataclass(frozen=True)
class Attributes:
    """Columns of the table, matched to the images."""

    columns: dict[str, tuple[str, ...]]  # column -> n cells, "" where the table says nothing
    notes: tuple[str, ...]

    def groupings(self, indices: np.ndarray) -> list[Grouping]:
        """Groups of the images at these positions; numbers by quarter, text by value."""
        titles = {name: f"{name} (table)" if name in BUILT_IN else name for name in self.columns}
        return [_grouping(titles[name], [cells[i] for i in indices]) for name, cells in self.columns.items()]


def read_attributes(spec: str, names: Sequence[str]) -> Attributes:
    """The table `spec` names, matched to n image names: by the whole name, else by a file name that is the only one of its kind.

    Without columns in `spec` all are taken, less those of text that nearly every image has another value of.
    Raises ConfigError for a table or column that does not exist, DataError for one that cannot be read or matches no image.
    """
    path, wanted = _split(spec)
    header, rows = _read(path)
    key = next((column for known in NAME_COLUMNS for column in header if column.strip().lower() == known), None)
    if key is None:
        raise DataError(f"{path}: no column names the images; expected one of {', '.join(NAME_COLUMNS)}, found {', '.join(header)}")
    others = [column for column in header if column != key]
    for column in wanted:
        if column not in others:
            has = ", ".join(others) or "no other"
            raise ConfigError(f"slices: {path} has no column {column}{did_you_mean(column, others)} (it has {has})")
    row_of = _match([row[key] for row in rows], names, path)
    notes, columns = [], {}
    for column in wanted or others:
        cells = tuple("" if i is None else (rows[i][column] or "").strip() for i in row_of)
        different = set(cells) - {""}
        if not wanted and len(different) > MOST_VALUES and _numbers(cells) is None:
            notes.append(f"column {column} of {path} has {len(different)} values, too many to slice by; ask for it as {path}:{column}")
            continue
        columns[column] = cells
    if missing := row_of.count(None):
        notes.append(f"{missing} of {len(names)} images have no row in {path}")
    return Attributes(columns, tuple(notes))


def _split(spec: str) -> tuple[Path, list[str]]:
    if Path(spec).is_file():
        return Path(spec), []
    path, colon, columns = spec.rpartition(":")
    if not colon or not Path(path).is_file():
        raise ConfigError(f"slices: there is no file {path or spec}; expected table.csv or table.csv:COLUMN")
    return Path(path), [column.strip() for column in columns.split(",") if column.strip()]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            rows = list(reader)
            return list(reader.fieldnames or []), rows
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _match(written: Sequence[str | None], names: Sequence[str], path: Path) -> list[int | None]:
    """Per image the row that is about it."""
    keys = [_plain(name or "") for name in written]
    if twice := [name for name, n in Counter(keys).items() if n > 1 and name]:
        raise DataError(f"{path}: {len(twice)} images have more than one row; the first: {twice[0]}")
    by_name = {name: i for i, name in enumerate(keys)}
    by_file = _only_ones(keys)
    images = [_plain(name) for name in names]
    alone = _only_ones(images)
    found = [by_name.get(name, by_file.get(_file(name)) if _file(name) in alone else None) for name in images]
    if not any(i is not None for i in found):
        rows = f"its first row is {keys[0]}" if keys else "it has no rows"
        raise DataError(f"{path}: no row is about one of the {len(names)} images; {rows}, the first image is {names[0]}")
    return found


def _only_ones(names: Sequence[str]) -> dict[str, int]:
    """File name -> position, for file names that occur once."""
    counts = Counter(map(_file, names))
    return {_file(name): i for i, name in enumerate(names) if counts[_file(name)] == 1}


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")


def _file(name: str) -> str:
    return PurePosixPath(name).name


def _grouping(name: str, cells: Sequence[str]) -> Grouping:
    numbers = _numbers(cells)
    if numbers is None or len(set(cells) - {""}) <= FEW:
        return by_value(name, [cell or NOT_GIVEN for cell in cells])
    return by_quarter(name, numbers, digits=_digits(cells))


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """The cells as numbers, nan for an empty one; None where one of them is not a number."""
    try:
        numbers = np.array([float(cell) if cell else math.nan for cell in cells])
    except ValueError:
        return None
    given = np.array([bool(cell) for cell in cells])
    return numbers if np.isfinite(numbers[given]).all() and given.any() else None


def _digits(cells: Sequence[str]) -> int:
    """Digits behind the point that the table itself writes, at most three."""
    return min(max((len(cell.partition(".")[2]) for cell in cells if "e" not in cell.lower()), default=0), 3)
