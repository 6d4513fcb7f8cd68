"""Parquet and every other form of a table that Hugging Face `datasets` hands over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.config import Data
from convmix.data.formats import Found, Table, by_split, find_column, read_class_names, split_word
from convmix.errors import DataError, first_line

if TYPE_CHECKING:
    import datasets


def read_parquet(files: Sequence[Path], data: Data) -> Found:
    """Parquet files with an image column (struct of bytes and path, binary, or path) and a column of labels, or of lists of them.

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
        found.tables,
        str(first.absolute().parent),
        found.names or read_class_names(first.absolute().parent),
        dropped + found.dropped,
        notes=found.notes,
    )


def read_dataset_dict(loaded: Mapping[Any, "datasets.Dataset"], data: Data, where: object) -> Found:
    """The splits of a Hugging Face data set; splits that are none of train, val and test are listed in `dropped`."""
    import datasets

    named, dropped = named_splits(loaded, where)
    tables: dict[str, Table] = {}
    names, notes = None, []
    for split, word in named.items():
        rows = loaded[split]
        label = _label_feature(rows.features, data, where)
        feature = rows.features[label]
        names = names or (tuple(feature.names) if isinstance(feature, datasets.ClassLabel) and feature.names else None)
        images = encoded_images(rows, data, where)
        labels = list(rows.select_columns([label]).with_format("arrow")[:][label].to_pylist()) if len(rows) else []
        if (of_list := _in_list(feature)) is not None:
            listed = of_list.names if isinstance(of_list, datasets.ClassLabel) else None
            if bare := sum(some is None for some in labels):
                notes.append(f"{bare} rows of the {word} split have no list in {label!r}: images without any label")
            labels = [[listed[v] if listed else str(v) for v in some or () if not listed or 0 <= v < len(listed)] for some in labels]
        tables[word] = Table(images, labels, _row_names(images, word))
    return Found(tables, names=names, dropped=dropped, notes=notes)


def named_splits(loaded: Mapping[Any, "datasets.Dataset"], where: object) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Which split is train, val, test or all; and those that are none of them, with the reason."""
    words = {str(s): split_word(str(s)) or ("all" if str(s) == "all" or len(loaded) == 1 else None) for s in loaded}
    if not any(words.values()):
        raise DataError(f"{where}: has the splits {', '.join(words)}; expected train, and perhaps val and test")
    named = {split: word for split, word in words.items() if word is not None}
    return named, [(s, "neither train, val nor test") for s, word in words.items() if word is None]


def encoded_images(rows: "datasets.Dataset", data: Data, where: object) -> "datasets.Dataset":
    """The column of images, called image, still encoded."""
    import datasets

    image = _image_feature(rows.features, data, where)
    images = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    return images if image == "image" else images.rename_column(image, "image")


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
    if not isinstance(features[column], (datasets.ClassLabel, datasets.Value)) and _in_list(features[column]) is None:
        raise DataError(f"{where}: column {column!r} is {features[column]}; expected a label an image, a number or text, or a list of such")
    return column


def _in_list(feature: object) -> Any:
    """What a column of lists has in them, numbers of classes or text; None for any other column."""
    import datasets

    inner = getattr(feature, "feature", None)
    return inner if isinstance(inner, (datasets.ClassLabel, datasets.Value)) else None


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
