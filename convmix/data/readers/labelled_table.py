"""Tables that say what is on images: which column is which, which row is which image, one label or several -> `Found`.

table files -> rows (table_files) -> columns by name, else by content -> images by written names (names) -> labels (label_cells) -> Found
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convmix.config import Data
from convmix.data.formats import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_WORDS,
    Found,
    Table,
    find_column,
    image_rows,
    printable,
    read_class_names,
)
from convmix.data.readers.image_rows import one_row_per_image, split_by_lists
from convmix.data.readers.label_cells import LabelSet, hot_labels, minus_is_no, one_hot, plain_header, separator, split_cell
from convmix.data.readers.names import Ambiguous, ImageIndex, existing
from convmix.data.readers.split_files import split_cells
from convmix.data.readers.splits import folder_split
from convmix.data.readers.survey import Survey, beside, folder_of, some, spread, stem_of, survey_around
from convmix.data.readers.table_files import Rows, read_rows
from convmix.errors import DataError, did_you_mean

ID_COLUMNS = (*IMAGE_COLUMNS, "id", "image_id", "imageid", "img_id", "uid", "file_id", "name")
SAMPLE = 200  # rows that are looked at to know a column
RUN_COLUMNS = ("encodedpixels", "encoded_pixels", "rle", "rle_mask", "mask_rle", "annotation_rle")
BOX_COLUMNS = (
    {"xmin", "ymin", "xmax", "ymax"},
    {"x1", "y1", "x2", "y2"},
    {"left", "top", "right", "bottom"},
    {"bbox"},
    {"bbox_x", "bbox_y"},
)


@dataclass(frozen=True)
class Tables:
    """The tables that a folder has for its images."""

    names: list[str]  # those that are read
    others: list[str]  # those that name images too, and are not
    undecided: list[tuple[str, str]]  # those whose columns are not understood, and why


@dataclass(frozen=True)
class Columns:
    """Positions in a row."""

    image: int
    labels: tuple[int, ...]  # several are one-hot
    split: int | None


@dataclass
class _Located:
    """Where the images of written names are: below the table's folder as written, else found among all images there."""

    folder: Path
    root: Path  # what the paths that come out are relative to
    index: ImageIndex | None  # None where every name of a sample is a path as it stands
    base: str  # the table's folder, relative to the root
    near: int = 0

    def path(self, written: str) -> str:
        text = _local_path(written)
        if self.index is None:
            return text
        place = self.folder / text
        if existing(place):
            return os.path.relpath(place, self.root) if not Path(text).is_absolute() else text
        found = self.index.find(written, base=self.base)
        self.near += found is not None
        return text if found is None else os.path.relpath(self.index.root / found, self.root)


def read_csv(path: Path, data: Data) -> Found:
    """One table that the user named; relative paths start at its folder.

    A path whose file is missing is kept (the scan lists it); a row without path or label is listed in `dropped`.
    """
    folder = path.absolute().parent
    rows = read_rows(path)
    return _found([(rows, "")], Survey(folder), data, images=None)


def read_tables(seen: Survey, names: Sequence[str], data: Data) -> Found:
    """The tables of a data set, each with the split that its name or folder tells."""
    tables = [(read_rows(seen.path(name)), name) for name in names]
    return _found(tables, seen, data, images=ImageIndex(seen.root, seen.images))


def find_tables(seen: Survey, data: Data, *, others: Collection[str] = (), texts: bool = False) -> Tables:
    """The tables whose rows are images of the data set: by split, or the one that has labels; not samples of submissions.

    others: files that are something else. texts: lists with an image and its label on a line are tables too.
    """
    index = ImageIndex(seen.root, seen.images)
    useful: dict[str, int] = {}  # name -> rows
    undecided = []
    for name in [*seen.of("table", "jsonl", "parquet"), *_few(seen.of("json")), *_few(seen.of("text") if texts else [])]:
        if "submission" in stem_of(name).lower() or folder_of(name).count("/") > 2 or name in others:
            continue
        try:
            rows = read_rows(seen.path(name))
            if len(rows.header) == 1:
                continue  # names and nothing about them
            image = _image_column(rows, data, index, folder_of(name), None) if rows.header else 0
        except DataError:
            continue
        written = spread([c for c in rows.column(image) if c], 50)
        if not written or 2 * sum(_is_image(w, index, folder_of(name)) for w in written) < len(written):
            continue
        try:
            find_columns(rows, data, index, folder_of(name))
            useful[name] = len(rows.rows)
        except DataError as error:
            undecided.append((name, str(error)))
    split_of = {name: _split_of(name) for name in useful}
    if len(useful) < 2 or any(split_of.values()):
        told = [name for name in useful if split_of[name] or len(useful) == 1]
        return Tables(told, [name for name in useful if name not in told], undecided)
    largest = max(useful, key=lambda name: useful[name])
    if any(2 * n > useful[largest] for name, n in useful.items() if name != largest):
        raise DataError(f"{seen.root}: the tables {some(useful)} all have rows for the images; give the one that is meant")
    return Tables([largest], [name for name in useful if name != largest], undecided)


