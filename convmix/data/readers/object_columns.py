"""Hugging Face's rows with a column `objects`, in parquet, in a saved data set or on the Hub -> Source of images with boxes.

    {"image": {bytes, path}, "objects": {"bbox": [[x, y, width, height], ...], "category": [3, ...]}}      one row, an image
    or {"objects": [{"bbox": ..., "category": ...}, ...]}

Boxes are COCO's: left, top, width, height in pixels. They are read as two corners where many would leave their image as sides and none does
as corners, and as shares of the image where no number is above 1; both are said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmix.config import Data
from convmix.data.decode import BadImage, upright_size
from convmix.data.examples import Examples, Source
from convmix.data.formats import by_split
from convmix.data.readers.objectrows import Fault, ObjectRows, fit_box, image_labels, numbers
from convmix.data.readers.tables import encoded_images, named_splits, quiet_progress
from convmix.errors import DataError, first_line

if TYPE_CHECKING:
    import datasets

COLUMN = "objects"
BOXES = ("bbox", "bboxes", "boxes")
CLASSES = ("category", "categories", "label", "labels", "class", "category_id", "name", "names")


@dataclass(frozen=True)
class _Row:
    """One image as it is written."""

    name: str
    size: tuple[int, int]  # height, width, upright
    boxes: list[tuple[float, ...]]  # four numbers each
    labels: list[Any]
    crowd: list[bool]
    faults: list[tuple[str, str]]  # name, reason


def parquet_with_objects(files: Sequence[Path], data: Data) -> Source | None:
    """Parquet files whose rows have objects; None where they have none. DataError as `read_parquet`."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if COLUMN not in pq.read_schema(files[0]).names:
            return None
        dropped: list[tuple[str, str]] = []
        splits = {"whole" if s == "all" else s: [str(f.absolute()) for f in paths] for s, paths in by_split(files, dropped).items()}
        with quiet_progress():
            loaded = datasets.load_dataset("parquet", data_files=splits)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{files[0]}: cannot be read as parquet: {first_line(error.__cause__ or error)}") from None
    source = rows_with_objects({"all" if s == "whole" else str(s): rows for s, rows in loaded.items()}, data, files[0], layout="parquet")
    if source is not None:
        source.dropped.extend(dropped)
    return source


def rows_with_objects(loaded: Mapping[Any, "datasets.Dataset"], data: Data, where: object, *, layout: str) -> Source | None:
    """The splits of a Hugging Face data set; None where its rows have no objects. DataError where none of them can be used."""
    named, dropped = named_splits(loaded, where)
    first = loaded[next(iter(named))]
    if COLUMN not in first.features:
        return None
    boxes, classes = _keys(first.features[COLUMN], where)
    notes: list[str] = []
    read = {word: list(_rows(loaded[split], word, boxes, classes, data)) for split, word in named.items()}
    as_written = [row for rows in read.values() for _, row in rows]
    shares = _are_shares(as_written)
    corners = _are_corners(as_written, shares=shares)
    notes += ["the boxes are read as shares of the image, for no number is above 1"] if shares else []
    notes += ["the boxes are read as left, top, right, bottom (xyxy): as width and height many leave the image"] if corners else []
    names = _class_names(first.features[COLUMN], classes, read)
    splits: dict[str, tuple[ObjectRows, list[int]]] = {}
    for word, rows in read.items():
        splits[word] = _objects(rows, names, word, dropped, shares=shares, corners=corners)
    kept = {word: (rows, indices) for word, (rows, indices) in splits.items() if len(rows)}
    if not any(len(rows.labels) for rows, _ in kept.values()):
        reasons = ": " + "; ".join(f"{name}: {reason}" for name, reason in dropped[:3]) if dropped else ""
        raise DataError(f"{where}: no object can be used{reasons}")
    labels = image_labels({word: rows for word, (rows, _) in kept.items()}, len(names))
    of_word = {word: split for split, word in named.items()}
    examples = {
        word: Examples(_with_images(rows, loaded[of_word[word]], indices, labels[word], data, where), names, word)
        for word, (rows, indices) in kept.items()
    }
    return Source(examples, names, dict.fromkeys(examples, "given"), dropped, "detect", layout=layout, notes=tuple(notes))


def _keys(feature: Any, where: object) -> tuple[str, str | None]:
    """What the boxes and the classes are called inside the column."""
    inside = getattr(feature, "feature", feature)  # a list of objects, or an object of lists
    known = list(inside) if isinstance(inside, Mapping) else list(inside[0]) if isinstance(inside, list) else []
    boxes = next((k for k in BOXES if k in known), None)
    if boxes is None:
        raise DataError(f"{where}: column {COLUMN!r} holds {', '.join(known) or 'no fields'}; expected bbox, and category beside it")
    return boxes, next((k for k in CLASSES if k in known), None)


