"""Tables: CSV and TSV with paths and labels; parquet and every other form that Hugging Face `datasets` hands over."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.config import Data
from convmix.data.formats import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    Found,
    Table,
    by_split,
    find_column,
    first_line,
    image_rows,
    read_class_names,
    split_word,
)
from convmix.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import datasets

SPLIT_COLUMNS = ("split", "subset", "set", "fold", "partition")


def read_csv(path: Path, data: Data) -> Found:
    """Rows of path,label and perhaps split; the delimiter is found, relative paths start at the table's folder.

    A path whose file is missing is kept (the scan lists it); a row without path or label is listed in `dropped`.
    """
    rows = _csv_rows(path)
    image, label, split, body, first = _csv_columns(path, rows, data)
    dropped: list[tuple[str, str]] = []
    parts: dict[str, tuple[list[str], list[str]]] = {}
    for number, row in enumerate(body, first):
        cells = [c.strip() for c in row] + [""] * (max(image, label, split or 0) + 1 - len(row))
        if not any(cells):
            continue
        if not cells[image] or not cells[label]:
            dropped.append((cells[image] or f"{path.name} line {number}", "no label" if cells[image] else "no path"))
            continue
        part = "all"
        if split is not None:
            word = SPLIT_WORDS.get(cells[split].lower())
            if word is None:
                known = "train, val (valid, validation, dev), test"
                raise DataError(
                    f"{path} row {number}: unknown split {cells[split]!r}{did_you_mean(cells[split], SPLIT_WORDS)}; expected {known}"
                )
            part = word
        paths, labels = parts.setdefault(part, ([], []))
        paths.append(_local_path(cells[image]))
        labels.append(cells[label])
    if not parts:
        raise DataError(f"{path}: holds no row with both a path and a label")
    tables = {s: Table(image_rows(p), labels, p) for s, (p, labels) in sorted(parts.items())}
    return Found(tables, root=str(path.absolute().parent), names=read_class_names(path.absolute().parent), dropped=dropped)


def _csv_rows(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is not text; expected a CSV with path,label")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")  # what spreadsheets write where they do not write UTF-8
    if not text.strip():
        raise DataError(f"{path}: is empty; expected a CSV with path,label")
    head = text.lstrip().splitlines()[0]
    delimiter = max(",\t;|", key=head.count) if path.suffix.lower() != ".tsv" else "\t"
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None


def _csv_columns(path: Path, rows: list[list[str]], data: Data) -> tuple[int, int, int | None, list[list[str]], int]:
    """Positions of image, label and split; the rows below the header; the number of the first of them."""
    while rows and not any(c.strip() for c in rows[0]):
        rows = rows[1:]
    header = [c.strip() for c in rows[0]]
    asked = data.image_column or data.label_column
    if not asked and len(header) == 2 and Path(header[0].lower()).suffix in IMAGE_SUFFIXES:
        return 0, 1, None, rows, 1  # no header: the first row is already an example
    image = header.index(find_column("image", header, data.image_column, path))
    label = header.index(find_column("label", header, data.label_column, path))
    split = next((i for i, c in enumerate(header) if c.lower() in SPLIT_COLUMNS), None)
    if split in (image, label) or (split is not None and header[split].lower() != "split" and not _are_splits(rows[1:], split)):
        split = None  # a column called set or fold that holds something else
    return image, label, split, rows[1:], 2


def _are_splits(rows: list[list[str]], column: int) -> bool:
    return all(row[column].strip().lower() in SPLIT_WORDS for row in rows if len(row) > column)


def _local_path(text: str) -> str:
    """A path written on Windows, if it has only backslashes, becomes a local one."""
    return text.replace("\\", "/") if os.sep == "/" and "/" not in text else text


def read_parquet(files: Sequence[Path], data: Data) -> Found:
    """Parquet files with an image column (struct of bytes and path, binary, or path) and a label column.

    Read through `datasets`, which keeps a memory-mapped arrow copy in its own cache (HF_DATASETS_CACHE, ~/.cache/huggingface):
    so data larger than memory opens, and opens at once the second time. A changed file is read anew.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    dropped: list[tuple[str, str]] = []
    splits = by_split(files, dropped)
    first = next(iter(splits.values()))[0]
    try:
        features = datasets.Features.from_arrow_schema(pq.read_schema(first))
        image = _image_feature(features, data, first)
        label = _label_feature(features, data, first)
        features = datasets.Features({image: datasets.Image(decode=False), label: features[label]})
        with quiet_progress():
            loaded = datasets.load_dataset(
                "parquet",
                data_files={
                    "whole" if s == "all" else s: [str(f.absolute()) for f in paths] for s, paths in splits.items()
                },  # all is reserved
                columns=[image, label],
                features=features,
            )
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise DataError(f"{first}: cannot be read as parquet: {first_line(cause)}") from None
    found = read_dataset_dict(loaded, data, first)
    return Found(
        found.tables, str(first.absolute().parent), found.names or read_class_names(first.absolute().parent), dropped + found.dropped
    )


