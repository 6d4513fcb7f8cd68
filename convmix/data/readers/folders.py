"""Folders of images: ROOT/CLASS/image.jpg, or ROOT/train/CLASS/image.jpg with val/ and test/ beside it."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from convmix.data.formats import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    Found,
    Table,
    image_rows,
    plain_path,
    printable,
    read_class_names,
    split_word,
    storable,
)
from convmix.data.regular import open_regular
from convmix.errors import DataError

QUIET_SUFFIXES = frozenset(  # company, not broken images
    (".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".yaml", ".yml", ".ini", ".db", ".log")
)
QUIET_NAMES = frozenset({"__MACOSX", "@eaDir"})
LAYOUT = "expected ROOT/CLASS/image.jpg or ROOT/train/CLASS/image.jpg (with val/ and test/ beside train/), or a CSV with path,label"
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\x93NUMPY")


def read_folder(root: Path, given: Mapping[str, Path] | None = None) -> Found:
    """ROOT/CLASS/... or ROOT/SPLIT/CLASS/...; every image below a class folder, at any depth, is of that class.

    given: the folders of the splits, where their names do not tell them.

    A scan of our own: datasets' imagefolder silently leaves out .npy and suffixes it does not know.
    """
    dropped: list[tuple[str, str]] = []
    folders = _visible_folders(root)
    splits = given or _split_folders(root, folders)
    if splits:
        for other in (p for p in folders if not any(p == s or p in s.parents for s in splits.values())):
            images = [printable(os.path.relpath(i, root)) for i in _images_below(os.fspath(other), os.fspath(root), [], set())]
            dropped += [(name, "an image in none of the split folders") for name in images] or [(other.name, "not a split folder")]
    parts = {split: _class_folder(path, root, dropped) for split, path in (splits or {"all": root}).items()}
    parts = {split: part for split, part in parts.items() if part[0]}
    if not parts or (splits and "train" in splits and "train" not in parts):
        loose = [name for name, reason in dropped if "class folder" in reason]
        what = f"{len(loose)} images but no class folders with images" if loose else "no images"
        raise DataError(f"{splits['train'] if splits and 'train' in splits else root}: holds {what}; {LAYOUT}")
    tables = {s: Table(image_rows(paths), labels, [printable(plain_path(p)) for p in paths]) for s, (paths, labels) in parts.items()}
    names = read_class_names(root) or (read_class_names(root.absolute().parent) if split_word(root.absolute().name) else None)
    return Found(tables, root=str(root.absolute()), names=names, dropped=dropped, by_number=False)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in QUIET_NAMES


def _visible_folders(root: Path) -> list[Path]:
    return sorted((p for p in root.iterdir() if p.is_dir() and not _hidden(p.name)), key=lambda p: os.fsencode(p.name))


def _split_folders(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """The folders that are splits, by split; empty where the folders are classes (a class may be called 'train')."""
    found: dict[str, Path] = {}
    for path in folders:
        split = SPLIT_WORDS.get(path.name.lower())
        if split in found:
            raise DataError(f"{root}: {found[split].name}/ and {path.name}/ both look like the {split} split; keep one")
        if split:
            found[split] = path
    all_are_splits = len(found) == len(folders)
    train_has_classes = "train" in found and bool(_visible_folders(found["train"]))
    holds_classes = any(_visible_folders(p) for p in found.values())
    return found if found and (train_has_classes or (all_are_splits and (holds_classes or "train" in found))) else {}


def _class_folder(top: Path, root: Path, dropped: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Paths relative to `root` and labels of the images in the class folders of `top`."""
    paths: list[str] = []
    labels: list[str] = []
    base = os.fspath(root)
    for entry in sorted(top.iterdir(), key=lambda p: os.fsencode(p.name)):
        if _hidden(entry.name):
            continue
        relative = os.path.relpath(entry, base)
        if not entry.is_dir():
            if entry.suffix.lower() in IMAGE_SUFFIXES:
                dropped.append((printable(relative), "an image beside the class folders, not in one"))
            continue
        before = len(paths)
        for path in _images_below(os.fspath(entry), base, dropped, set()):
            paths.append(storable(os.path.relpath(path, base)))
            labels.append(printable(entry.name))
        if len(paths) == before:
            dropped.append((printable(relative), "a class folder without images"))
    return paths, labels


def _images_below(folder: str, base: str, dropped: list[tuple[str, str]], visited: set[tuple[int, int]]) -> Iterable[str]:
    """Image files below `folder` in byte order of their names; a folder reached twice through links is read once."""
    name = printable(os.path.relpath(folder, base))
    try:
        status = Path(folder).stat()
        entries = sorted(os.scandir(folder), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        dropped.append((name, f"a folder that cannot be opened: {error.strerror}"))
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    if not entries and Path(folder).suffix.lower() in IMAGE_SUFFIXES:
        dropped.append((name, "a folder named like an image"))
    for entry in entries:
        if _hidden(entry.name) or entry.name.lower() in ("thumbs.db", "desktop.ini"):
            continue
        try:
            mode = entry.stat().st_mode
        except OSError:
            mode = stat.S_IFREG  # a dangling link: kept, so that the scan lists it as missing
        if stat.S_ISDIR(mode):
            yield from _images_below(entry.path, base, dropped, visited)
        elif not stat.S_ISREG(mode):
            dropped.append((printable(os.path.relpath(entry.path, base)), "not a regular file"))
        else:
            suffix = Path(entry.name).suffix.lower()
            if suffix in IMAGE_SUFFIXES or (suffix not in QUIET_SUFFIXES and _begins_like_an_image(entry.path)):
                yield entry.path
            elif suffix not in QUIET_SUFFIXES:
                reason = (
                    f"not an image by its extension {printable(suffix)}" if suffix else "no extension and not an image by its first bytes"
                )
                dropped.append((printable(os.path.relpath(entry.path, base)), reason))


def _begins_like_an_image(path: str) -> bool:
    try:
        with open_regular(path) as file:
            head = file.read(16)
    except OSError:
        return False
    return head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
