"""Which image a name means that somebody wrote into a table, a list or an annotation file.

'C:\\\\data\\\\Part%20One.JPG' -> 'images/part one.jpg': by the path as written, else by as many of its last parts as any image has, in
any letter case, percent-encoding and unicode form, with or without suffix; '7' and '7.0' also mean '0007.jpg' where nothing else fits.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS
from convmix.data.readers.survey import stem_of

Key = TypeVar("Key", bound=Hashable)


class Ambiguous(Exception):  # noqa: N818 - caught by the readers, which list it
    """A name that several images have; the message is the reason, for people."""


def plain(text: str) -> str:
    """In one letter case, unicode form and kind of slash; surrogates for bytes that are no text stay."""
    return unicodedata.normalize("NFC", text.strip().replace("\\", "/")).casefold().removeprefix("./")


class ImageIndex:
    """The images of a data set, to be found by written names; their own names are relative to `root`, with "/"."""

    def __init__(self, root: Path, images: Sequence[str]) -> None:
        self.root = root
        self._images = images

    @cached_property
    def _exact(self) -> set[str]:
        return set(self._images)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _gathered(self._images, lambda image: plain(image.rpartition("/")[2]))

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _gathered(self._images, lambda image: plain(stem_of(image)))

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        return _gathered([i for i in self._images if stem_of(i).isdecimal()], lambda image: int(stem_of(image)))

    def __len__(self) -> int:
        return len(self._images)

    def find(self, written: str, *, base: str = "", hint: str = "") -> str | None:
        """The image, None where there is none.

        base: the folder of the file that names it. hint: a path whose parts the image probably has too, such as that of the file.
        Raises Ambiguous where several fit equally well.
        """
        text = written.strip().replace("\\", "/")
        for candidate in dict.fromkeys((os.path.normpath(f"{base}/{text}" if base else text).replace(os.sep, "/"), text)):
            if candidate in self._exact:
                return candidate
        forms = dict.fromkeys((text, unquote(text), unquote(text.partition("?")[0])))
        return next((image for form in forms if (image := self._nearest(form, hint or base))), None)

    def _nearest(self, text: str, hint: str) -> str | None:
        key = plain(text).rstrip("/")
        base = key.rpartition("/")[2]
        if not base:
            return None
        stem, suffix = os.path.splitext(base)  # noqa: PTH122
        stems = (base, stem) if suffix in IMAGE_SUFFIXES else (base,)
        found = self._by_name.get(base) or next((self._by_stem[s] for s in stems if s in self._by_stem), [])
        if not found and (number := _number(stem if suffix in IMAGE_SUFFIXES else base)) is not None:
            found = self._by_number.get(number, [])
        if len(found) < 2:
            return found[0] if found else None
        return _best(found, key, hint)


def _number(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)(?:\.0+)?", text)
    return int(match.group(1)) if match else None


def _gathered(images: Iterable[str], key: Callable[[str], Key]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for image in images:
        found.setdefault(key(image), []).append(image)
    return found


def _best(found: Sequence[str], key: str, hint: str) -> str:
    """Of images of one name the one whose folders are most like those written, then most like the hint's."""
    written, near = key.split("/")[:-1], likeness_parts(hint)

    def score(image: str) -> tuple[int, int, int]:
        folders = plain(image).split("/")[:-1]
        same = next((i for i, (a, b) in enumerate(zip(reversed(folders), reversed(written), strict=False)) if a != b), None)
        tail = min(len(folders), len(written)) if same is None else same
        return tail, len(near & likeness_parts("/".join(folders))), len(set(folders) & set(written))

    ranked = sorted(found, key=score, reverse=True)
    if score(ranked[0]) == score(ranked[1]):
        raise Ambiguous(f"several images have this name: {ranked[0]}, {ranked[1]}")
    return ranked[0]


def likeness_parts(path: str) -> set[str]:
    """The folders of a path and the splits that any of its words tell: what a file and its image have in common."""
    parts = {p for p in plain(path).split("/") if p not in ("", ".", "..")}
    words = {SPLIT_WORDS[w] for p in parts for w in re.findall(r"[a-z]+", p) if w in SPLIT_WORDS}
    return parts | {f"split:{w}" for w in words}


def existing(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an impossible name
        return False
