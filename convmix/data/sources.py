"""Whatever the user has -> `Source`: examples with class numbers, split as found.

spec -> a reader of folders, tables, shards or names -> Found (labels as written) -> classes -> Source. The images stay encoded: in memory,
in memory-mapped arrow, or as paths. Rows are Hugging Face `datasets` rows throughout.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convmix.cache import expanded
from convmix.config import Data
from convmix.data.examples import Examples, Source
from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS, Found, Table, expand
from convmix.data.readers.evidence import ANNOTATED
from convmix.data.readers.label_cells import LabelSet
from convmix.data.readers.several_labels import assemble_several
from convmix.data.readers.survey import FOREIGN, foreign_kind, remedy
from convmix.data.readers.unopened import without_foreign
from convmix.data.remote.shard_images import RemoteShards
from convmix.data.remote.urls import is_url, redact, restore
from convmix.errors import DataError, did_you_mean

Progress = Callable[[int, int], None]
FORMS = (
    "a folder of class folders, a CSV with path,label, parquet files, .tar shards, here or behind a URL, "
    "a Hub name, torchvision:NAME or digits"
)
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
ARCHIVES = (".zip", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar", ".zst")


def open_source(spec: str | Path, data: Data, *, fetched: Progress | None = None) -> Source:
    """The data set that `spec` names, split as found; a data set without splits is one split, "all".

    spec: a path, a pattern such as shards/train-{000..009}.tar, a URL of shards (s3://bucket/set/train-*.tar), a Hub or torchvision name,
    or digits (./digits is a local folder). fetched: called with the shards of a URL that are known by now, and all of them.
    Raises DataError for anything that is none of these, for a data set without usable images, and where something lies there that no
    reading explains.
    """
    spec = spec.removeprefix("file://") if isinstance(spec, str) else spec
    if isinstance(spec, str) and is_url(spec):
        return _open_url(spec, data, fetched)
    if data.task in ("auto", "detect") and (source := _read_object_columns(str(spec), data, as_path=isinstance(spec, Path))):
        return source
    if data.task not in ("classify", "multilabel") and data.layout in ("auto", *ANNOTATED) and (source := _read_annotated(str(spec), data)):
        return without_foreign(source)
    if data.layout in ANNOTATED and not (Path(spec).is_dir() and data.task in ("auto", "classify", "multilabel")):
        raise DataError(f"{spec}: holds nothing that can be read with --layout {data.layout}")
    found = _read(str(spec), data, as_path=isinstance(spec, Path))
    if isinstance(found, Source):
        return found
    if not found.tables:
        raise DataError(f"{spec}: holds no images")
    return without_foreign(_assemble(found, str(spec), task=data.task))


def _open_url(spec: str, data: Data, fetched: Progress | None) -> Source:
    from convmix.data.readers.remote_shards import read_remote_shards

    shown = redact(spec)
    if data.task not in ("auto", "classify"):
        raise DataError(f"{shown}: images with objects or class maps are read from local folders")
    found, remote = read_remote_shards(restore(spec), data, progress=fetched)
    return _assemble(found, shown, remote)


def _read_annotated(spec: str, data: Data) -> Source | None:
    """Images with objects or class maps; None where the spec may be one of labelled images."""
    from convmix.data.readers.annotated import open_annotated

    path = expanded(spec)
    if spec.strip() and path.exists():
        return open_annotated(path, task=data.task, data=data)
    if data.task != "auto" or data.layout != "auto":
        raise DataError(f"{spec}: no such file or folder{_nearest(path)}; images with objects or class maps are read from local folders")
    return None


def _read_object_columns(spec: str, data: Data, as_path: bool) -> Source | None:
    """Rows of Hugging Face's kind with a column of objects; None where there are none."""
    from convmix.data.readers import named_sets
    from convmix.data.readers.object_columns import parquet_with_objects, rows_with_objects

    path = Path(spec).expanduser()
    if path.is_dir() and _is_saved(path):
        return rows_with_objects(_load_saved(path), data, path, layout="hub")
    files = _of_suffix(path, ".parquet") if path.is_dir() else expand(os.fspath(path)) if re.search(r"[*?{\[]", spec) else [path]
    if files and all(f.suffix.lower() == ".parquet" and f.is_file() and f.stem != "metadata" for f in files):
        return parquet_with_objects(files, data) if data.layout in ("auto", "parquet") else None
    if data.task == "detect" and not path.exists() and named_sets.is_hub_name(spec) and not as_path:  # else `_read` looks
        return None if Path(spec.partition("/")[0]).is_dir() else rows_with_objects(named_sets.load_hub(spec), data, spec, layout="hub")
    return None


def _objects_or_labels(loaded: Any, data: Data, spec: str) -> Found | Source:
    from convmix.data.readers.object_columns import rows_with_objects
    from convmix.data.readers.tables import read_dataset_dict

    source = rows_with_objects(loaded, data, spec, layout="hub") if data.task == "auto" else None
    return source or read_dataset_dict(loaded, data, spec)


def _is_saved(path: Path) -> bool:
    """Whether datasets' save_to_disk wrote this folder."""
    return (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file())


def _of_suffix(path: Path, suffix: str) -> list[Path]:
    """The files of a suffix in a folder, in its data/ and in the folders of its splits."""
    inner = [path, path / "data", *sorted(p for p in path.iterdir() if p.is_dir() and p.name.lower() in SPLIT_WORDS)]
    return [f for folder in inner if folder.is_dir() for f in sorted(folder.iterdir()) if f.suffix.lower() == suffix and f.is_file()]


def _read(spec: str, data: Data, as_path: bool) -> Found | Source:
    from convmix.data.readers import named_sets

    if not spec.strip():
        raise DataError(f"no data set given; expected {FORMS}")
    if spec == "digits" and not as_path:
        return named_sets.read_digits()
    if spec.startswith("torchvision:") and not as_path:
        return named_sets.read_torchvision(spec.partition(":")[2])
    path = expanded(spec)
    try:
        if path.is_dir():
            return _read_directory(path, data)
        if path.exists():
            return _read_files([path], data, spec)
    except PermissionError as error:
        raise DataError(f"{error.filename or spec}: may not be read: {error.strerror}") from None
    if re.search(r"[*?{\[]", spec):
        files = expand(os.fspath(path))
        if not any(f.is_file() for f in files):
            raise DataError(f"{spec}: no file matches this pattern")
        return _read_files(files, data, spec)
    if named_sets.is_hub_name(spec) and not as_path and not Path(spec.partition("/")[0]).is_dir():
        return _objects_or_labels(named_sets.load_hub(spec), data, spec)
    raise DataError(f"{spec}: no such file or folder{_nearest(path)}; expected {FORMS}")


def _read_directory(path: Path, data: Data) -> Found:
    from convmix.data.readers import shards, tables
    from convmix.data.readers.image_files import read_images

    if (path / "convmix.json").is_file():
        raise DataError(f"{path}: is a model directory written by convmix, not a data set; expected {FORMS}")
    if _is_saved(path):
        return tables.read_dataset_dict(_load_saved(path), data, path)
    for suffix, layout, read in ((".parquet", "parquet", tables.read_parquet), (".tar", "shards", shards.read_shards)):
        files = _of_suffix(path, suffix)
        if files and data.layout in ("auto", layout) and not all(f.stem == "metadata" for f in files):
            return replace(read(files, data), layout=layout)
    return read_images(path, data)


def _load_saved(path: Path) -> Any:
    """A folder written by datasets' save_to_disk, as a mapping of splits."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # arrow, JSON and file errors alike
        raise DataError(f"{path}: cannot be read as a data set saved by `datasets`: {error}") from None
    return loaded if isinstance(loaded, datasets.DatasetDict) else {"all": loaded}


def _read_files(files: list[Path], data: Data, spec: str) -> Found:
    from convmix.data.readers import shards, tables
    from convmix.data.readers.labelled_table import read_csv

    suffixes = {f.suffix.lower() for f in files}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    if suffix == ".parquet":
        return replace(tables.read_parquet(files, data), layout="parquet")
    if suffix == ".tar":
        return replace(shards.read_shards(files, data), layout="shards")
    if suffix in TABLE_SUFFIXES and len(files) == 1:
        return replace(read_csv(files[0], data), layout="table")
    if suffix in ARCHIVES:
        raise DataError(f"{spec}: is a compressed archive; unpack it and give the folder")
    if suffix in IMAGE_SUFFIXES:
        raise DataError(f"{spec}: is an image, not a data set; expected {FORMS}")
    if suffix in (".yaml", ".yml"):
        raise DataError(f"{spec}: leads to no images with YOLO's label files; expected labels/ beside images/ with a text file per image")
    if suffix in FOREIGN:
        kind = foreign_kind(files[0].name)
        raise DataError(f"{spec}: is {kind}, which is not read: {remedy(kind)}; expected {FORMS}")
    raise DataError(f"{spec}: a file of an unknown type; expected {FORMS}")


def _nearest(path: Path) -> str:
    """The nearest existing name for the first part of `path` that does not exist."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        near = did_you_mean(missing.name, [p.name for p in missing.parent.iterdir()])
    except OSError:
        return ""
    return re.sub(r"mean (.*)\?$", lambda m: f"mean {missing.parent / m.group(1)}?", near) if near else ""


def _assemble(found: Found, spec: str, remote: RemoteShards | None = None, *, task: str = "auto") -> Source:
    """Labels as written -> class numbers. The classes are those of the training images, or those that the format itself lists."""
    if task == "multilabel" or any(isinstance(v, LabelSet | list) for table in found.tables.values() for v in table.labels[:1]):
        return assemble_several(found, spec)
    dropped, notes = list(found.dropped), list(found.notes)
    texts = {split: [_label_text(v, found) for v in table.labels] for split, table in found.tables.items()}
    texts = _as_numbers(texts, notes) if found.by_number else texts
    known = texts.get("train") or texts.get("all") or [t for column in texts.values() for t in column]
    classes, ids = _class_table(sorted({t for t in known if t is not None}, key=_class_order(known, found)), found)
    splits: dict[str, Examples] = {}
    for split, table in found.tables.items():
        texts[split] = _nearly(texts[split], ids, split, notes)
        unknown = sorted({t for t in texts[split] if t is not None and t not in ids})
        if unknown:
            raise DataError(f"{spec}: the {split} split has classes that the training images do not have: {_some(unknown)}")
        keep = [i for i, t in enumerate(texts[split]) if t is not None]
        if not keep:
            dropped.append((split, f"none of its {len(table.names)} images has a label"))
            continue
        if len(keep) < len(table.names):
            dropped += [(table.names[i], "no label") for i, t in enumerate(texts[split]) if t is None]
        splits[split] = _examples(table, [-1 if t is None else ids[t] for t in texts[split]], keep, classes, split, found.root)
        splits[split] = replace(splits[split], remote=remote)
    if not splits:
        raise DataError(f"{spec}: no image has a label")
    return Source(
        splits, classes, dict.fromkeys(splits, "given"), dropped,
        layout=found.layout or "hub", root=found.root, split_origin=found.split_origin, notes=tuple(notes),
    )  # fmt: skip


def _as_numbers(texts: dict[str, list[str | None]], notes: list[str]) -> dict[str, list[str | None]]:
    """1.0 beside 1 is the same class: spreadsheets write whole numbers as fractions where a cell of the column is empty."""
    every = {t for column in texts.values() for t in column if t is not None}
    floats = {t: t.rpartition(".")[0] for t in every if re.fullmatch(r"-?\d+\.0+", t)}
    if not floats or not all(re.fullmatch(r"-?\d+(\.0+)?", t) for t in every):
        return texts
    if any(plain in every for plain in floats.values()):
        notes.append(f"labels such as {min(floats)} and {floats[min(floats)]} are one class")
    return {split: [None if t is None else floats.get(t, t) for t in column] for split, column in texts.items()}


def _nearly(column: list[str | None], ids: Mapping[str, int], split: str, notes: list[str]) -> list[str | None]:
    """A class that differs from one of training in letter case and spacing alone is that one."""
    loose: dict[str, list[str]] = {}
    for name in ids:
        loose.setdefault(_loosely(name), []).append(name)
    renamed = {t: loose[_loosely(t)][0] for t in {*column} if t is not None and t not in ids and len(loose.get(_loosely(t), ())) == 1}
    notes += [f"{old} in the {split} split is taken for the class {new}" for old, new in sorted(renamed.items())]
    return [t if t is None else renamed.get(t, t) for t in column] if renamed else column


def _loosely(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _label_text(value: Any, found: Found) -> str | None:
    """The label as text, None where there is none; -1 in a column of class numbers means unlabelled."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    listed = isinstance(found.names, tuple)
    if listed and isinstance(value, int) and value < 0:
        return None
    return unicodedata.normalize("NFC", str(value)).strip() or None


def _class_order(known: Sequence[str | None], found: Found) -> Any:
    numbers = found.by_number and all(t is None or re.fullmatch(r"-?\d+", t) for t in known)
    return (lambda t: (int(t), t)) if numbers else str


def _class_table(values: list[str], found: Found) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, and the class number of every label text."""
    if isinstance(found.names, tuple):
        return found.names, {str(i): i for i in range(len(found.names))}
    ids = {value: i for i, value in enumerate(values)}
    readable = [found.names.get(v, v) for v in values] if isinstance(found.names, dict) else values
    return tuple(readable if len(set(readable)) == len(values) else values), ids


def _examples(table: Table, labels: list[int], keep: list[int], classes: tuple[str, ...], split: str, root: str) -> Examples:
    import pyarrow as pa

    rows = table.images.add_column("label", pa.array(labels, pa.int64())).add_column("name", pa.array(table.names, pa.string()))
    return Examples(rows if len(keep) == len(labels) else rows.select(keep), classes, split, root)


def _some(values: Sequence[str]) -> str:
    return ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