def _few(names: Sequence[str]) -> Sequence[str]:
    """JSON files that may be tables: of many, each belongs to an image."""
    return names if len(names) <= 20 else []


def _is_image(written: str, index: ImageIndex, base: str) -> bool:
    try:
        return index.find(written, base=base) is not None
    except Ambiguous:
        return True


def _split_of(name: str) -> str | None:
    return folder_split(stem_of(name), exact=False) or folder_split(folder_of(name), exact=False)


# Columns


def find_columns(rows: Rows, data: Data, index: ImageIndex | None, base: str = "") -> Columns:
    """By name, else by what they hold. DataError that lists the columns and names the setting."""
    if not rows.header:
        return Columns(0, (1,), None)
    header, path = rows.header, rows.path
    split = next((i for i, c in enumerate(header) if c.strip().lower() == "split" or split_cells(c, rows.column(i))), None)
    image = _image_column(rows, data, index, base, split)
    others = [i for i in range(len(header)) if i not in (image, split)]
    lowered = {h.strip().lower() for h in header}
    if (boxes := next((b for b in BOX_COLUMNS if b <= lowered), None)) and not data.label_column:
        raise DataError(
            f"{path}: has boxes in the columns {', '.join(sorted(boxes))}, which are for the task detect: leave --task classify "
            "out, or name the column of the classes with --label-column"
        )
    if (runs := next((h for h in header if plain_header(h) in RUN_COLUMNS), None)) and not data.label_column:
        raise DataError(
            f"{path}: has masks as run lengths in the column {runs}, which do not say whether they count along rows or columns: "
            "bring them as "
            "masks (PNG) or COCO JSON, or name a column of classes with --label-column"
        )
    return Columns(image, _label_columns(rows, data, others), split)


def _image_column(rows: Rows, data: Data, index: ImageIndex | None, base: str, split: int | None) -> int:
    header, path = rows.header, rows.path
    refuse_pixels(rows)
    try:
        return header.index(find_column("image", header, data.image_column, path))
    except DataError:
        if data.image_column:
            raise
    if index is None:
        around = survey_around(path)
        index = ImageIndex(around.root, around.images)
    for i in sorted(range(len(header)), key=lambda i: plain_header(header[i]) not in ID_COLUMNS):
        cells = spread([c for c in rows.column(i) if c], 50)
        if i != split and cells and 5 * sum(_is_image(c, index, base) for c in cells) >= 4 * len(cells):
            return i
    return header.index(find_column("image", header, None, path))  # raises


def _label_columns(rows: Rows, data: Data, others: Sequence[int]) -> tuple[int, ...]:
    header, path = rows.header, rows.path
    plain = [plain_header(h) for h in header]
    usual = [i for i in others if plain[i] in LABEL_COLUMNS or plain[i] in ("tags", "finding_labels")]
    if data.label_column or usual:
        asked = data.label_column or (header[usual[0]] if plain[usual[0]] in ("tags", "finding_labels") else None)
        chosen = header.index(find_column("label", header, asked, path))
        return (chosen if data.label_column else _with_names(rows, chosen, usual),)
    hot = [i for i in others if one_hot(["", ""], [rows.column(i)[:SAMPLE]])]
    if len(hot) > 1:
        return tuple(hot)
    if len(others) == 1:
        return (others[0],)
    telling = [i for i in others if _repeats(rows.column(i))]
    if len(telling) == 1:
        return (telling[0],)
    return (header.index(find_column("label", header, None, path)),)  # raises


