"""Folders of splits around class folders under other names than train/ and test/, and splits whose images lie flat.

seg_train/seg_train/CLASS, training_set/training_set/CLASS, train/train/CLASS: by the words that the names have in common. val/*.jpg beside
train/CLASS: by a file that gives every image one of the classes of training, else left out.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from convmix.data.formats import SPLIT_WORDS, Found, Table, image_rows, printable
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.survey import Survey, folder_of, spread, words_of
from convmix.data.readers.table_files import read_rows
from convmix.errors import DataError

MOST_FILES = 20
FLAT = "an image beside the class folders, not in one"


def split_folders(seen: Survey, base: str) -> dict[str, str]:
    """Split -> the folder that holds its class folders; empty where the folders of `base` are called train and test, or are classes."""
    kids = [kid for kid in seen.children.get(base, ()) if seen.images_below[kid]]
    told: dict[str, dict[str, str]] = {}  # the other words of the name -> split -> folder
    for kid in kids:
        words = [w.lower() for w in re.split(r"[^A-Za-z]+", kid.rpartition("/")[2]) if w]
        splits = [w for w in words if w in SPLIT_WORDS]
        if len(splits) == 1:
            told.setdefault(" ".join(w for w in words if w not in SPLIT_WORDS), {}).setdefault(SPLIT_WORDS[splits[0]], kid)
    best = max(told.values(), key=lambda of: ("train" in of, len(of)), default={})
    if "train" not in best:
        return {}
    found = {split: _descended(seen, kid) for split, kid in best.items()}
    plain = all(kid.rpartition("/")[2].lower() in SPLIT_WORDS for kid in found.values())
    return {} if (plain and all(folder_of(kid) == base for kid in found.values())) or (len(found) < 2 and not plain) else found


def _descended(seen: Survey, folder: str) -> str:
    """Through wrappers: as long as the one folder in it holds folders, or is called like it."""
    while not seen.by_folder.get(folder):
        kids = [kid for kid in seen.children.get(folder, ()) if seen.images_below[kid]]
        if len(kids) != 1 or not (_inner(seen, kids[0]) > 1 or kids[0].rpartition("/")[2].lower() == folder.rpartition("/")[2].lower()):
            return folder
        folder = kids[0]
    return folder


def _inner(seen: Survey, folder: str) -> int:
    return 0 if seen.by_folder.get(folder) else sum(bool(seen.images_below[kid]) for kid in seen.children.get(folder, ()))


def with_flat_splits(found: Found, seen: Survey, base: str, folders: dict[str, str]) -> Found:
    """With the classes of images that lie flat in a split's folder, or in one folder there that is no class of training.

    folders: split -> its folder, relative to the survey. base: what the names of `found` are relative to.
    """
    train = found.tables.get("train")
    if train is None:
        return found
    classes = {str(label) for label in train.labels}
    tables, dropped, notes, read = dict(found.tables), list(found.dropped), list(found.notes), set(found.read_files)
    for split, folder in folders.items():
        if split == "train":
            continue
        table = tables.get(split)
        if table is not None and ({str(label) for label in table.labels} & classes or len({*map(str, table.labels)}) > 1):
            continue
        images = [image for image in seen.images if image.startswith(f"{folder}/")]
        if not images:
            continue
        told, file = _told(seen, images, classes)
        inside = {image: image.removeprefix(f"{base}/") if base else image for image in images}
        tables.pop(split, None)
        dropped = [entry for entry in dropped if entry[1] != FLAT or entry[0] not in inside.values()]
        if told:
            named = [image for image in images if image in told]
            names = [inside[image] for image in named]
            tables[split] = Table(image_rows(names), [told[image] for image in named], [printable(name) for name in names])
            notes.append(f"the classes of the {split} split are those that {printable(file)} tells")
            read.add(file)
        else:
            notes.append(f"the {split} split ({printable(folder)}/) has no classes: its {len(images)} images are left out")
        dropped += [(printable(inside[i]), f"an image of the {split} split without a class") for i in images if i not in told]
    return replace(found, tables=tables, dropped=dropped, notes=notes, read_files=frozenset(read))


def _told(seen: Survey, images: Sequence[str], classes: set[str]) -> tuple[dict[str, str], str]:
    """Image -> its class, by the file that gives most of these images a class of training."""
    index = ImageIndex(seen.root, images)
    best: tuple[dict[str, str], str] = {}, ""
    for kind in ("text", "table", "jsonl"):
        names = seen.of(kind)
        for name in (
            names if len(names) <= MOST_FILES else [n for n in names if "/" not in n or "val" in words_of(n) or "test" in words_of(n)]
        ):
            told = _of_file(seen, name, index, classes)
            best = max(best, (told, name), key=lambda one: len(one[0]))
    return best if 2 * len(best[0]) >= len(images) else ({}, "")


def _of_file(seen: Survey, name: str, index: ImageIndex, classes: set[str]) -> dict[str, str]:
    rows = _rows(seen, name)
    width = max(map(len, rows), default=0)
    sample = spread([str(i) for i in range(len(rows))], 50)
    some_rows = [rows[int(i)] for i in sample]
    at = next(
        (i for i in range(width) if some_rows and 2 * sum(_find(index, r, i, name) is not None for r in some_rows) > len(some_rows)), None
    )
    if at is None:
        return {}
    labels = next((i for i in range(width) if i != at and 10 * sum(_class(r, i) in classes for r in some_rows) >= 9 * len(some_rows)), None)
    if labels is None:
        return {}
    found = {}
    for row in rows:
        image, label = _find(index, row, at, name), _class(row, labels)
        if image is not None and label in classes:
            found[image] = label
    return found


def _rows(seen: Survey, name: str) -> list[list[str]]:
    if name.lower().endswith(".txt"):
        lines = seen.path(name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return [line.split("\t") if "\t" in line else line.split() for line in lines if line.strip()]
    try:
        return read_rows(seen.path(name)).rows
    except DataError:
        return []


def _find(index: ImageIndex, row: Sequence[str], at: int, name: str) -> str | None:
    if at >= len(row) or not row[at].strip() or re.fullmatch(r"-?\d{1,5}(\.\d+)?", row[at].strip()):
        return None
    try:
        return index.find(row[at], base=folder_of(name), hint=name)
    except Ambiguous:
        return None


def _class(row: Sequence[str], at: int) -> str:
    """The cell, or its first word where others follow: 'n01440764 12 30 99 80'."""
    cell = row[at].strip() if at < len(row) else ""
    first = cell.split(" ", 1)
    return first[0] if len(first) > 1 and re.fullmatch(r"[\d\s.-]+", first[1]) else cell