def _rows(rows: "datasets.Dataset", word: str, boxes: str, classes: str | None, data: Data) -> Iterator[tuple[int, _Row]]:
    images = encoded_images(rows, data, word)
    for i, (image, objects) in enumerate(zip(images, rows.select_columns([COLUMN]), strict=True)):
        name = f"{word}[{i}]"
        held = objects[COLUMN] or {}
        listed = held if isinstance(held, list) else _listed(held, boxes)
        encoded = (image["image"] or {}).get("bytes") or (image["image"] or {}).get("path")
        try:
            if not encoded:
                raise Fault("no image")
            size = upright_size(encoded, in_chans=data.in_chans, max_pixels=data.max_pixels)
        except (BadImage, Fault) as bad:
            yield i, _Row(name, (0, 0), [], [], [], [(name, str(bad))])
            continue
        row = _Row(name, size, [], [], [], [])
        for number, one in enumerate(listed):
            try:
                box = numbers(one[boxes] or ())
                if len(box) != 4:
                    raise Fault(f"a box of {len(box)} numbers")
            except Fault as fault:
                row.faults.append((f"{name} object {number}", str(fault)))
                continue
            row.boxes.append(box)
            row.labels.append(one.get(classes) if classes else 0)
            row.crowd.append(bool(one.get("iscrowd") or False))
        yield i, row


def _listed(held: Mapping[str, Any], boxes: str) -> list[dict[str, Any]]:
    """An object of lists as a list of objects."""
    count = len(held.get(boxes) or ())
    lists = {k: v for k, v in held.items() if isinstance(v, (list, tuple)) and len(v) == count}
    return [{k: v[i] for k, v in lists.items()} for i in range(count)]


def _are_shares(rows: Sequence[_Row]) -> bool:
    largest = max((value for row in rows for box in row.boxes for value in box), default=2.0)
    return largest <= 1.0


def _are_corners(rows: Sequence[_Row], *, shares: bool) -> bool:
    """Whether of boxes, many of which leave the image as sides, all lie inside as two corners."""
    count = over = 0
    for row in rows:
        height, width = (1, 1) if shares else row.size
        slack = 0.01 if shares else 1
        for a, b, c, d in row.boxes:
            if not (0 <= a < c <= width + slack and 0 <= b < d <= height + slack):
                return False
            count += 1
            over += a + c > width + slack or b + d > height + slack
    return count >= 5 and 5 * over >= count


def _class_names(feature: Any, key: str | None, read: Mapping[str, list[tuple[int, _Row]]]) -> tuple[str, ...]:
    inside = getattr(feature, "feature", feature)
    inside = inside[0] if isinstance(inside, list) else inside
    of_classes = inside.get(key) if key else None
    listed = getattr(getattr(of_classes, "feature", of_classes), "names", None)
    if listed:
        return tuple(listed)
    if key is None:
        return ("object",)
    training = read.get("train") or read.get("all") or [row for rows in read.values() for row in rows]
    values = {label for _, row in training for label in row.labels if label is not None}
    return tuple(map(str, sorted(values, key=lambda v: (isinstance(v, str), v))))


def _objects(
    rows: Sequence[tuple[int, _Row]], names: tuple[str, ...], word: str, dropped: list[tuple[str, str]], *, shares: bool, corners: bool
) -> tuple[ObjectRows, list[int]]:
    """The usable images with their objects, and their places among the rows."""
    numbered = {name: i for i, name in enumerate(names)}
    found, indices = ObjectRows(with_masks=False), []
    for i, row in rows:
        dropped += row.faults
        if row.size == (0, 0):
            continue
        found.image(Path(row.name), row.name, row.size)
        indices.append(i)
        height, width = row.size
        for number, (box, label, crowd) in enumerate(zip(row.boxes, row.labels, row.crowd, strict=True)):
            a, b, c, d = (v * s for v, s in zip(box, (width, height) * 2, strict=True)) if shares else box
            try:
                index = (
                    label if isinstance(label, int) and len(names) > label >= 0 and str(label) not in numbered else numbered.get(str(label))
                )
                if index is None:
                    raise Fault(f"of category {label!r}, which the training images do not have")
                found.object(fit_box(a, b, *((c, d) if corners else (a + c, b + d)), row.size), index, crowd=crowd)
            except Fault as fault:
                dropped.append((f"{row.name} object {number}", str(fault)))
    return found, indices


def _with_images(
    found: ObjectRows, rows: "datasets.Dataset", indices: Sequence[int], labels: Any, data: Data, where: object
) -> "datasets.Dataset":
    """The columns of the objects beside the encoded images."""
    import datasets

    images = encoded_images(rows, data, where).select(indices)
    return datasets.concatenate_datasets([images, found.rows(labels).remove_columns("image")], axis=1)
