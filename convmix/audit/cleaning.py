"""A cleaned copy of a data set, or a list of what to keep. The original is only ever read.

facts + copies -> CleaningPlan: which images stay, and why the others do not -> a folder tree, or a CSV with path,label,split

The rules, in the order in which they are asked:
1. What cannot be read is left out.
2. What is also held out is not learned from: of an image that has a copy, exact or near, in a later split (train before val before test),
   only the held-out one stays. Test never loses an image to another split.
3. Of exact copies with different labels none is learned from: nobody knows which label is right. In val and test they stay and are listed.
4. Of exact copies in one split the first stays.
5. Data without splits: of near copies the first stays too, if they have one label, since a split by chance would part them.
Everything else stays. A folder gets EXIF rotation undone and suffixes put right; a CSV points to the files as they are.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import PIL.Image
from PIL import ImageOps

from convmix.atomic import write_csv, write_json
from convmix.audit.duplicates import Copies
from convmix.audit.image_checks import is_row, right_suffix
from convmix.audit.image_facts import ImageFacts
from convmix.cache import expanded
from convmix.config import Data
from convmix.data.decode import read_file
from convmix.data.formats import SPLIT_WORDS, printable, storable
from convmix.data.readers.folders import read_folder
from convmix.data.sources import open_source
from convmix.errors import ConfigError, DataError

_TURNABLE = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
_HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class CleaningPlan:
    """What becomes of every image."""

    why: tuple[str, ...]  # n: why it is left out, "" where it stays

    @property
    def kept(self) -> np.ndarray:
        """Positions of the images that stay, m int64."""
        return np.flatnonzero([not why for why in self.why])


@dataclass(frozen=True)
class Cleaned:
    """What `--fix` wrote."""

    path: Path  # the folder or the CSV
    changes: Path  # a CSV: every image that is left out or changed, and why
    kept: int
    left_out: int
    turned: int  # stored upright now
    renamed: int  # with another suffix


def plan(facts: ImageFacts, copies: Copies) -> CleaningPlan:
    """Apply the rules."""
    why = [""] * len(facts)
    for i, reason in facts.reason.items():
        why[i] = f"cannot be read: {reason}"
    last_part = facts.part.copy()  # the latest split that holds the picture or a near copy of it
    np.maximum.at(last_part, copies.group, facts.part)
    last_part = last_part[copies.group]
    conflicting = _conflicting(facts, copies)
    kept: dict[tuple[str, int, int], int] = {}  # (exact or near, set of copies, split) -> the image that stays
    for i in np.flatnonzero(facts.ok).tolist():
        split, latest = facts.split(i), facts.parts[last_part[i]].split
        same = kept.get(("exact", int(copies.twin[i]), int(facts.part[i])))
        near = kept.get(("near", int(copies.group[i]), int(facts.part[i])))
        if split != latest:
            why[i] = f"a copy is held out in {latest}"
        elif conflicting[i] and split not in _HELD_OUT:
            why[i] = "copies of it have other labels"
        elif same is not None and not conflicting[i]:
            why[i] = f"the same picture as {facts.name(same)}"
        elif split == "all" and near is not None and facts.label[i] == facts.label[near]:
            why[i] = f"nearly the same picture as {facts.name(near)}"
        else:
            kept.setdefault(("exact", int(copies.twin[i]), int(facts.part[i])), i)
            kept.setdefault(("near", int(copies.group[i]), int(facts.part[i])), i)
    return CleaningPlan(tuple(why))


def _conflicting(facts: ImageFacts, copies: Copies) -> np.ndarray:
    """n bool: images with an exact copy of another label."""
    differs = np.zeros(len(facts), bool)
    other = facts.label != facts.label[copies.twin]
    differs[copies.twin[other]] = True
    found: np.ndarray = differs[copies.twin]
    return found


def check_target(target: Path, data: str) -> None:
    """ConfigError where writing to `target` would change something that exists."""
    if os.path.lexists(target):
        raise ConfigError(f"fix: {target} exists; name a folder or a .csv that does not")
    refuse_inside(target, data, option="fix")


def refuse_inside(target: Path, data: str, *, option: str) -> None:
    """ConfigError where `target` would stand inside the data set."""
    source = expanded(data)
    if not source.is_dir():
        return
    whole, place = source.resolve(), target.resolve()
    if place == whole or whole in place.parents:
        raise ConfigError(f"{option}: {target} is inside the data set {data}, which is never changed; name a place beside it")


def mend(facts: ImageFacts, copies: Copies, target: Path) -> Cleaned:
    """Write the cleaned data set: a folder tree, or a table where `target` ends in .csv.

    It appears when it is complete; killed on the way, it leaves a hidden .NAME.partial beside, which the next attempt replaces.
    """
    chosen = plan(facts, copies)
    if not len(chosen.kept):
        raise DataError("nothing of the data set is left that could be kept")
    return _write_table(facts, chosen, target) if target.suffix.lower() == ".csv" else _write_folder(facts, chosen, target)


# A table


def _write_table(facts: ImageFacts, chosen: CleaningPlan, target: Path) -> Cleaned:
    changes = target.with_name(f"{target.stem}-changes.csv")
    rows = []
    for i in chosen.kept.tolist():
        source = facts.source(i)
        if isinstance(source, bytes) or is_row(facts.name(i)) or "offset" in facts.parts[facts.part[i]].rows.column_names:
            raise ConfigError(f"fix: {target} is a table, but the images are inside the data set's files; name a folder instead")
        rows.append(_table_row(facts, i, _from_here(source, target)))
    write_csv(changes, ("image", "split", "label", "change"), _left_out(facts, chosen))
    write_csv(target, _table_header(facts), rows, raw=True)
    return Cleaned(target, changes, len(rows), len(facts) - len(rows), 0, 0)


def _table_header(facts: ImageFacts) -> tuple[str, ...]:
    labels = ("label",) if facts.matrix is None else facts.classes
    return ("path", *labels, *(["split"] if facts.parts[0].split != "all" else []))


def _table_row(facts: ImageFacts, i: int, path: str) -> tuple[object, ...]:
    said = [facts.label_name(i)] if facts.matrix is None else facts.matrix[i].tolist()
    return (path, *said, *([facts.split(i)] if facts.parts[0].split != "all" else []))


def _from_here(source: str, table: Path) -> str:
    """The path as the table gives it: relative to the table, or a URI where the name could not be read back from a cell."""
    path = os.path.relpath(source, table.absolute().parent)
    path = path if path.startswith("..") else f"./{path}"
    if path != path.strip() or storable(path) != path:
        return "file://" + quote_from_bytes(os.fsencode(os.path.abspath(source)))  # noqa: PTH100 - Path.resolve would follow links
    return path


def _left_out(facts: ImageFacts, chosen: CleaningPlan) -> Iterator[tuple[str, str, str, str]]:
    for i, why in enumerate(chosen.why):
        if why:
            yield facts.name(i), facts.split(i), facts.label_name(i), f"left out: {why}"


# A folder


def _write_folder(facts: ImageFacts, chosen: CleaningPlan, target: Path) -> Cleaned:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was killed
    changed = list(_left_out(facts, chosen))
    turned = renamed = 0
    rows = []
    places = _Places(facts)
    try:
        for i in chosen.kept.tolist():
            source = facts.source(i)
            content = source if isinstance(source, bytes) else read_file(source)
            what = []
            if facts.orientation[i] > 1 and (upright := turn_upright(content)) is not None:
                content = upright
                what.append("turned upright")
            place, was_renamed = places.take(i)
            if was_renamed:
                what.append(f"renamed to {printable(place.name)}")
            turned, renamed = turned + ("turned upright" in what), renamed + was_renamed
            if what:
                changed.append((facts.name(i), facts.split(i), facts.label_name(i), " and ".join(what)))
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            (partial / place).write_bytes(content)
            rows.append(_table_row(facts, i, place.as_posix()))
        if facts.matrix is not None:  # folders cannot say several labels
            write_csv(partial / "labels.csv", _table_header(facts), rows, raw=True)
        if places.readable:
            write_json(partial / "classes.json", places.readable)
        write_csv(partial / "changes.csv", ("image", "split", "label", "change"), changed)
        readable = _readable(partial, several=facts.matrix is not None)
        if readable != len(chosen.kept):
            raise DataError(f"fix: of the {len(chosen.kept)} images that stay {readable} could be stored under names that training reads")
        if os.path.lexists(target):
            raise ConfigError(f"fix: {target} exists by now; name a folder that does not")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    n = len(chosen.kept)
    return Cleaned(target, target / "changes.csv", n, len(facts) - n, turned, renamed)


def _readable(folder: Path, *, several: bool) -> int:
    """Images of the new folder that training reads."""
    if several:
        return sum(len(examples) for examples in open_source(str(folder), Data()).splits.values())
    return sum(len(table.names) for table in read_folder(folder).tables.values())


class _Places:
    """Where every image goes: its own path where the paths of the data set say split and class, else SPLIT/CLASS/NAME; images/NAME where
    images have several labels each."""

    def __init__(self, facts: ImageFacts) -> None:
        self.facts = facts
        self.readable: dict[str, str] = {}  # class folder -> name of the class, where one differs
        self._taken: set[str] = set()
        self._has_splits = facts.parts[0].split != "all"
        self._keeps_paths = self._paths_tell()

    def take(self, i: int) -> tuple[Path, bool]:
        """The path below the new folder, and whether its suffix is another."""
        f = self.facts
        own = self._own_path(i) if self._keeps_paths else None
        if f.matrix is not None:
            own = PurePath("images", re.sub(r"[^\w.+-]+", "_", f.name(i)).strip("._"))
        elif own is None:
            folder = re.sub(r"[^\w.,()+ -]", "_", f.label_name(i)).strip(". ") or f"class_{f.label[i]}"
            name = re.sub(r"[^\w.+-]+", "_", f.name(i)).strip("._")
            own = PurePath(*([f.split(i)] if self._has_splits else []), folder, name)
        class_folder = printable(own.parts[int(self._has_splits and f.matrix is None)])
        if f.matrix is None and class_folder != f.label_name(i):
            self.readable[class_folder] = f.label_name(i)
        suffix = right_suffix(own.name, str(f.format[i]))
        place = own if suffix is None else own.with_name(f"{own.name if is_row(f.name(i)) else own.stem}{suffix}")
        stem, number = place.stem, 1
        while os.fspath(place).lower() in self._taken:  # some file systems tell no cases
            place, number = place.with_name(f"{stem}-{number}{place.suffix}"), number + 1
        self._taken.add(os.fspath(place).lower())
        return Path(place), suffix is not None and not is_row(f.name(i))

    def _paths_tell(self) -> bool:
        """Whether each image's path begins with its split, where there are any, and one folder for each class."""
        label_of: dict[str, int] = {}
        for i in range(len(self.facts)):
            own = self._own_path(i)
            label = int(self.facts.label[i])
            if own is None or label_of.setdefault(own.parts[int(self._has_splits)], label) != label:
                return False
        return len(set(label_of.values())) == len(label_of)

    def _own_path(self, i: int) -> PurePath | None:
        f = self.facts
        source, root = f.source(i), f.parts[f.part[i]].root
        if isinstance(source, bytes) or not root:
            return None
        path = PurePath(os.path.relpath(source, root))
        is_named_so = printable(os.fspath(path)) == f.name(i) and not any(part.startswith(".") for part in path.parts)
        if not is_named_so or len(path.parts) < 2 + self._has_splits:
            return None
        return path if not self._has_splits or SPLIT_WORDS.get(path.parts[0].lower()) == f.split(i) else None


def turn_upright(encoded: bytes) -> bytes | None:
    """The same picture stored upright; None for a format that cannot be written so.

    PNG, TIFF and WebP lose no pixel, TIFF its other metadata. A JPEG is encoded anew, at quality 95 and with full colour.
    """
    with PIL.Image.open(io.BytesIO(encoded)) as im:
        if im.format not in _TURNABLE:
            return None
        upright = ImageOps.exif_transpose(im)
        options: dict[str, Any] = {"exif": upright.getexif(), "icc_profile": im.info.get("icc_profile")}
        if im.format in ("JPEG", "MPO"):
            options |= {"quality": 95, "subsampling": 0}
        elif im.format == "WEBP":
            options |= {"lossless": True}
        out = io.BytesIO()
        upright.save(out, "JPEG" if im.format == "MPO" else im.format, **options)
    return out.getvalue()
