"""What annotation files are, by a look into a sample of them: COCO, LabelMe, VOC, YOLO and others, and some that are known but not read.

Files of one kind in one folder are taken for alike; a few of each folder are looked into.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convmix.data.readers.names import plain
from convmix.data.readers.survey import Survey, folder_of, spread, stem_of
from convmix.data.regular import open_regular
from convmix.errors import DataError

SAMPLE = 8  # files of a folder that are looked into
MOST_TABLES = 20
WHOLE = 1 << 20  # bytes; a larger file is searched, not parsed
NOT_LABELS = frozenset({
    "classes", "train", "val", "valid", "validation", "test", "trainval", "readme", "license", "requirements", "labels", "notes",
    "names", "obj",
})  # fmt: skip

READ_FORMS = ("coco", "labelme", "labelstudio", "cvat", "via", "createml", "bdd100k", "voc", "yolo", "kitti", "dota")
PANOPTIC = "COCO panoptic"
UNREAD = {  # forms of JSON that are known and not read, with keys that tell them
    "Supervisely": (b"classTitle", b"objects"), "Datumaro": (b"items", b"categories", b"label_id"),
    "Cityscapes polygons": (b"imgHeight", b"polygon"),
    "Darwin (V7)": (b"bounding_box", b"item"), "FiftyOne": (b"classes", b"labels", b"bounding_box"), "Labelbox": (b"data_row", b"projects"),
}  # fmt: skip
ANNOTATED = (*READ_FORMS, "masks")  # layouts of annotated data


def forms(survey: Survey) -> dict[str, list[str]]:
    """Form -> the files that have it: those of READ_FORMS, and the names of forms that are not read."""
    found: dict[str, list[str]] = {}
    tables = survey.of("table")
    _gather(found, "via", [n for n in tables if len(tables) <= MOST_TABLES and b"region_shape_attributes" in survey.head(n, 512)])
    for kind, look in (("json", json_form), ("xml", xml_form), ("text", None)):
        by_folder: dict[str, list[str]] = {}
        for name in survey.of(kind):  # type: ignore[arg-type]
            by_folder.setdefault(folder_of(name), []).append(name)
        for names in by_folder.values():
            if kind == "text":
                _gather(found, *_text_forms(survey, names))
            elif len(names) <= SAMPLE:
                for form, mine in _few(survey, names, look).items():  # type: ignore[arg-type]
                    _gather(found, form, mine)
            else:
                seen = {name: look(survey.path(name)) for name in spread(names, SAMPLE)}  # type: ignore[misc]
                common = Counter(form for form in seen.values() if form).most_common(1)
                others = {name for name, form in seen.items() if form != (common[0][0] if common else "")}
                _gather(found, common[0][0] if common else "", [name for name in names if name not in others])
                for name in others:
                    _gather(found, seen[name], [name])
    return found


def _few(survey: Survey, names: Sequence[str], look: Callable[[Path], str]) -> dict[str, list[str]]:
    """Form -> files; an XML without a form is as broken as the readers of its neighbours say."""
    found: dict[str, list[str]] = {}
    seen = {name: look(survey.path(name)) for name in names}
    usual = Counter(form for form in seen.values() if form).most_common(1)
    for name, form in seen.items():
        found.setdefault(form or (usual[0][0] if usual and look is xml_form else ""), []).append(name)
    return found


def _gather(found: dict[str, list[str]], form: str, names: list[str]) -> None:
    if form and names:
        found.setdefault(form, []).extend(names)


# JSON


def json_form(path: Path) -> str:
    """Of a JSON file; "" where it is none of those known."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    keys = [
        key
        for key in (b"images", b"annotations", b"shapes", b"imagePath", b"result", b"regions", b"coordinates")
        if b'"%s"' % key in content
    ]
    if b'"segments_info"' in content:
        return PANOPTIC
    if {b"images", b"annotations"} <= {*keys}:
        return "coco"
    if b"shapes" in keys:
        return "labelme"
    value = load_json(content) if len(content) <= WHOLE else None
    first = _first_record(value)
    if b"result" in keys and b"annotations" in keys and content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"[", b"{")):
        return "labelstudio"
    if isinstance(first, dict) and any(
        isinstance(v, list) and v and isinstance(v[0], dict) and "original_width" in v[0] for v in first.values()
    ):
        return "labelstudio"
    if b"regions" in keys and b'"shape_attributes"' in content:
        return "via"
    if b"coordinates" in keys and (b"annotations" in keys or b'"annotation"' in content):
        return "createml"
    if b'"box2d"' in content and (b'"labels"' in content or b'"objects"' in content):
        return "bdd100k"
    return next((form for form, marks in UNREAD.items() if all(b'"%s"' % mark in content for mark in marks)), "")


def load_json(content: bytes) -> Any:
    """The value; None where it is no JSON."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _first_record(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


# XML


def xml_form(path: Path) -> str:
    try:
        with open_regular(path) as file:
            head = file.read(200_000)
    except OSError:
        return ""
    if re.search(rb"<annotations\b", head) and re.search(rb"<(image|track|meta)\b", head):
        return "cvat"
    return "voc" if b"<annotation" in head[:1000] else ""


# Text


def _text_forms(survey: Survey, names: Sequence[str]) -> tuple[str, list[str]]:
    """The form of a folder's text files that have the names of images, and those files."""
    stems = {plain(stem_of(image)) for image in survey.images}
    labels = [name for name in names if stem_of(name).lower() not in NOT_LABELS]
    paired = [name for name in labels if {plain(stem_of(name)), plain(stem_of(stem_of(name)))} & stems]
    if not paired:
        return "", []
    seen = Counter(form for name in spread(paired, 3 * SAMPLE) if (form := text_form(survey.head(name, 1 << 16))))
    form = seen.most_common(1)[0][0] if seen else ""
    return form, labels if form == "yolo" else paired


def text_form(content: bytes) -> str:
    """Of the label file of one image; "" for an empty one and for other text."""
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    lines = [line.split() for line in content.decode(encoding, "replace").splitlines() if line.strip()]
    kinds = Counter(form for words in lines if (form := _line_form(words)))
    return kinds.most_common(1)[0][0] if kinds else ""


def _line_form(words: list[str]) -> str:
    numeric = [_is_number(word) for word in words]
    if len(words) >= 5 and all(numeric):
        return "yolo"
    if len(words) >= 15 and not numeric[0] and all(numeric[1:15]):
        return "kitti"
    if len(words) in (9, 10) and all(numeric[:8]) and not numeric[8]:
        return "dota"
    if len(words) == 1 and len(cells := words[0].strip(",").split(",")) in (8, 9, 10) and all(map(_is_number, cells[:8])):
        return "numbers between commas, as of VisDrone"
    if len(words) in (5, 6) and not numeric[0] and all(numeric[1:]):
        return "boxes with names"
    return ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
