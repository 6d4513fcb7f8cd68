"""Which annotation file belongs to which image: by name, wherever the two lie.

images/train/a.jpg + labels/train/a.txt, train/images/a.jpg + train/labels/a.txt, a.jpg + a.xml, img/x/a.jpg + gt/x/mask_a.png:
of the images of a file's name the one whose folders are most like the file's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convmix.data.formats import IMAGE_SUFFIXES, printable
from convmix.data.readers.names import plain
from convmix.data.readers.splits import folder_split
from convmix.data.readers.survey import folder_of, spread, stem_of, suffix_of

MARKS = "_-. "  # what sets off a word in a name


@dataclass
class Pairs:
    """Images with their annotation files; names are relative to the data set."""

    annotation_of: dict[str, str]  # image -> annotation
    lone: list[str]  # annotations without image
    rivals: dict[str, str]  # image -> the image of the same name that has the annotation
    ambiguous: list[tuple[str, str]] = field(default_factory=list)  # annotation, reason


@dataclass(frozen=True)
class Affix:
    """What the name of an annotation file adds to that of its image."""

    before: str = ""
    after: str = ""

    def strip(self, stem: str) -> str | None:
        inside = stem.removeprefix(self.before).removesuffix(self.after) if self.before or self.after else stem
        fits = len(inside) == len(stem) - len(self.before) - len(self.after)
        return inside if fits else None


def pair(
    images: Sequence[str],
    annotations: Sequence[str],
    *,
    affix: Affix | None = None,
    own: Affix | None = None,
    written: Callable[[str], str] | None = None,
) -> Pairs:
    """Every annotation goes to one image at most, every image gets one at most.

    own: what images' names have and annotations' do not. written: the image that an annotation file names, for one of whose own name there
    is none.
    """
    affix, own = affix or Affix(), own or Affix()
    by_stem: dict[str, list[str]] = {}
    for image in images:
        bare = own.strip(plain(stem_of(image)))
        by_stem.setdefault(plain(stem_of(image)) if bare is None else bare, []).append(image)
    found = Pairs({}, [], {})
    for annotation in annotations:
        stem = affix.strip(plain(stem_of(annotation)))
        candidates = [] if stem is None else by_stem.get(stem) or by_stem.get(without_suffix(stem), [])
        if not candidates and written is not None and (named := written(annotation)):
            candidates = by_stem.get(plain(stem_of(named.replace("\\", "/"))), [])
        candidates = [image for image in candidates if not _of_other_splits(image, annotation)]
        if not candidates:
            found.lone.append(annotation)
            continue
        ranked = sorted(candidates, key=lambda image: likeness(image, annotation), reverse=True)  # stable: the first by name leads
        best = [image for image in ranked if likeness(image, annotation) == likeness(ranked[0], annotation)]
        if len({folder_of(image) for image in best}) > 1:
            found.ambiguous.append((annotation, f"several images have this name: {printable(best[0])}, {printable(best[1])}"))
        elif best[0] in found.annotation_of:
            found.ambiguous.append((annotation, f"its image has {printable(found.annotation_of[best[0]])} already"))
        else:
            found.annotation_of[best[0]] = annotation
            found.rivals.update(dict.fromkeys(best[1:], best[0]))
    found.rivals = {image: other for image, other in found.rivals.items() if image not in found.annotation_of}
    return found


def without_suffix(stem: str) -> str:
    """1.jpg of 1.jpg.txt is 1."""
    return stem_of(stem) if suffix_of(stem) in IMAGE_SUFFIXES else stem


def _of_other_splits(image: str, annotation: str) -> bool:
    one, other = folder_split(folder_of(image), exact=False), folder_split(folder_of(annotation), exact=False)
    return one is not None and other is not None and one != other


def likeness(image: str, annotation: str) -> tuple[int, int, int]:
    """How alike the folders of the two are: parts in common from the top and from the bottom, the same split, one's name in the other's."""
    a, b = plain(image).split("/")[:-1], plain(annotation).split("/")[:-1]
    head = _alike(a, b)
    tail = _alike(a[head:][::-1], b[head:][::-1])
    split = folder_split("/".join(a), exact=False)
    same_split = int(split is not None and split == folder_split("/".join(b), exact=False))
    inside = sum(one in other for one, other in zip(a[head:], b[head:], strict=False))  # train in train_masks
    return head + tail, same_split, inside


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts the two begin with in common."""
    return next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def with_any(images: Sequence[str], annotation_of: dict[str, str]) -> tuple[list[str], list[str]]:
    """The images of the folders in which any image has an annotation, and those of other folders."""
    folders = {folder_of(image) for image in annotation_of}
    inside = [image for image in images if folder_of(image) in folders]
    return inside, [image for image in images if folder_of(image) not in folders]


def common_affix(names: Sequence[str]) -> Affix:
    """The words that all of the names begin and end with."""
    stems = sorted({plain(stem_of(name)) for name in names})
    if len(stems) < 2:
        return Affix()
    head, tail = _alike_all(stems), _alike_all([stem[::-1] for stem in stems])
    before, after = stems[0][:head], stems[0][len(stems[0]) - tail :]
    before = before[: max((i + 1 for i, letter in enumerate(before) if letter in MARKS), default=0)]
    after = after[min((i for i, letter in enumerate(after) if letter in MARKS), default=len(after)) :]
    return Affix(before, after) if len(before) + len(after) < min(map(len, stems)) else Affix(before)


def _alike_all(texts: Sequence[str]) -> int:
    first, last = min(texts), max(texts)
    return _alike(first, last)


def find_affix(images: Sequence[str], annotations: Sequence[str], *, own: Affix | None = None) -> Affix | None:
    """What most of the annotations' names add to images' names: nothing, _mask, mask_ and the like. None where no name fits."""
    stems = {bare for image in images if (bare := (own or Affix()).strip(plain(stem_of(image)))) is not None}
    sample = spread(annotations, 30)
    counts: dict[Affix, int] = {}
    for annotation in sample:
        stem = plain(stem_of(annotation))
        for before, after in _cuts(stem):
            if stem[len(before) : len(stem) - len(after)] in stems:
                affix = Affix(before, after)
                counts[affix] = counts.get(affix, 0) + 1
    ranked = sorted(counts, key=lambda affix: (-counts[affix], "color" in affix.after, len(affix.before) + len(affix.after), affix.before))
    return ranked[0] if ranked else None


def _cuts(stem: str) -> list[tuple[str, str]]:
    """Beginnings and ends that may be no part of the image's name: they are words, set off by a mark."""
    marks = [i for i, letter in enumerate(stem) if letter in MARKS]
    before = ["", *(stem[: i + 1] for i in marks)]
    after = ["", *(stem[i:] for i in marks)]
    return [(b, a) for b in before for a in after if len(b) + len(a) < len(stem) and (not b or not a or len(b) + len(a) < len(stem) / 2)]
