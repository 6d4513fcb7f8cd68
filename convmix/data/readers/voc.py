"""Pascal VOC's XML, one file an image; which image it belongs to, and which split that is in, is told by `readers/`.

Boxes are taken as edges in pixels, which is what LabelImg and its successors write. The challenge's own files count pixels from 1 and name
the last one inside: from their left and top 1 is taken away. They are known by their mark, <annotation>PASCAL VOC2007</annotation>.
Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.
"""

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from convmix.config import Data, Size
from convmix.data.formats import printable
from convmix.data.readers.objectrows import Box, Fault, ObjectRows, ObjectSet, Turned, annotated_size, fit_box, left_out, numbers
from convmix.data.readers.paired import PairedSplits
from convmix.data.readers.shapes import extent, turned_about_centre
from convmix.errors import did_you_mean


@dataclass
class _Picture:
    """One image as its XML describes it."""

    image: Path
    xml: str  # relative to the data set
    size: Size
    orientation: int  # EXIF's, where the XML names the size before it turned the image; else 1
    written: list[tuple[int, str, Box, bool]] = field(default_factory=list)  # line, class name, box as written, difficult
    turned: int = 0  # of them: as a box that may be turned
    objects: list[tuple[int, str, Box, bool]] = field(default_factory=list)  # the same, the boxes cut to the upright image


def read_voc(pairs: PairedSplits, *, data: Data) -> ObjectSet:
    """The classes are the names that occur in the training images, sorted; an object of another name is dropped from the other splits. An
    image without XML is dropped: VOC describes an image without objects by an XML without objects.
    """
    dropped, root = list(pairs.dropped), pairs.root
    pictures = {
        split: _pictures([(root / xml, root / image) for image, xml in of_split if xml], root, dropped, data)
        for split, of_split in pairs.splits.items()
    }
    turned = Turned()
    for picture in (p for of_split in pictures.values() for p in of_split if p.orientation > 1):
        turned.see([box for _, _, box, _ in picture.written], picture.size)
    for of_split in pictures.values():
        _fit(of_split, turned, dropped)
    known = next((split for split in ("train", "all") if split in pictures), None)
    taught = [p for split, of_split in pictures.items() if known in (None, split) for p in of_split]
    classes = tuple(sorted({name for p in taught for _, name, _, _ in p.objects}))
    found = ObjectSet({}, classes, dropped, [*pairs.notes, *turned.note()], pairs.origin)
    if oriented := sum(p.turned for of_split in pictures.values() for p in of_split):
        found.notes.append(f"{oriented} oriented boxes (robndbox) are read as the upright boxes around them")
    for split, of_split in pictures.items():
        found.splits[split] = _rows(of_split, root, found)
    return found


# What an XML says


def _pictures(pairs: list[tuple[Path, Path]], root: Path, dropped: list[tuple[str, str]], data: Data) -> list[_Picture]:
    pictures = []
    for xml, image in pairs:
        name = printable(os.path.relpath(xml, root))
        try:
            tree, lines = parse_xml(xml, "annotation")
            objects = tree.findall("object")
        except Fault as fault:
            dropped.append((name, f"{fault}; its image is left out"))
            continue
        try:
            picture = _Picture(image, name, *annotated_size(image, data, _size(tree)))
        except Fault as fault:
            dropped.append((printable(os.path.relpath(image, root)), left_out(str(fault), len(objects))))
            continue
        first = 1 if (tree.findtext("source/annotation") or "").strip().startswith("PASCAL VOC") else 0
        for element in objects:
            line = lines[element]
            try:
                class_name = (element.findtext("name") or "").strip()
                if not class_name:
                    raise Fault("an object without name")
                picture.turned += element.find("bndbox") is None
                picture.written.append((line, class_name, _box(element, first), (element.findtext("difficult") or "").strip() == "1"))
            except Fault as fault:
                dropped.append((f"{name}:{line}", str(fault)))
        pictures.append(picture)
    return pictures


def parse_xml(xml: Path, root: str) -> tuple[Element, dict[Element, int]]:
    """The root element and the line of every element. A DOCTYPE, and with it entities that expand without end, is refused."""
    builder = TreeBuilder()
    lines: dict[Element, int] = {}
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    def refuse(*_: object) -> None:
        raise Fault("an XML with a DOCTYPE, which is not read")

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml.read_bytes(), True)
    except expat.ExpatError as error:
        raise Fault(f"broken XML in line {error.lineno}: {expat.ErrorString(error.code)}") from None
    except OSError as error:
        raise Fault(f"cannot be read: {error.strerror}") from None
    tree = builder.close()
    if tree.tag != root:
        raise Fault(f"an XML of <{tree.tag}>, expected <{root}>")
    return tree, lines


def _size(tree: Element) -> Size | None:
    """As written; None where it is not, or as 0, which some tools write for not known."""
    try:
        height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _fit(pictures: list[_Picture], turned: Turned, dropped: list[tuple[str, str]]) -> None:
    for picture in pictures:
        for line, name, box, difficult in picture.written:
            try:
                fitting = fit_box(*turned.box(box, picture.size, picture.orientation), picture.size)
                picture.objects.append((line, name, fitting, difficult))
            except Fault as fault:
                dropped.append((f"{picture.xml}:{line}", str(fault)))


def _box(element: Element, first: int) -> Box:
    """first: the number of the first pixel where the box names pixels, else 0."""
    box = element.find("bndbox")
    if box is None and (turned := element.find("robndbox")) is not None:
        return _around(turned)
    if box is None:
        raise Fault("an object without bndbox")
    left, top, right, bottom = numbers([box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")])
    return left - first, top - first, right, bottom


def _around(box: Element) -> Box:
    """The upright box around a turned one, as roLabelImg writes it."""
    cx, cy, width, height, radians = numbers([box.findtext(key) for key in ("cx", "cy", "w", "h", "angle")])
    edges = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    return extent(turned_about_centre(edges, math.degrees(radians)))


def written_name(head: bytes) -> str:
    """The image that an XML names, from its beginning; nothing where it names none."""
    found = re.search(rb"<filename>([^<]+)</filename>", head)
    return found.group(1).decode("utf-8", "replace").strip() if found else ""


def _rows(pictures: list[_Picture], root: Path, found: ObjectSet) -> ObjectRows:
    rows = ObjectRows(with_masks=False)
    for picture in pictures:
        rows.image(picture.image, os.path.relpath(picture.image, root), picture.size)
        for line, name, box, difficult in picture.objects:
            try:
                if name not in found.classes:
                    raise Fault(f"of class {name!r}, which the training images do not have{did_you_mean(name, found.classes)}")
                rows.object(box, found.classes.index(name), crowd=difficult)
            except Fault as fault:
                found.dropped.append((f"{picture.xml}:{line}", str(fault)))
    return rows
