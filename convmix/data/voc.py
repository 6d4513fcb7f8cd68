"""Pascal VOC's XML, one file an image: Annotations/ + JPEGImages/ + ImageSets/Main/, or image and XML side by side.

Boxes are taken as edges in pixels, which is what LabelImg and its successors write. The challenge's own files count pixels from 1 and name
the last one inside: from their left and top 1 is taken away. They are known by their mark, <annotation>PASCAL VOC2007</annotation>.
Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from convmix.config import Data, Size
from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS, printable
from convmix.data.objectrows import Box, Fault, ObjectRows, ObjectSet, fit_box, image_size, left_out, numbers
from convmix.errors import DataError, did_you_mean

LISTS = {**SPLIT_WORDS, "trainval": "train"}  # the name of a list of images -> split; trainval only where train is missing


@dataclass
class _Picture:
    """One image as its XML describes it."""

    image: Path
    xml: str  # relative to the data set
    size: Size
    objects: list[tuple[int, str, Box, bool]] = field(default_factory=list)  # line, class name, box, difficult


def read_voc(root: Path, *, data: Data) -> ObjectSet | None:
    """The data set in a folder, or None where it is no such folder.

    The classes are the names that occur in the training images, sorted; an object of another name is dropped from the other splits. An
    image without XML is dropped: VOC describes an image without objects by an XML without objects.
    Raises DataError for a list of images that cannot be read.
    """
    dropped: list[tuple[str, str]] = []
    pairs = _devkit(root, dropped) if (root / "Annotations").is_dir() else _side_by_side(root, dropped)
    if pairs is None:
        return None
    pictures = {split: _pictures(of_split, root, dropped, data) for split, of_split in pairs.items()}
    known = next((split for split in ("train", "all") if split in pictures), None)
    taught = [p for split, of_split in pictures.items() if known in (None, split) for p in of_split]
    found = ObjectSet({}, tuple(sorted({name for p in taught for _, name, _, _ in p.objects})), dropped)
    for split, of_split in pictures.items():
        found.splits[split] = _rows(of_split, root, found)
    return found


# Which image and which XML belong together


def _devkit(root: Path, dropped: list[tuple[str, str]]) -> dict[str, list[tuple[Path, Path]]] | None:
    """Per split pairs of XML and image by the lists in ImageSets/Main; all of them as one where there are no lists."""
    xmls = {f.stem: f for f in sorted((root / "Annotations").iterdir()) if f.suffix.lower() == ".xml"}
    images = _images_in(root / "JPEGImages")
    if not xmls or not any(map(_is_voc, list(xmls.values())[:5])):
        return None
    if not images:
        raise DataError(f"{root / 'JPEGImages'}: holds no images for the {len(xmls)} files in Annotations/")
    main = root / "ImageSets" / "Main"
    lists = {f.stem.lower(): f for f in sorted(main.glob("*.txt")) if f.stem.lower() in LISTS} if main.is_dir() else {}
    if "train" in {LISTS[word] for word in lists if word != "trainval"}:
        lists.pop("trainval", None)
    if not lists:
        dropped += [_without_xml(images[stem], root) for stem in sorted(set(images) - set(xmls))]
        return {"all": list(_matched(xmls.values(), images, root, dropped))}
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    for word, file in lists.items():
        name = os.path.relpath(file, root)
        stems = _listed(file, name, images, dropped)
        listed = [xmls[stem] for stem in stems if stem in xmls]
        dropped += [_without_xml(images[stem], root) for stem in stems if stem not in xmls and stem in images]
        dropped += [
            (printable(f"{name}: {stem}"), "neither an image nor an XML") for stem in stems if stem not in xmls and stem not in images
        ]
        pairs.setdefault(LISTS[word], []).extend(_matched(listed, images, root, dropped))
    return pairs


def _listed(file: Path, name: str, images: dict[str, Path], dropped: list[tuple[str, str]]) -> list[str]:
    """The stems that a list names, one a line; what follows it on a line (1, -1) is not asked for here."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of images: {error}") from None
    stems: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        stem = line.split()[0] if line.split() else ""
        stem = stem if stem in images or Path(stem).suffix.lower() not in IMAGE_SUFFIXES else Path(stem).stem
        if stem in stems:
            dropped.append((f"{name}:{number}", f"{stem} is listed twice"))
        elif stem:
            stems[stem] = None
    return list(stems)


def _side_by_side(root: Path, dropped: list[tuple[str, str]]) -> dict[str, list[tuple[Path, Path]]] | None:
    """Per split pairs of XML and image in one folder, or in one folder per split."""
    folders = {"all": root} if any(f.suffix.lower() == ".xml" for f in root.iterdir()) else {}
    if not folders:
        folders = {SPLIT_WORDS[f.name.lower()]: f for f in sorted(root.iterdir()) if f.is_dir() and f.name.lower() in SPLIT_WORDS}
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    for split, folder in folders.items():
        images = _images_in(folder)
        xmls = [f for f in sorted(folder.iterdir()) if f.suffix.lower() == ".xml"]
        if images and any(map(_is_voc, xmls[:5])):
            without = sorted(set(images) - {f.stem for f in xmls})
            dropped += [_without_xml(images[stem], root) for stem in without]
            pairs[split] = list(_matched(xmls, images, root, dropped))
    return pairs or None


def _images_in(folder: Path) -> dict[str, Path]:
    """Image files by stem."""
    files = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    return {f.stem: f for f in files if f.suffix.lower() in IMAGE_SUFFIXES}


def _without_xml(image: Path, root: Path) -> tuple[str, str]:
    return printable(os.path.relpath(image, root)), "an image without XML"


def _matched(xmls: Iterable[Path], images: dict[str, Path], root: Path, dropped: list[tuple[str, str]]) -> Iterable[tuple[Path, Path]]:
    for xml in xmls:
        if xml.stem in images:
            yield xml, images[xml.stem]
        else:
            dropped.append((printable(os.path.relpath(xml, root)), f"no image {printable(xml.stem)}.jpg or of another suffix"))


def _is_voc(xml: Path) -> bool:
    try:
        return b"<annotation" in xml.read_bytes()[:1000]
    except OSError:
        return False


# What an XML says


def _pictures(pairs: list[tuple[Path, Path]], root: Path, dropped: list[tuple[str, str]], data: Data) -> list[_Picture]:
    pictures = []
    for xml, image in pairs:
        name = printable(os.path.relpath(xml, root))
        try:
            tree, lines = _parse(xml)
            objects = tree.findall("object")
        except Fault as fault:
            dropped.append((name, f"{fault}; its image is left out"))
            continue
        try:
            picture = _Picture(image, name, image_size(image, data, annotated=_size(tree)))
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
                box = _box(element, first, picture.size)
                picture.objects.append((line, class_name, box, (element.findtext("difficult") or "").strip() == "1"))
            except Fault as fault:
                dropped.append((f"{name}:{line}", str(fault)))
        pictures.append(picture)
    return pictures


def _parse(xml: Path) -> tuple[Element, dict[Element, int]]:
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
    if tree.tag != "annotation":
        raise Fault(f"an XML of <{tree.tag}>, expected <annotation>")
    return tree, lines


def _size(tree: Element) -> Size | None:
    """As written; None where it is not, or as 0, which some tools write for not known."""
    try:
        height, width = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _box(element: Element, first: int, size: Size) -> Box:
    """first: the number of the first pixel where the box names pixels, else 0."""
    box = element.find("bndbox")
    if box is None:
        raise Fault("an object without bndbox")
    left, top, right, bottom = numbers([box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")])
    return fit_box(left - first, top - first, right, bottom, size)


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
