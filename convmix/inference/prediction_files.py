"""Dense predictions written for people and for programs, row by row: one file, or a folder with a file per image.

    table    a line per image                                    voc       a folder of Pascal VOC XML
    csv      a row per object, or per image and class            masks     a folder of PNGs: numbers of objects, or classes
    jsonl    a line per image                                    pictures  a folder of the images with what was found drawn on them
    coco     objects alone: one JSON file that pycocotools reads
    json     class maps and labels alone: one list           parquet   labels alone: a row per image

A folder mirrors the images' names below their common folder and lists them in files.csv. An image without an answer is a row there, or in
the file, that says why. Files appear when they are complete.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from convmix.atomic import csv_line, replacing, write_bytes, write_json
from convmix.config import Data
from convmix.data.coco_ids import NO_IDS, CocoIds
from convmix.data.decode import BadImage, ValueRange, decode
from convmix.data.formats import printable
from convmix.errors import ConfigError
from convmix.inference.output_forms import FOLDERS, output_format
from convmix.inference.result_files import DenseResult, classes_png, coco_annotations, instances_png, summary, table_rows, to_dict, voc
from convmix.plots import overlay
from convmix.results import Boxes, ImageLabels, Masks, SemanticMap

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

_COLUMNS = {
    Boxes: ("label", "score", "left", "top", "right", "bottom"),
    Masks: ("label", "score", "left", "top", "right", "bottom", "area"),
    SemanticMap: ("label", "share"),
    ImageLabels: ("labels", "probabilities"),
}
_HEADS = {SemanticMap: ("share of the image", "certainty"), ImageLabels: ("labels", "most probable")}


@dataclass(frozen=True)
class DetectionFile:
    """What was found in one image, or why nothing could be said about it."""

    name: str  # as the user gave it
    path: str  # of the image file
    result: Boxes | Masks | SemanticMap | ImageLabels | None  # None: see `error`
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a name that is no UTF-8 has its odd bytes as \\xNN."""
        return {"name": printable(self.name), **({} if self.result is None else to_dict(self.result)), "error": self.error}


def write(
    rows: Iterable[DetectionFile],
    *,
    kind: type[DenseResult],
    format: str | None,
    output: str | Path,
    labels: Sequence[str],
    root: str | Path = "",
    max_pixels: int = Data().max_pixels,
    value_range: ValueRange | None = None,
    ids: CocoIds = NO_IDS,
) -> None:
    """Write every row as it comes; all but a table are written without holding the results in memory.

    kind: the type of the results, also where there is none.
    format: one of FORMATS[kind]; None: by the output's suffix.
    output: a file ('-': standard output), or a folder for `FOLDERS`.
    root: what a folder's files are named below, as `common_folder` finds it; an image elsewhere keeps its whole path.
    max_pixels: an image with more is not drawn. value_range: of 16-bit images that are drawn on, as in the model's preprocessing.
    ids: those that the COCO format gives to classes and images; others count from 1.
    """
    form = output_format(format, output, kind=kind)
    if form in FOLDERS:
        _Folder(Path(output), form, kind=kind, labels=labels, root=root, max_pixels=max_pixels, value_range=value_range).write(rows)
        return
    with opened(output) as file:
        for part in encode(rows, kind=kind, format=form, labels=labels, is_terminal=file.isatty(), ids=ids):
            file.write(part)
            if os.fspath(output) == "-":
                file.flush()


def encode(
    rows: Iterable[DetectionFile],
    *,
    kind: type[DenseResult],
    format: str,
    labels: Sequence[str],
    is_terminal: bool = False,
    ids: CocoIds = NO_IDS,
) -> Iterator[bytes]:
    """The rows in one of the formats that are no folder, part by part."""
    if format in ("csv", "csv-raw"):
        columns = _COLUMNS[kind]
        yield csv_line(["name", *columns, "error"])
        for row in rows:
            cells = [] if row.result is None else table_rows(row.result)
            for values in cells or [(None,) * len(columns)]:  # an image without objects is a row too
                yield csv_line([printable(row.name), *values, row.error], raw=format == "csv-raw")
    elif format == "jsonl":
        for row in rows:
            yield _json(row.to_dict()) + b"\n"
    elif format == "json":
        before = b"[\n"
        for row in rows:
            yield before + _json(row.to_dict())
            before = b",\n"
        yield b"\n]\n" if before == b",\n" else b"[]\n"
    elif format == "coco":
        yield from _coco(rows, labels, ids)
    elif format == "parquet":
        yield _parquet(rows, labels)
    else:
        from rich.console import Console

        text = io.StringIO()
        width = None if is_terminal else 100_000  # a table in a file is as wide as its longest name
        Console(file=text, width=width, force_terminal=is_terminal).print(table(rows, kind=kind))
        yield text.getvalue().encode()


