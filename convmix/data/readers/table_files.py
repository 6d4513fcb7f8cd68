"""Files of rows: CSV and TSV in whatever a spreadsheet writes, JSON lines and JSON lists of records -> a header and rows of text.

Excel's `sep=;` line, byte-order marks, UTF-16, cp1252; the delimiter is found. Values of JSON become text; lists stay JSON.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmix.data.formats import IMAGE_COLUMNS, IMAGE_SUFFIXES, LABEL_COLUMNS
from convmix.errors import DataError, first_line

HEADINGS = frozenset((*IMAGE_COLUMNS, *LABEL_COLUMNS, "id", "name"))
ROWS_NAMES = ("rows", "data", "annotations", "images", "items", "samples", "records")  # of the list in a JSON that is no list


@dataclass
class Rows:
    """A table as text."""

    path: Path
    header: list[str]  # empty where the first row is already an example
    rows: list[list[str]]
    first: int  # the number of the first row, as an editor counts lines
    values: list[dict[str, Any]] = field(default_factory=list)  # of JSON: the records themselves

    def column(self, index: int) -> list[str]:
        return [row[index].strip() if index < len(row) else "" for row in self.rows]


def read_rows(path: Path) -> Rows:
    """DataError where the file is no table."""
    if path.suffix.lower() == ".parquet":
        return _of_records(path, _parquet_records(path))
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _of_records(path, load_records(path))
    if path.suffix.lower() in (".txt", ".lst"):
        return Rows(path, [], _listed(path), 1)
    rows = _csv_rows(path)
    while rows and not any(c.strip() for c in rows[0]):
        rows = rows[1:]
    header = [c.strip() for c in rows[0]]
    if _is_example(header):
        return Rows(path, [], rows, 1)
    return Rows(path, header, rows[1:], 2)


def _is_example(cells: list[str]) -> bool:
    """A first row that names an image is no header."""
    return len(cells) >= 2 and any(Path(c.lower()).suffix in IMAGE_SUFFIXES for c in cells[:1])


def load_records(path: Path) -> list[dict[str, Any]]:
    """The records of JSON lines or of a JSON list, an empty list for other JSON. DataError for a broken file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from None
    if path.suffix.lower() != ".json":
        records = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                records += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise DataError(f"{path}:{number}: is broken JSON: {first_line(error)}") from None
        return [r for r in records if isinstance(r, dict)]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is broken JSON: {first_line(error)}") from None
    if isinstance(value, dict):
        value = next((value[key] for key in ROWS_NAMES if isinstance(value.get(key), list)), value)
    if isinstance(value, dict) and value and all(isinstance(v, str | int | list) for v in value.values()):
        return [{"image": key, "label": label} for key, label in value.items()]  # {"a.jpg": "cat"}
    return [r for r in value if isinstance(r, dict)] if isinstance(value, list) else []


def _listed(path: Path) -> list[list[str]]:
    """The lines of a list with an image and its label on each."""
    lines = [line for line in _decoded(path).splitlines() if line.strip()]
    mark = next((m for m in ("\t", ",", ";") if lines and all(line.count(m) == 1 for line in lines)), None)
    rows = [[cell.strip() for cell in line.rsplit(mark, 1)] for line in lines]
    if len(rows) > 1 and [cell.lower() in HEADINGS for cell in rows[0]] == [True, True]:
        rows = rows[1:]
    if not rows or not all(len(row) == 2 and _is_example(row) for row in rows):
        raise DataError(f"{path}: is not a list of images with a label each")
    return rows


def _parquet_records(path: Path) -> list[dict[str, Any]]:
    """Of a file that names images; one that holds them is no table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if any(pa.types.is_binary(f.type) or (pa.types.is_struct(f.type) and "bytes" in {x.name for x in f.type}) for f in schema):
            raise DataError(f"{path}: holds images, and is not a table of their names")
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as parquet: {first_line(error)}") from None


def _of_records(path: Path, records: list[dict[str, Any]]) -> Rows:
    header = list(dict.fromkeys(key for record in records for key in record))
    return Rows(path, header, [[_text(record.get(key)) for key in header] for record in records], 1, records)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv_rows(path: Path) -> list[list[str]]:
    text = _decoded(path)
    lines = text.lstrip().splitlines()
    given = None
    if lines and lines[0].lower().replace('"', "").startswith("sep=") and len(lines[0].replace('"', "")) == 5:
        given, text = lines[0].replace('"', "")[4], text.lstrip().partition("\n")[2]
        lines = lines[1:]
    if not lines or not text.strip():
        raise DataError(f"{path}: is empty; expected a CSV with path,label")
    delimiter = given or (max(",\t;|", key=lines[0].count) if path.suffix.lower() != ".tsv" else "\t")
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    head = raw[:4096]
    if b"\0" in head:
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
            if zeros.count(0) * 10 >= len(zeros) * 8:
                return raw.decode(encoding, "replace")
        raise DataError(f"{path}: is not text; expected a CSV with path,label")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")  # what spreadsheets write where they do not write UTF-8