def _with_names(rows: Rows, chosen: int, usual: Sequence[int]) -> int:
    """Of a column of numbers and one of their names the names."""
    numbers = rows.column(chosen)
    if not all(cell.isdecimal() for cell in numbers if cell):
        return chosen
    for other in (i for i in usual if i != chosen):
        names = rows.column(other)
        pairs = {*zip(numbers, names, strict=True)}
        if len(pairs) == len({*numbers}) == len({*names}) and not all(name.isdecimal() for name in names):
            return other
    return chosen


def _repeats(cells: Sequence[str]) -> bool:
    """A column of few different words, as labels are."""
    filled = [c for c in cells if c]
    return bool(filled) and 2 * len(set(filled)) <= len(filled) and not all(re.fullmatch(r"-?\d+\.\d+", c) for c in filled)


def refuse_pixels(rows: Rows) -> None:
    """DataError for a table of the pixels themselves."""
    pixels = [h for h in rows.header if re.fullmatch(r"pixels|pixel[ _]?\d+|\d+x\d+", h.strip().lower())]
    if "pixels" in (h.lower() for h in pixels) or len(pixels) >= 16:
        raise DataError(
            f"{rows.path}: holds the pixels of images ({some(pixels, 2)}) and not their names: save every row as a PNG file into a "
            "folder per "
            "class, and give the folder"
        )


def _local_path(text: str) -> str:
    """A path written on Windows, if it has only backslashes, becomes a local one."""
    return text.replace("\\", "/") if os.sep == "/" and "/" not in text else text


# Rows


def _found(tables: Sequence[tuple[Rows, str]], seen: Survey, data: Data, *, images: ImageIndex | None) -> Found:
    dropped: list[tuple[str, str]] = []
    notes: list[str] = []
    parts: dict[str, tuple[list[str], list[str | LabelSet]]] = {}
    used: set[str] = set()
    near = 0
    known = _hot_names(max(tables, key=lambda table: len(table[0].rows)), data, images)
    for rows, name in tables:
        columns = find_columns(rows, data, images, folder_of(name))
        if known and known <= {*rows.header}:
            columns = replace(columns, labels=tuple(i for i, h in enumerate(rows.header) if h in known))
        where = _where(rows, columns, seen.root, images, folder_of(name))
        cells = _cells(rows, columns, data, notes)
        told = split_cells(rows.header[columns.split], rows.column(columns.split)) if columns.split is not None else None
        part = _split_of(name) if len(tables) > 1 or folder_split(folder_of(name)) else None
        for number, (row, label) in enumerate(zip(rows.rows, cells, strict=True), rows.first):
            written = row[columns.image].strip() if columns.image < len(row) else ""
            if not any(c.strip() for c in row):
                continue
            if not written or not label:
                dropped.append((written or f"{rows.path.name} line {number}", "no label" if written else "no path"))
                continue
            split = part or "all"
            if told is not None:
                split = told[number - rows.first]
            elif columns.split is not None:
                split = _row_split(row, columns.split, rows.path, number)
            try:
                path = where.path(written)
            except Ambiguous as several:
                dropped.append((f"{rows.path.name} line {number}", str(several)))
                continue
            used.add(path)
            paths, labels = parts.setdefault(split, ([], []))
            paths.append(path)
            labels.append(label)
        near += where.near
    if not parts:
        raise DataError(f"{tables[0][0].path}: holds no row with both a path and a label")
    origin = _origin(tables, parts)
    one_row_per_image(parts, dropped, notes, task=data.task)
    if list(parts) == ["all"]:
        parts, origin = _by_folders(*parts["all"])
    if list(parts) == ["all"]:
        parts, origin = split_by_lists(seen if images is not None else beside(tables[0][0].path), parts, dropped, notes)
    if near:
        notes.append(f"{near} images were found by nearly the name in the table (folder, suffix, letter case, encoding)")
    if images is not None:
        dropped += [(printable(image), "an image in no row of the table") for image in seen.images if image not in used]
    by_split = {s: Table(image_rows(p), labels, p) for s, (p, labels) in sorted(parts.items())}
    has_sets = any(isinstance(label, LabelSet) for _, labels in parts.values() for label in labels)
    home = tables[0][0].path.absolute().parent
    return Found(
        by_split, root=str(seen.root.absolute()), names=None if has_sets else read_class_names(home), dropped=dropped, notes=notes,
        split_origin=origin,
    )  # fmt: skip


