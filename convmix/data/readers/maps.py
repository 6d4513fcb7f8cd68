"""Which images are maps of classes or objects for other images, by their names: masks/a.png for images/a.jpg, a_mask.png beside a.jpg.

Names alone: what the files hold is for `mapfolders.py` to say.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from convmix.data.formats import IMAGE_SUFFIXES, SPLIT_WORDS, printable
from convmix.data.readers.paired import MAP_WORDS, is_map_folder
from convmix.data.readers.pairing import Affix, common_affix, find_affix
from convmix.data.readers.splits import folder_split
from convmix.data.readers.survey import Survey, folder_of, stem_of, suffix_of, words_of

LOSSLESS = frozenset((".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp", ".npy"))
IMAGE_WORDS = frozenset({
    "image", "images", "img", "imgs", "jpegimages", "jpeg", "photo", "photos", "picture", "pictures", "input", "inputs", "raw", "data",
    "frames", "x", "original", "rgb",
})  # fmt: skip
AFFIX_WORDS = MAP_WORDS | {"l", "seg", "class", "colormask", "labelids", "y", "anno", "manual", "matte"}
_WITHOUT_SPLIT = re.compile("^(" + "|".join(sorted(SPLIT_WORDS, key=len, reverse=True)) + ")")
OBJECT_WORDS = frozenset({"object", "objects", "instance", "instances"})


@dataclass(frozen=True)
class MapFiles:
    """Candidates: nobody has looked into them yet."""

    images: list[str]
    maps: list[str]
    affix: Affix
    own: Affix  # what the images' names have in common, and no map has: image_1.png beside mask_1.png
    lossy: list[str]  # maps of a kind that changes values
    plainly: bool  # the folders are called images and masks, or the like: no classes

    def described(self) -> str:
        folders = sorted({folder_of(name) for name in (*self.maps, *self.lossy)})
        return ", ".join(f"{printable(folder)}/" for folder in folders[:3]) or "the folder"


def find_maps(survey: Survey, *, objects: bool) -> MapFiles | None:
    """None where no images are called like maps of others. objects: maps of objects rather than of classes, where there are both."""
    folders = [folder for folder in survey.by_folder if _is_map(folder)]
    groups: dict[str, list[str]] = {}
    for folder in folders:
        groups.setdefault(_map_part(folder), []).append(folder)
    images = [i for folder, names in survey.by_folder.items() if folder not in folders for i in names]
    if not images:
        return _beside(survey)
    ranked = sorted(groups, key=lambda part: bool(OBJECT_WORDS & {*words_of(part)}) is not objects)
    for part in ranked:
        maps = [m for folder in groups[part] for m in survey.by_folder[folder]]
        mine = _paired_with(images, groups[part])
        own, affix = _affixes(mine, maps)
        if affix is None or not (_is_affix(affix) or own.before or own.after):
            continue
        lossy = [m for m in maps if suffix_of(m) not in LOSSLESS and suffix_of(m) in IMAGE_SUFFIXES]
        plainly = all(_is_plain(folder_of(image)) for image in mine[:1])
        return MapFiles(mine, [m for m in maps if m not in set(lossy)], affix, own, lossy, plainly)
    return _beside(survey)


def _affixes(images: Sequence[str], maps: Sequence[str]) -> tuple[Affix, Affix | None]:
    """What the images' names have and the maps' do not, as 1_sat.jpg beside 1_mask.png, and the reverse; None where no name fits."""
    common = common_affix(images)
    for own in dict.fromkeys((Affix(), common, Affix("", common.after), Affix(common.before))):
        if (affix := find_affix(images, maps, own=own)) is not None:
            return own, affix
    return Affix(), None


def _is_map(folder: str) -> bool:
    return any(is_map_folder(part) for part in folder.split("/"))


def _map_part(folder: str) -> str:
    """The part of a path that says masks, without the split in it: masks/train and masks/val are one group."""
    part = next(part for part in reversed(folder.split("/")) if is_map_folder(part))
    return " ".join(_WITHOUT_SPLIT.sub("", word) for word in words_of(part)).strip()


def _paired_with(images: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The images below the folder that holds all these folders of maps: others have nothing to do with them."""
    tops = {folder_of(folder) for folder in folders}
    near = [i for i in images if any(not top or i.startswith(f"{top}/") for top in tops)]
    wider = {folder_of(top) for top in tops}
    return near or [i for i in images if any(not top or i.startswith(f"{top}/") for top in wider)] or list(images)


def _is_plain(folder: str) -> bool:
    """A name that no class has: images, train, or none at all."""
    parts = folder.split("/")
    return not folder or any({*words_of(p)} & IMAGE_WORDS or folder_split(p, exact=False) for p in parts)


def _is_affix(affix: Affix) -> bool:
    return not (affix.before or affix.after) or bool(AFFIX_WORDS & {*words_of(affix.before), *words_of(affix.after)})


def _beside(survey: Survey) -> MapFiles | None:
    """a.jpg and a_mask.png in one folder."""
    maps = [name for name in survey.images if AFFIX_WORDS & {*words_of(stem_of(name))}]
    images = sorted(set(survey.images) - set(maps))
    own, affix = _affixes(images, maps) if images and maps else (Affix(), None)
    if affix is None or not (affix.before or affix.after) or not _is_affix(affix):
        return None
    maps = [name for name in maps if affix.strip(stem_of(name)) is not None]
    lossy = [m for m in maps if suffix_of(m) not in LOSSLESS]
    return MapFiles(images, [m for m in maps if m not in set(lossy)], affix, own, lossy, True)