def read_dataset_dict(loaded: Mapping[Any, "datasets.Dataset"], data: Data, where: object) -> Found:
    """The splits of a Hugging Face data set; splits that are none of train, val and test are listed in `dropped`."""
    import datasets

    named = {str(s): split_word(str(s)) or ("all" if str(s) == "all" or len(loaded) == 1 else None) for s in loaded}
    dropped = [(s, "neither train, val nor test") for s, word in named.items() if word is None]
    if not any(named.values()):
        raise DataError(f"{where}: has the splits {', '.join(named)}; expected train, and perhaps val and test")
    tables: dict[str, Table] = {}
    names = None
    for split, word in named.items():
        if word is None:
            continue
        rows = loaded[split]
        image, label = _image_feature(rows.features, data, where), _label_feature(rows.features, data, where)
        feature = rows.features[label]
        names = names or (tuple(feature.names) if isinstance(feature, datasets.ClassLabel) and feature.names else None)
        images = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        if image != "image":
            images = images.rename_column(image, "image")
        labels = list(rows.select_columns([label]).with_format("arrow")[:][label].to_pylist()) if len(rows) else []
        tables[word] = Table(images, labels, _row_names(images, word))
    return Found(tables, names=names, dropped=dropped)


def _row_names(images: "datasets.Dataset", split: str) -> list[str]:
    """Paths where the images are files, else 'train[12]'."""
    if len(images) and images[0]["image"] and images[0]["image"]["bytes"] is None and images[0]["image"]["path"]:
        return [(r or {}).get("path") or f"{split}[{i}]" for i, r in enumerate(images["image"])]
    return [f"{split}[{i}]" for i in range(len(images))]


def _image_feature(features: "datasets.Features", data: Data, where: object) -> str:
    import datasets

    images = [c for c, f in features.items() if isinstance(f, datasets.Image) or (isinstance(f, dict) and {"bytes", "path"} <= f.keys())]
    column = images[0] if len(images) == 1 and not data.image_column else find_column("image", list(features), data.image_column, where)
    feature = features[column]
    if column not in images and not (_is_text(feature) or (isinstance(feature, datasets.Value) and "binary" in feature.dtype)):
        raise DataError(f"{where}: column {column!r} is {feature}; expected encoded images, a struct of bytes and path, or paths")
    return column


def _label_feature(features: "datasets.Features", data: Data, where: object) -> str:
    import datasets

    classes = [c for c, f in features.items() if isinstance(f, datasets.ClassLabel)]
    column = classes[0] if len(classes) == 1 and not data.label_column else find_column("label", list(features), data.label_column, where)
    if not isinstance(features[column], (datasets.ClassLabel, datasets.Value)):
        raise DataError(f"{where}: column {column!r} is {features[column]}; expected one label an image, a number or text")
    return column


def _is_text(feature: object) -> bool:
    return "string" in str(getattr(feature, "dtype", ""))


class quiet_progress:  # noqa: N801
    """Without datasets' own progress bars, which would tear ours."""

    def __enter__(self) -> None:
        import datasets

        self.was_on = datasets.are_progress_bars_disabled() is False
        datasets.disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        import datasets

        if self.was_on:
            datasets.enable_progress_bars()