def table(rows: Iterable[DetectionFile], *, kind: type[DenseResult]) -> "Table":
    """The rows for a terminal: what is in each image, and how sure."""
    from rich.table import Table
    from rich.text import Text

    lines = [(visible(printable(row.name)), *(("", "") if row.result is None else summary(row.result)), row.error) for row in rows]
    has_errors = any(error for *_, error in lines)
    result = Table(box=None, header_style="bold", pad_edge=False)
    result.add_column("file", overflow="fold")
    what, how_sure = _HEADS.get(kind, ("objects", "surest"))
    result.add_column(what, overflow="fold")
    result.add_column(how_sure, justify="right", overflow="fold")
    if has_errors:
        result.add_column("error", style="red", overflow="fold")
    for name, said, sure, error in lines:
        result.add_row(Text(name), Text(visible(said)), Text(visible(sure)), *([Text(error or "")] if has_errors else []))
    return result


def common_folder(names: Sequence[str]) -> str:
    """The deepest folder that all files are below; "" where there is none."""
    folders = {os.path.dirname(name) for name in names}  # noqa: PTH120 - names may hold what Path would simplify
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # absolute and relative names
        return ""


def opened(output: str | Path) -> contextlib.AbstractContextManager[Any]:
    """A binary file to write to, which appears when it is complete; '-' is standard output. ConfigError for a folder."""
    if os.fspath(output) == "-":
        return contextlib.nullcontext(sys.stdout.buffer)
    if Path(output).is_dir():
        raise ConfigError(f"output: {output} is a folder, expected a file such as {Path(output) / 'predictions.csv'}")
    return replacing(Path(output))


