"""What speaks against taking folders for classes: names that say nothing, folders that mirror or repeat one another, files nobody read."""

import re
from collections import Counter
from collections.abc import Sequence

from convmix.data.formats import SPLIT_WORDS, Found, printable
from convmix.data.readers.maps import IMAGE_WORDS
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.paired import MAP_WORDS
from convmix.data.readers.survey import Survey, folder_of, some, stem_of, words_of
from convmix.errors import DataError

NO_CLASSES = IMAGE_WORDS | MAP_WORDS | {
    *SPLIT_WORDS, "dataset", "datasets", "all", "files", "new", "unlabeled", "unlabelled", "sample", "samples", "archive",
}  # fmt: skip
CHOOSE = "or take the folders for classes with --layout folders"


def is_no_class(name: str) -> bool:
    """Whether a folder's name says what it holds rather than what is on the images."""
    words = words_of(name)
    return bool(words) and set(words) <= NO_CLASSES


def are_no_classes(names: Sequence[str]) -> bool:
    """Whether none of the folders' names is a class: images/ and labels/, or images_part_1/ and images_part_2/."""
    words = {tuple(words_of(name)) for name in names}
    numbered = len(names) > 1 and len(words) == 1 and bool(set(next(iter(words))) & IMAGE_WORDS)
    return numbered or all(map(is_no_class, names))


def classes_of(found: Found) -> list[str]:
    return sorted({str(label) for table in found.tables.values() for label in table.labels})


def refuse_doubts(found: Found, seen: Survey) -> None:
    """DataError where the folders' names are no classes, or other folders may be meant."""
    classes = classes_of(found)
    if classes and are_no_classes(classes):
        company = [f for f in seen.of("table", "json", "jsonl", "xml", "text", "yaml") if stem_of(f).lower() not in ("readme", "license")]
        beside = f"; nothing was found in {some(company, 3)} that tells what is on them" if company else ""
        raise DataError(
            f"{seen.root}: the images lie in {some(f'{c}/' for c in classes)}, which names no class{beside}{in_names(seen)}: put "
            "them into a "
            f"folder per class, add a CSV with path,label, {CHOOSE}"
        )
    inner = _inner_folders(found)
    _refuse_copies(inner, seen)
    _refuse_mirrors(inner, seen)
    _refuse_boxes(seen)
    deep = [name for name, folders in inner.items() if len(folders) > 1]
    if deep:
        example = f"{printable(deep[0])}/{some(sorted(inner[deep[0]]), 2)}"
        found.notes.append(f"folders inside class folders ({example}) are not told apart; to have them as classes, move them up")


def _inner_folders(found: Found) -> dict[str, Counter[str]]:
    """Class -> the folders directly in its folder, with the images below each; "" for images directly in it."""
    inner: dict[str, Counter[str]] = {}
    for table in found.tables.values():
        for name, label in zip(table.names, table.labels, strict=True):
            parts = name.split("/")
            at = parts.index(str(label)) if str(label) in parts else len(parts) - 2
            inner.setdefault(str(label), Counter())[parts[at + 1] if at + 2 < len(parts) else ""] += 1
    return {
        name: Counter({k: n for k, n in folders.items() if k}) if "" not in folders or len(folders) > 1 else Counter()
        for name, folders in inner.items()
    }


def _refuse_copies(inner: dict[str, Counter[str]], seen: Survey) -> None:
    """flowers/ with rose/ and tulip/ in it, beside rose/ and tulip/."""
    for name, folders in inner.items():
        again = [f for f in folders if f.casefold() in {other.casefold() for other in inner if other != name}]
        if len(again) > 1 and len(again) == len(folders):
            raise DataError(
                f"{seen.root}: {printable(name)}/ holds {some(f'{f}/' for f in sorted(again))}, which are classes beside it too: "
                "move it away or "
                f"give it alone, {CHOOSE}"
            )


def _refuse_mirrors(inner: dict[str, Counter[str]], seen: Survey) -> None:
    """color/, grayscale/ and segmented/, each with the same folders."""
    sets = {frozenset(folders) for folders in inner.values()}
    same = sorted(next(iter(sets))) if len(inner) > 1 and len(sets) == 1 else []
    if (
        len(same) > 1 and not {f.lower() for f in same} <= {*SPLIT_WORDS} and not all(re.fullmatch(r"[\d_.-]{4,}", f) for f in same)
    ):  # dates
        raise DataError(
            f"{seen.root}: {some(f'{printable(c)}/' for c in sorted(inner))} all hold the same folders, {some(same, 3)}, which may "
            "be the classes: "
            f"give one of them, {CHOOSE}"
        )


def _refuse_boxes(seen: Survey) -> None:
    """A text that names images and boxes below each name, as WIDER FACE has it."""
    index = ImageIndex(seen.root, seen.images)
    for name in seen.of("text")[:20]:
        lines = [line.split() for line in seen.head(name, 1 << 14).decode("utf-8", "replace").splitlines()[:60]]
        boxes = sum(len(words) >= 4 and all(re.fullmatch(r"-?\d+(\.\d+)?", w) for w in words) for words in lines)
        if boxes >= 3 and any(len(words) == 1 and _is_image(words[0], index, folder_of(name)) for words in lines):
            raise DataError(
                f"{seen.root}: {printable(name)} names images with boxes below each name, a form which is not read: bring it as "
                f"COCO JSON, {CHOOSE}"
            )


def _is_image(written: str, index: ImageIndex, base: str) -> bool:
    try:
        return not written.isdecimal() and index.find(written, base=base) is not None
    except Ambiguous:
        return True


def in_names(seen: Survey) -> str:
    """cat.0.jpg, dog.0.jpg: where the names of images begin with few different words, they may be the classes."""
    first = Counter(m.group(1) for image in seen.images if (m := re.match(r"([A-Za-z]{2,}[A-Za-z_ -]*?)[._ -]*\d", stem_of(image))))
    often = [word for word, n in first.items() if n > 2]
    if len(often) >= 2 and 2 * sum(first[word] for word in often) >= len(seen.images) and 5 * len(often) <= len(seen.images):
        return f"; the file names begin with {some(sorted(often), 3)}, which may be the classes"
    return ""
