"""Image files with what says which class they are of: tables, labels of whole images in annotation files, or the folders that they lie in.

path -> survey -> class folders (class_folders), tables (labelled_table), tags (tagged) -> the one that explains what lies there -> Found
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convmix.config import Data
from convmix.data.formats import Found, printable
from convmix.data.readers.class_folders import read_class_folders, refuse_unread
from convmix.data.readers.containers import refuse_arrays, refuse_no_images
from convmix.data.readers.evidence import ANNOTATED, forms
from convmix.data.readers.folder_doubts import are_no_classes, classes_of, in_names, refuse_doubts
from convmix.data.readers.labelled_table import Tables, find_tables, read_tables
from convmix.data.readers.names import plain
from convmix.data.readers.survey import Survey, foreign_notes, some, survey, words_of
from convmix.data.readers.table_files import read_rows
from convmix.data.readers.tagged import read_tagged
from convmix.errors import DataError

BESIDE = frozenset({"labels", "annotations", "masks", "ann", "xml"})


def read_images(path: Path, data: Data) -> Found:
    """DataError where nothing says what is on the images, or where two things say something else."""
    seen = survey(path)
    there = forms(seen)
    if not seen.images:
        raise refuse_no_images(seen)
    refuse_arrays(seen)
    folders, reason = _class_folders(seen)
    are_classes = folders is not None and _are_classes(folders)
    others = {name for names in there.values() for name in names} | (folders.read_files if folders and are_classes else frozenset())
    tables = find_tables(seen, data, others=others, texts=not are_classes) if data.layout in ("auto", "table") else Tables([], [], [])
    if data.layout == "table" and not tables.names:
        raise DataError(
            tables.undecided[0][1] if tables.undecided else f"{path}: no table there names the images; expected a CSV with path,label"
        )
    if tables.names and (data.layout == "table" or not are_classes or (folders and _single_images(folders))):
        found = read_tables(seen, tables.names, data)
        unread = [f"{some(tables.others)} names images too and is not read; give it to read it"] if tables.others else []
        return replace(found, layout="table", notes=[*found.notes, *unread, *foreign_notes(seen)])
    if data.layout in ("auto", *ANNOTATED) and not are_classes and (tagged := read_tagged(seen, there, data.layout)):
        return tagged
    if data.layout in ANNOTATED:
        raise DataError(f"{path}: holds nothing that can be read with --layout {data.layout}")
    if data.layout == "auto":
        refuse_unread(seen, there)
        if tables.undecided and not are_classes:
            raise DataError(tables.undecided[0][1])
    if folders is None:
        csvs = seen.of("table")
        foreign = f"; {'; '.join(foreign_notes(seen))}" if seen.foreign() else ""
        raise DataError(f"{reason}{in_names(seen)}{f'; or give its table: {path / csvs[0]}' if csvs else ''}{foreign}{_hint_beside(path)}")
    if data.layout == "auto":
        refuse_doubts(folders, seen)
        if tables.names:
            _compare_with_table(folders, read_tables(seen, tables.names, data), path, tables.names)
        for name, message in tables.undecided:
            _compare_with_columns(folders, seen, name, message)
    folders.notes += [*_sidecars(seen), *foreign_notes(seen)]
    return folders


def _sidecars(seen: Survey) -> list[str]:
    """A note of files that have the images' names, one each, and are not read."""
    if not seen.of("json", "xml", "text"):
        return []
    stems = {plain(image.rpartition(".")[0]) for image in seen.images}
    found = {kind: [n for n in seen.of(kind) if plain(n.rpartition(".")[0]) in stems] for kind in ("json", "xml", "text")}
    return [f"{len(names)} files of the images' names (such as {printable(names[0])}) are not read" for names in found.values() if names]


def _class_folders(seen: Survey) -> tuple[Found | None, str]:
    """The data set as class folders; None, and why, where it has none."""
    try:
        return read_class_folders(seen), ""
    except DataError as error:
        return None, str(error)


def _are_classes(folders: Found) -> bool:
    """Whether the folders may be classes: two or more, not all of them called images or the like."""
    classes = classes_of(folders)
    return len(classes) > 1 and not are_no_classes(classes)


def _single_images(folders: Found) -> bool:
    """Whether the folders are rather examples than classes, such as patients: of one image each, or others in every split."""
    images = sum(len(table.names) for table in folders.tables.values())
    of_split = {split: {str(label) for label in table.labels} for split, table in folders.tables.items()}
    known = of_split.get("train")
    strangers = known is not None and any(not labels & known for split, labels in of_split.items() if split != "train")
    return strangers or 2 * len(classes_of(folders)) > images


def _compare_with_table(found: Found, table: Found, path: Path, listed: Sequence[str]) -> None:
    """A note where the table says what the folders say, DataError where it says something else."""
    labels = [(name, str(label)) for of_split in table.tables.values() for name, label in zip(of_split.names, of_split.labels, strict=True)]
    same = sum(label in name.split("/")[:-1] for name, label in labels)
    if 10 * same < 9 * len(labels):
        raise DataError(
            f"{path}: the folders are one way to read it, the table {listed[0]} another (its labels are not the folders' names); choose "
            "with --layout folders or --layout table"
        )
    found.notes.append(f"{listed[0]} has the folders' names as labels, and is not needed")


def _compare_with_columns(found: Found, seen: Survey, name: str, message: str) -> None:
    """A note where a table whose columns are not understood has the folders' names in one of them, else DataError."""
    rows = read_rows(seen.path(name))
    classes = {c.casefold() for c in classes_of(found)}
    for i in range(len(rows.header)):
        cells = [c.casefold() for c in rows.column(i) if c]
        if cells and {*cells} <= classes:
            found.notes.append(f"{name} has the folders' names in the column {rows.header[i]}, and is not needed")
            return
    raise DataError(
        f"{seen.root}: the folders are one way to read it (--layout folders), the table {name} another: "
        f"{message.partition(': ')[2] or message}"
    )


def _hint_beside(path: Path) -> str:
    """Where the images of labels/ beside images/ were given alone."""
    parent = path.absolute().parent
    try:
        beside = [p.name for p in sorted(parent.iterdir()) if p.is_dir() and p.name.lower() in BESIDE and p != path.absolute()]
    except OSError:
        return ""
    return f"; {beside[0]}/ lies beside it: give {parent}" if beside and {*words_of(path.name)} & {"images", "image", "img", "imgs"} else ""
