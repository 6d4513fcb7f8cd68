"""Which images are for training, validation and test, as the data set itself says it: by lists of images, or by names of folders.

An image that two splits claim is left out of the one for training: what validates is never trained on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from convmix.data.formats import SPLIT_WORDS, printable, split_word
from convmix.data.readers.names import Ambiguous, ImageIndex
from convmix.data.readers.split_files import described_splits
from convmix.data.readers.survey import Survey, folder_of, some, stem_of, words_of
from convmix.errors import DataError

ORDER = ("train", "val", "test", "all")
LIST_WORDS = {**SPLIT_WORDS, "trainval": "train"}
_COMPOUND = re.compile(  # trainannot, testset
    f"^({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(images?|imgs?|masks?|annot(?:ations?)?|labels?|gt|set|data)$"
)
LIST_COMPANY = frozenset({"list", "lists", "images", "image", "files", "names", "ids", "set", "split", "autosplit", "cls", "img"})
SAMPLE = 20  # lines of a list that are looked at
PART = "\0"  # behind the name of a file that tells of several splits: split.json, PART, val


@dataclass
class Splits:
    """Images by split, in the order in which they are read."""

    images: dict[str, list[str]]  # "train", "val", "test"; "all" where nothing tells them apart
    origin: str  # where they come from, for people
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    notes: list[str] = field(default_factory=list)


@lru_cache(maxsize=1 << 16)
def folder_split(folder: str, *, exact: bool = True) -> str | None:
    """The split that a part of a path tells: train/, Valid/, train2017/; not `exact`: images_train/ too."""
    for part in folder.split("/"):
        if word := split_word(part):
            return word
        words = {SPLIT_WORDS[_COMPOUND.sub(r"\1", w)] for w in words_of(part) if _COMPOUND.sub(r"\1", w) in SPLIT_WORDS}
        if not exact and len(words) == 1:
            return words.pop()
    return None


def by_folders(images: Sequence[str]) -> Splits:
    """By the folders' names; one split, "all", where they tell none."""
    for exact in (True, False):
        split_of = {image: folder_split(folder_of(image), exact=exact) for image in images}
        told = {split for split in split_of.values() if split}
        if told and (exact or "train" in told):
            break
    else:
        return Splits({"all": list(images)}, "")
    refuse_rivals(images)
    found: dict[str, list[str]] = {}
    dropped = []
    for image, split in split_of.items():
        if split is None and "train" in told:
            dropped.append((printable(image), "an image in none of the split folders"))
        else:
            found.setdefault(split or "train", []).append(image)
    folders = {split: _top(found[split]) for split in ORDER if split in found}
    rest = "" if None not in split_of.values() or "train" in told else "; what is in none of them is for training"
    return Splits({s: found[s] for s in ORDER if s in found}, f"folders {some(f for f in folders.values() if f)}{rest}", dropped)


def refuse_rivals(images: Sequence[str]) -> None:
    """val/ and valid/ beside each other: nobody can say which is meant."""
    seen: dict[tuple[str, str], str] = {}  # parent, split -> folder
    for folder in dict.fromkeys(map(folder_of, images)):
        parts = folder.split("/")
        for depth, part in enumerate(parts):
            if split := SPLIT_WORDS.get(part.lower()):
                parent = "/".join(parts[:depth])
                if seen.setdefault((parent, split), part) != part:
                    raise DataError(f"{seen[parent, split]}/ and {part}/ both look like the {split} split; keep one")
                break


def _top(images: Sequence[str]) -> str:
    """The folder that tells the split of these images."""
    parts = folder_of(images[0]).split("/")
    for depth in range(len(parts)):
        if folder_split(parts[depth]) or folder_split(parts[depth], exact=False):
            return printable("/".join(parts[: depth + 1])) + "/"
    return ""


def find_lists(survey: Survey, index: ImageIndex, *, labels: Iterable[str] = (), prefer: str = "main") -> dict[str, list[str]]:
    """Per split the files that list its images: train.txt, ImageSets/Main/val.txt, splits/test_list.txt; else JSON and tables that do.

    labels: text files that are labels of images, and so no lists. prefer: the folder whose lists are taken before others.
    """
    taken = set(labels)
    found: dict[str, dict[str, str]] = {}  # folder -> word -> file
    for name in survey.of("text"):
        words = _list_words(stem_of(name))
        told = [w for w in words if w in LIST_WORDS]
        if name not in taken and len(told) == 1 and set(words) <= {*LIST_WORDS, *LIST_COMPANY}:
            lines = read_lines(survey, name)[:SAMPLE]
            if lines and 2 * sum(_image_of(line, index, folder_of(name)) is not None for line in lines) >= len(lines):
                found.setdefault(folder_of(name), {}).setdefault(told[0], name)
    if not found:
        return _described(survey, index)
    # ImageSets/ has a folder for every task: the preferred before others, then those with a list for training; a devkit has several years
    best = max(found, key=lambda f: (f.lower().endswith(prefer), bool({"train", "trainval"} & set(found[f])), -len(f)))
    merged: dict[str, list[str]] = {}
    for folder, lists in found.items():
        if folder.split("/")[-1] != best.split("/")[-1] or folder.count("/") != best.count("/"):
            continue
        if "train" in {LIST_WORDS[word] for word in lists if word != "trainval"}:
            lists.pop("trainval", None)
        for word, name in lists.items():
            merged.setdefault(LIST_WORDS[word], []).append(name)
    return {split: merged[split] for split in ORDER if split in merged}