def _hot_names(table: tuple[Rows, str], data: Data, images: ImageIndex | None) -> set[str]:
    """The columns of 0 and 1 of the largest table: in a small one a label may occur nowhere. Empty where there are none."""
    rows, name = table
    columns = find_columns(rows, data, images, folder_of(name))
    return {rows.header[i] for i in columns.labels} if len(columns.labels) > 1 else set()


def _origin(tables: Sequence[tuple[Rows, str]], parts: dict[str, tuple[list[str], list[str | LabelSet]]]) -> str:
    if list(parts) == ["all"]:
        return ""
    return (
        f"tables {some(printable(name) for _, name in tables)}" if len(tables) > 1 else f"a column or the name of {tables[0][0].path.name}"
    )


def _by_folders(paths: list[str], labels: list[str | LabelSet]) -> tuple[dict[str, tuple[list[str], list[str | LabelSet]]], str]:
    """Rows of a table that tells no split, split by the folders of their images where these are called train, val and test."""
    splits = [folder_split(folder_of(path)) for path in paths]
    if "train" not in splits or not {"val", "test"} & {*splits} or None in splits:
        return {"all": (paths, labels)}, ""
    parts: dict[str, tuple[list[str], list[str | LabelSet]]] = {}
    for path, label, split in zip(paths, labels, splits, strict=True):
        some_paths, some_labels = parts.setdefault(split or "all", ([], []))
        some_paths.append(path)
        some_labels.append(label)
    return parts, f"the images' folders {some(f'{s}/' for s in sorted(parts))}"


def _where(rows: Rows, columns: Columns, root: Path, images: ImageIndex | None, base: str) -> _Located:
    folder = rows.path.absolute().parent
    sample = spread([c for c in rows.column(columns.image) if c], SAMPLE)
    if folder == root.absolute() and all(existing(folder / _local_path(c)) for c in sample):
        return _Located(folder, root.absolute(), None, base)
    index = images
    if index is None:
        around = survey_around(rows.path)
        index = ImageIndex(around.root, around.images)
        base = os.path.relpath(folder, around.root).replace(os.sep, "/")
    return _Located(folder, root.absolute(), index, base)


def _row_split(row: Sequence[str], column: int, path: Path, number: int) -> str:
    cell = row[column].strip() if column < len(row) else ""
    word = SPLIT_WORDS.get(cell.lower())
    if word is None:
        known = "train, val (valid, validation, dev), test"
        raise DataError(f"{path} row {number}: unknown split {cell!r}{did_you_mean(cell, SPLIT_WORDS)}; expected {known}")
    return word


def _cells(rows: Rows, columns: Columns, data: Data, notes: list[str]) -> Sequence[str | LabelSet]:
    """What every row says: a label, several, or "" where nothing is said."""
    if len(columns.labels) > 1:
        header = [rows.header[i] for i in columns.labels]
        cells = [rows.column(i) for i in columns.labels]
        if not one_hot(header, cells):
            raise DataError(
                f"{rows.path}: the columns {some(header)} hold other values than 0, 1 and -1; set data.label_column to one of them"
            )
        minus = minus_is_no(cells)
        sets = [hot_labels(header, row, minus=minus) for row in zip(*cells, strict=True)]
        if minus:
            notes.append(f"-1 in the columns {some(header)} is read as no: no 0 is written there")
        if data.task != "multilabel" and all(len(s.present) == 1 and not s.unknown for s in sets):
            notes.append(
                f"each row has a 1 in one of the columns {some(header)}: one class per image; --task multilabel reads them as labels"
            )
            return [s.present[0] for s in sets]
        notes.append(f"the columns {some(header)} are read as labels, of which an image may have several; --label-column names one alone")
        return sets
    [column] = columns.labels
    plain = rows.column(column)
    header_text = rows.header[column] if rows.header else ""
    mark = separator(plain, header_text) if data.task != "classify" else None
    if mark is None and data.task != "multilabel":
        return plain
    mark = mark or next((m for m in ("|", ";", ",", " ") if any(m in cell for cell in plain)), " ")
    example = next((cell for cell in plain if len(split_cell(cell, mark)) > 1), "")
    notes.append(f"cells such as {example!r} are read as several labels of an image; --task classify reads each as one class")
    return [LabelSet(split_cell(cell, mark)) for cell in plain]
