"""In which forms answers are written, by the type of the answer; and which one an output's name asks for."""

import os
from collections.abc import Sequence
from pathlib import Path

from convmix.errors import ConfigError, did_you_mean
from convmix.results import Boxes, Classes, ImageLabels, Masks, SemanticMap

AnyResult = Classes | ImageLabels | Boxes | SemanticMap
FORMATS: dict[type[AnyResult], tuple[str, ...]] = {
    Classes: ("table", "csv", "csv-raw", "jsonl", "json", "parquet"),
    ImageLabels: ("table", "csv", "csv-raw", "jsonl", "json", "parquet"),
    Boxes: ("table", "csv", "csv-raw", "jsonl", "coco", "voc", "pictures"),
    Masks: ("table", "csv", "csv-raw", "jsonl", "coco", "voc", "masks", "pictures"),
    SemanticMap: ("table", "csv", "csv-raw", "jsonl", "json", "masks", "pictures"),
}
FOLDERS = ("voc", "masks", "pictures")
_BY_SUFFIX = {  # the first that the type has
    "": ("pictures", "table"), ".txt": ("table",), ".csv": ("csv",), ".jsonl": ("jsonl",), ".ndjson": ("jsonl",),
    ".json": ("coco", "json"), ".parquet": ("parquet",),
}  # fmt: skip


def output_format(format: str | None, output: str | Path | None, *, kind: type[AnyResult]) -> str:
    """The format to write results of this type in: the one asked for, else the one that the output's suffix tells.

    Raises ConfigError for a format that this type does not have, for a suffix that tells none, and for an output that is a folder where a
    file is written, or the other way round.
    """
    choices = FORMATS[kind]
    place = None if output is None or os.fspath(output) == "-" else Path(output)
    form = format or ("table" if place is None else _by_suffix(place, choices))
    if form not in choices:
        raise ConfigError(f"format: {form} is not one of {', '.join(choices)}{did_you_mean(form, choices)}")
    if form in FOLDERS and output is not None and place is None:
        raise ConfigError(f"format: {form} writes a folder of files, which standard output cannot be; give output a folder")
    if place is not None and place.exists() and place.is_dir() != (form in FOLDERS):
        expected = f"{form} writes a folder" if form in FOLDERS else f"expected a file such as {place / f'predictions.{form}'}"
        raise ConfigError(f"output: {output} is a {'folder' if place.is_dir() else 'file'}, {expected}")
    return form


def _by_suffix(place: Path, choices: Sequence[str]) -> str:
    suffix = "" if place.is_dir() else place.suffix.lower()
    for form in _BY_SUFFIX.get(suffix, ()):
        if form in choices:
            return form
    known = ", ".join(s for s, forms in _BY_SUFFIX.items() if s and any(form in choices for form in forms))
    folder = ", name a folder," if "pictures" in choices else ""
    raise ConfigError(f"output: {place} has the unknown suffix {suffix}; end it in {known}{folder} or give format")
