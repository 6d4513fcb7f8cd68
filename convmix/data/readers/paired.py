"""Data sets with an annotation file per image, whatever their folders are called: pairs of image and annotation, by split.

survey, annotation files -> pairs (pairing) -> splits by lists or folders (splits) -> PairedSplits, which the readers of VOC, YOLO, LabelMe
and masks take
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from convmix.data.formats import printable
from convmix.data.readers.names import ImageIndex
from convmix.data.readers.pairing import Affix, pair, with_any
from convmix.data.readers.splits import Splits, apart, by_folders, by_lists, find_lists, refuse_rivals
from convmix.data.readers.survey import Survey, folder_of, some, stem_of, words_of

MAP_WORDS = frozenset({
    "mask", "masks", "segmentation", "segmentations", "annot", "annotations", "annotation", "gt", "groundtruth", "labels", "label",
})  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """What the reader calls its annotation files."""

    file: str  # "XML"
    no_image: str  # of an annotation; {stem} is its name


@dataclass
class PairedSplits:
    root: Path
    splits: dict[str, list[tuple[str, str | None]]]  # image and its annotation file, both relative to the root
    origin: str = ""
    dropped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        return self.root / name


def paired_splits(
    survey: Survey,
    annotations: Sequence[str],
    *,
    wording: Wording,
    keep_without: bool,
    affix: Affix | None = None,
    given: Splits | None = None,
    images: Sequence[str] | None = None,
    own: Affix | None = None,
    written: Callable[[str], str] | None = None,
    prefer: str = "main",
) -> PairedSplits:
    """keep_without: an image without annotation stays, as one without objects, where other images of its folder have one.

    given: the splits, where the data set itself says them. images: the pictures, where it is known which are. affix, own: what the names
    of annotations and of images have beside what both have. written: the image that an annotation file names itself. prefer: the
    folder whose lists are taken before others.
    """
    pictures, maps = (list(images), []) if images is not None else pictures_of(survey)
    pairs = pair(pictures, annotations, affix=affix, own=own, written=written)
    if pairs.ambiguous and given is None:
        refuse_rivals(pictures)
    found = PairedSplits(survey.root, {})
    found.dropped += [(printable(name), wording.no_image.format(stem=printable(stem_of(name)))) for name in pairs.lone]
    found.dropped += [(printable(name), reason) for name, reason in pairs.ambiguous]
    if given is not None:
        listed = {image for of_split in given.images.values() for image in of_split}
        inside, outside = [i for i in pictures if i in listed], [i for i in pictures if i not in listed]
    else:
        inside, outside = with_any(pictures, pairs.annotation_of)
    for image, other in pairs.rivals.items():
        found.dropped.append((printable(image), f"its {wording.file} is that of {printable(other.rpartition('/')[2])} too"))
    unpaired = [i for i in inside if i not in pairs.annotation_of and i not in pairs.rivals]
    if not keep_without:
        found.dropped += [(printable(image), f"an image without {wording.file}") for image in unpaired]
        unpaired = []
    keep = {*pairs.annotation_of, *unpaired}
    among = [image for image in inside if image in keep]
    if outside:
        found.dropped += [(printable(image), f"an image in a folder without {wording.file}") for image in outside]
    if maps:
        found.notes.append(f"{len(maps)} images in {_folders(maps)} are taken for masks and not read; --task segment reads them")
    splits = _splits(survey, among, pictures, annotations, given, prefer)
    found.splits = {split: [(i, pairs.annotation_of.get(i)) for i in of_split if i in keep] for split, of_split in splits.images.items()}
    found.origin = splits.origin
    found.dropped += splits.dropped
    found.notes += splits.notes
    if keep_without and unpaired and pairs.annotation_of:
        found.notes.append(f"{len(unpaired)} images have no {wording.file}: they count as images without objects")
    return found


def _splits(
    survey: Survey, among: Sequence[str], pictures: Sequence[str], annotations: Sequence[str], given: Splits | None, prefer: str
) -> Splits:
    if given is not None:
        return apart(given)
    index = ImageIndex(survey.root, pictures)
    lists = find_lists(survey, index, labels=annotations, prefer=prefer)
    return by_lists(survey, index, lists, among=among) if lists else by_folders(among)


def pictures_of(survey: Survey) -> tuple[list[str], list[str]]:
    """The images, and those in folders that are called like masks, where folders that are not hold images of the same names."""
    masks = {folder for folder in survey.by_folder if any(is_map_folder(part) for part in folder.split("/"))}
    stems = {stem_of(image) for folder, images in survey.by_folder.items() if folder not in masks for image in images}
    masks = {f for f in masks if any(stem_of(image) in stems for image in survey.by_folder[f][:50])}
    return [i for i in survey.images if folder_of(i) not in masks], [i for i in survey.images if folder_of(i) in masks]


def is_map_folder(name: str) -> bool:
    words = words_of(name)
    joined = {a + b for a, b in pairwise(words)}  # Ground Truth
    return bool(MAP_WORDS & {*words, *joined}) or any(word.endswith(("annot", "masks", "mask")) for word in words)


def _folders(images: Sequence[str]) -> str:
    return some(dict.fromkeys(f"{printable(folder_of(image))}/" for image in images), 3)
