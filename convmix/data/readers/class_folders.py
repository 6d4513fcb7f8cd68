"""Class folders: below which folder they begin, which splits they have, and what speaks against taking folders for classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convmix.data.formats import SPLIT_WORDS, Found, Table, printable
from convmix.data.readers.evidence import READ_FORMS
from convmix.data.readers.folder_doubts import is_no_class
from convmix.data.readers.folders import read_folder
from convmix.data.readers.names import ImageIndex
from convmix.data.readers.split_folders import split_folders, with_flat_splits
from convmix.data.readers.splits import PART, Splits, apart, by_lists, find_lists
from convmix.data.readers.survey import Survey, folder_of, some, survey
from convmix.data.readers.tables import quiet_progress
from convmix.errors import DataError

if TYPE_CHECKING:
    import datasets


def read_class_folders(seen: Survey) -> Found:
    """ROOT/CLASS/..., ROOT/SPLIT/CLASS/..., ROOT/CLASS/SPLIT/... or ROOT/CLASS/... with lists, perhaps inside a wrapper."""
    wrapper = wrapper_of(seen)
    splits = split_folders(seen, wrapper)
    root = seen.path(wrapper) if wrapper else seen.root
    found = read_folder(root, {split: seen.path(folder) for split, folder in splits.items()})
    if wrapper:
        found.notes.append(f"the class folders lie in {printable(wrapper)}/")
        outside = [image for image in seen.images if not image.startswith(f"{wrapper}/")]
        found.dropped += [(printable(image), f"an image outside {printable(wrapper)}/") for image in outside]
    found.layout = "folders"
    if list(found.tables) != ["all"]:
        folders = splits or {SPLIT_WORDS[k.rpartition("/")[2].lower()]: k for k in seen.children.get(wrapper, ()) if _is_split(k)}
        found = with_flat_splits(found, seen, wrapper, folders)
        names = [splits[s].rpartition("/")[2] if s in splits else s for s in found.tables]
        found.split_origin = f"folders {some(f'{printable(name)}/' for name in names)}"
        return found
    return _split_inside(found) or _split_by_lists(found, seen) or found


def wrapper_of(seen: Survey) -> str:
    """The folder that the class folders lie in, "" for the root itself."""
    folder = ""
    while (inner := _only_inner(seen, folder)) is not None:
        chain = inner
        while not seen.by_folder.get(chain) and len(kids := _kids(seen, chain)) == 1 and not _is_split(chain):
            chain = kids[0]
        if seen.by_folder.get(chain):
            return folder
        if _is_split(chain):
            return folder_of(chain)
        folder = chain
    return folder


def _kids(seen: Survey, folder: str) -> list[str]:
    return [child for child in seen.children.get(folder, ()) if seen.images_below[child]]


def _only_inner(seen: Survey, folder: str) -> str | None:
    """The one folder in it that holds images, or the one of a name that no class has and that holds class folders."""
    kids = _kids(seen, folder)
    if seen.by_folder.get(folder):
        return None
    if len(kids) == 1:
        return None if _is_split(kids[0]) else kids[0]
    named = [
        k for k in kids if is_no_class(k.rpartition("/")[2]) and not _is_split(k) and len(_kids(seen, k)) > 1 and not seen.by_folder.get(k)
    ]
    return named[0] if len(named) == 1 and not any(_is_split(k) for k in kids) else None


def _is_split(folder: str) -> bool:
    return folder.rpartition("/")[2].lower() in SPLIT_WORDS


def refuse_unread(seen: Survey, forms: dict[str, list[str]]) -> None:
    """DataError where annotations lie there in a form that nothing here reads."""
    unread = {form: names for form, names in forms.items() if form not in READ_FORMS}
    if unread:
        form, names = next(iter(unread.items()))
        raise DataError(
            f"{seen.root}: {len(names)} files of annotations in the form of {form} (such as {printable(names[0])}), which is not read: "
            "bring them as COCO JSON, or take the folders for classes with --layout folders"
        )


def _split_inside(found: Found) -> Found | None:
    """CLASS/train/..., CLASS/test/...: where every class folder has nothing but splits in it."""
    table = found.tables["all"]
    parts = [name.split("/") for name in table.names]
    if not all(len(p) > 2 and p[1].lower() in SPLIT_WORDS for p in parts):
        return None
    of_split: dict[str, list[int]] = {}
    for i, part in enumerate(parts):
        of_split.setdefault(SPLIT_WORDS[part[1].lower()], []).append(i)
    if "train" not in of_split:
        return None
    return _select(found, of_split, f"folders {some(f'{s}/' for s in of_split)} in every class folder")


def _split_by_lists(found: Found, seen: Survey) -> Found | None:
    base = Path(found.root)
    whole = seen if base == seen.root.absolute() else survey(base)
    index = ImageIndex(seen.root, seen.images)
    lists = find_lists(seen, index)
    if not lists:
        return None
    prefix = f"{folder_of(whole.root.relative_to(seen.root.absolute()).as_posix() + '/x')}/" if whole is not seen else ""
    table = found.tables["all"]
    position = {f"{prefix}{name}": i for i, name in enumerate(table.names)}
    splits: Splits = apart(by_lists(seen, index, lists, among=list(position)))
    made = _select(found, {s: [position[name] for name in names] for s, names in splits.images.items()}, splits.origin)
    made.read_files |= {name.partition(PART)[0] for names in lists.values() for name in names}
    made.dropped += splits.dropped
    made.notes += splits.notes
    return made


def _rows(table: Table, rows: Sequence[int]) -> "datasets.Dataset":
    with quiet_progress():
        return table.images.select(rows).flatten_indices()


def _select(found: Found, of_split: dict[str, Sequence[int]] | dict[str, list[int]], origin: str) -> Found:
    table = found.tables["all"]
    tables = {
        split: Table(_rows(table, rows), [table.labels[i] for i in rows], [table.names[i] for i in rows])
        for split, rows in of_split.items()
        if rows
    }
    return replace(found, tables=tables, split_origin=origin)