def _list_words(stem: str) -> list[str]:
    """The words of a file's name, where train_val is one."""
    return re.sub(r"\btrain val\b", "trainval", " ".join(words_of(stem))).split()


def _described(survey: Survey, index: ImageIndex) -> dict[str, list[str]]:
    """The same of files that are no plain lists, where most of what they name is there."""
    merged: dict[str, list[str]] = {}
    for name, told in described_splits(survey):
        written = [w for listed in told.values() for w in listed[:SAMPLE]]
        if written and 2 * sum(_image_of(w, index, folder_of(name)) is not None for w in written) >= len(written):
            for split in told:
                merged.setdefault(split, []).append(f"{name}{PART}{split}")
    held_out = any(split in merged for split in ("val", "test"))
    return {split: merged[split] for split in ORDER if split in merged} if held_out else {}


def read_lines(survey: Survey, name: str) -> list[str]:
    """The lines of a list. DataError where it cannot be read."""
    name, _, part = name.partition(PART)
    if part:
        return next((told.get(part, []) for file, told in described_splits(survey) if file == name), [])
    try:
        content = survey.path(name).read_bytes()
    except OSError as error:
        raise DataError(f"{survey.path(name)}: cannot be read as a list of images: {error}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").splitlines()
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return content.decode("utf-8", "surrogateescape").splitlines()


def _image_of(line: str, index: ImageIndex, base: str) -> str | None:
    """The image that a line names, with or without words behind it, such as VOC's 1 and -1."""
    for text in dict.fromkeys((line.strip(), line.split()[0] if line.split() else "")):
        try:
            if text and (image := index.find(text, base=base)):
                return image
        except Ambiguous:
            return None
    return None


def by_lists(survey: Survey, index: ImageIndex, lists: Mapping[str, Sequence[str]], *, among: Sequence[str]) -> Splits:
    """By lists, in their order; the images of `among` that are in none are left out, or for training where no list is."""
    found: dict[str, dict[str, None]] = {}
    dropped: list[tuple[str, str]] = []
    known = set(among)
    for split, names in lists.items():
        images = found.setdefault(split, {})
        for name in names:
            for number, line in enumerate(read_lines(survey, name), start=1):
                image = _image_of(line, index, folder_of(name))
                if image in images:
                    dropped.append((printable(f"{name.partition(PART)[0]}:{number}"), f"{line.split()[0]} is listed twice"))
                elif image is not None:
                    images.update({image: None} if image in known else {})  # what is unknown was counted by those who left it out
                elif line.strip():
                    dropped.append((printable(f"{name.partition(PART)[0]}: {line.strip()}"), "no image of this name"))
    listed = {image for images in found.values() for image in images}
    rest = [image for image in among if image not in listed]
    if "train" not in found:
        found["train"] = dict.fromkeys(rest)
    else:
        dropped += [(printable(image), "an image in none of the lists") for image in rest]
    files = dict.fromkeys(printable(n.partition(PART)[0]) for names in lists.values() for n in names)
    origin = f"lists {some(files)}"
    return apart(Splits({split: list(found[split]) for split in ORDER if split in found}, origin, dropped))


def apart(splits: Splits) -> Splits:
    """Without the training images that are also for validation or test, nor validation images that are also for test."""
    for split, others in (("train", ("val", "test")), ("val", ("test",))):
        held_out = {image: other for other in others for image in splits.images.get(other, ())}
        both = [image for image in splits.images.get(split, ()) if image in held_out]
        if both and len(both) == len(splits.images[split]):
            for other in {held_out[image] for image in both}:
                del splits.images[other]
                splits.notes.append(f"{other} names the same images as {split}, and so is not a split of its own")
        elif both:
            splits.images[split] = [image for image in splits.images[split] if image not in held_out]
            splits.dropped += [(printable(image), f"also listed for {held_out[image]}, so not in {split}") for image in both]
            splits.notes.append(f"{len(both)} images are listed for {split} and for {held_out[both[0]]}: they are kept out of {split}")
    return splits