def visible(text: str) -> str:
    """Line ends and control characters written out: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def label_schema(labels: Sequence[str]) -> "pa.Schema":
    """The columns of ImageLabels in a parquet file: `DetectionFile.to_dict`."""
    import pyarrow as pa

    said = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))
    probabilities = pa.struct([(label, pa.float64()) for label in labels])
    return pa.schema([("name", pa.string()), ("labels", said), ("probabilities", probabilities), ("error", pa.string())])


def _parquet(rows: Iterable[DetectionFile], labels: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row.to_dict() for row in rows], schema=label_schema(labels)), sink)
    return sink.getvalue()


def _coco(rows: Iterable[DetectionFile], labels: Sequence[str], ids: CocoIds) -> Iterator[bytes]:
    """One COCO file: the annotations as they come, the short list of images behind them."""
    category_ids, image_ids = ids.of_classes(labels), ids.of_images()
    categories = [{"id": i, "name": label} for i, label in zip(category_ids, labels, strict=True)]
    yield b'{"categories": ' + _json(categories) + b',\n"annotations": ['
    images, errors, written = [], [], 0
    for row in rows:
        if not isinstance(row.result, Boxes):
            errors.append({"file_name": printable(row.name), "error": row.error})
            continue
        height, width = row.result.size
        image_id = image_ids(row.path or row.name)
        images.append({"id": image_id, "file_name": printable(row.name), "width": width, "height": height})
        for annotation in coco_annotations(row.result, image_id=image_id, category_ids=category_ids, first_id=written + 1):
            yield (b",\n" if written else b"\n") + _json(annotation)
            written += 1
    yield b'],\n"images": ' + _json(images) + b',\n"errors": ' + _json(errors) + b"}\n"


class _Folder:
    """A file per image, and files.csv that says which is whose."""

    def __init__(
        self,
        folder: Path,
        format: str,
        *,
        kind: type[DenseResult],
        labels: Sequence[str],
        root: str | Path,
        max_pixels: int,
        value_range: ValueRange | None = None,
    ) -> None:
        self.folder, self.labels, self.root, self.max_pixels, self.value_range = folder, labels, root, max_pixels, value_range
        self.is_numbered = format == "masks" and kind is Masks  # every object has its number in the picture
        self.palette = overlay.palette(len(labels)) if format == "masks" and kind is SemanticMap else []
        self._taken: dict[str, str] = {}  # place, in small letters -> name of the image
        self._encode: Callable[[DetectionFile, Path], bytes] = {"voc": self._voc, "masks": self._mask, "pictures": self._picture}[format]
        self._suffix = {"voc": ".xml", "masks": ".png"}.get(format)

    def write(self, rows: Iterable[DetectionFile]) -> None:
        if self.palette:
            write_json(self.folder / "classes.json", {"names": list(self.labels), "palette": [list(c) for c in self.palette]})
        numbers = ("number", "label", "score") if self.is_numbered else ()
        with replacing(self.folder / "files.csv") as listing:
            listing.write(csv_line(["name", "file", *numbers, "error"]))
            for row in rows:
                place, error = None, row.error
                if row.result is not None:
                    place = self._place(row)
                    try:
                        write_bytes(self.folder / place, self._encode(row, self.folder / place))
                    except BadImage as problem:
                        place, error = None, str(problem)
                objects: list[tuple[object, ...]] = [(None,) * len(numbers)]
                if numbers and isinstance(row.result, Masks) and len(row.result):
                    objects = [(number, label, score) for number, (label, score, *_) in enumerate(table_rows(row.result), start=1)]
                for values in objects:
                    listing.write(csv_line([printable(row.name), None if place is None else printable(str(place)), *values, error]))

    def _place(self, row: DetectionFile) -> PurePath:
        """Where the file of an image goes, below the folder: another place for every name, and never among the images."""
        name = PurePath(row.name)
        with contextlib.suppress(ValueError):
            name = name.relative_to(self.root or ".")
        parts = [part for part in name.parts if part not in (name.anchor, "..")]
        suffix = self._suffix or (name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png")
        place = PurePath(*parts).with_suffix(suffix)
        number = 1
        while self._taken.setdefault(str(place).lower(), row.name) != row.name:  # a.jpg and a.png, or ../a.jpg and a.jpg
            number += 1
            place = PurePath(*parts).with_name(f"{name.stem}-{number}{suffix}")
        here, there = (self.folder / place).parent, Path(row.path).parent
        if here.exists() and there.exists() and here.samefile(there):
            raise ConfigError(f"output: {here} is where the images are, some of which might be overwritten; name another folder")
        return place

    def _voc(self, row: DetectionFile, file: Path) -> bytes:
        assert isinstance(row.result, Boxes)
        return voc(row.result, printable(row.name))

    def _mask(self, row: DetectionFile, file: Path) -> bytes:
        if isinstance(row.result, Masks):
            return instances_png(row.result)
        assert isinstance(row.result, SemanticMap)
        return classes_png(row.result, self.palette)

    def _picture(self, row: DetectionFile, file: Path) -> bytes:
        """The image again, with the result drawn on it; a JPEG where the image is one. BadImage where it cannot be read any more."""
        assert isinstance(row.result, (Boxes, SemanticMap))
        image = decode(row.path, in_chans=3, max_pixels=self.max_pixels, value_range=self.value_range)
        if not isinstance(image, PIL.Image.Image):
            raise BadImage("no picture that can be drawn on")
        size = tuple(row.result.classes.shape) if isinstance(row.result, SemanticMap) else row.result.size
        if image.size != size[::-1]:
            raise BadImage(f"has changed: it is {image.height}x{image.width} now and was {size[0]}x{size[1]}")
        drawn = PIL.Image.fromarray(overlay.draw(np.asarray(image), row.result))
        out = io.BytesIO()
        drawn.save(out, "PNG" if file.suffix == ".png" else "JPEG", **({} if file.suffix == ".png" else {"quality": 92}))
        return out.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
