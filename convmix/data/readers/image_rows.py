"""The rows of a table as images: several rows of one image, and splits that lists beside the table tell."""

from collections.abc import Sequence

from convmix.data.formats import printable
from convmix.data.readers.label_cells import LabelSet
from convmix.data.readers.names import ImageIndex
from convmix.data.readers.splits import by_lists, find_lists
from convmix.data.readers.survey import Survey, some

Labels = list["str | LabelSet"]
Parts = dict[str, tuple[list[str], Labels]]  # split -> paths, labels
FEW = 0.05  # share of the images; where fewer have two labels these are a mistake, not the form of the table


def one_row_per_image(parts: Parts, dropped: list[tuple[str, str]], notes: list[str], *, task: str) -> None:
    """Rows of one image that say the same are one; where many say different things, an image has several labels.

    An image that is held out for validation or test is not trained on, whatever other rows say.
    """
    held_out = {path: split for split in ("val", "test") if split in parts for path in parts[split][0]}
    for split in ("train", "val"):
        paths, labels = parts.get(split, ([], []))
        both = {path for path in paths if held_out.get(path, split) != split}
        if both and len(both) < len({*paths}):
            parts[split] = [p for p in paths if p not in both], [v for p, v in zip(paths, labels, strict=True) if p not in both]
            dropped += [(printable(path), f"also listed for {held_out[path]}, so not in {split}") for path in sorted(both)]
            notes.append(f"{len(both)} images are listed for {split} and for another split: they are kept out of {split}")
    if all(len({*paths}) == len(paths) for paths, _ in parts.values()):
        return
    grouped = {split: _grouped(*part) for split, part in parts.items()}
    images = sum(map(len, grouped.values()))
    differing = [path for of_split in grouped.values() for path, said in of_split.items() if len({*said}) > 1]
    several = len(differing) > FEW * images and task != "classify"
    if several:
        notes.append(
            f"{len(differing)} images have rows with different labels (such as {printable(differing[0])}): they have several labels"
        )
    for split, of_split in grouped.items():
        for path, said in of_split.items():
            if len({*said}) > 1 and not several:
                dropped.append((printable(path), f"rows with different labels: {some(map(_text, dict.fromkeys(said)), 3)}"))
            elif len(said) > 1 and len({*said}) == 1:
                dropped += [(printable(path), "the same row a second time")] * (len(said) - 1)
        kept = {path: said for path, said in of_split.items() if several or len({*said}) == 1}
        parts[split] = list(kept), [_union(said) if several else said[0] for said in kept.values()]


def _grouped(paths: Sequence[str], labels: Sequence["str | LabelSet"]) -> dict[str, Labels]:
    found: dict[str, Labels] = {}
    for path, label in zip(paths, labels, strict=True):
        found.setdefault(path, []).append(label)
    return found


def _union(said: Labels) -> LabelSet:
    sets = [label if isinstance(label, LabelSet) else LabelSet((label,)) for label in said]
    present = tuple(dict.fromkeys(name for s in sets for name in s.present))
    return LabelSet(present, tuple(dict.fromkeys(name for s in sets for name in s.unknown if name not in present)))


def _text(label: "str | LabelSet") -> str:
    return label if isinstance(label, str) else " and ".join(label.present) or "none"


def split_by_lists(seen: Survey, parts: Parts, dropped: list[tuple[str, str]], notes: list[str]) -> tuple[Parts, str]:
    """The images of one part by lists that lie there, and where the splits come from; unchanged without lists."""
    paths, labels = parts["all"]
    index = ImageIndex(seen.root, paths)
    if not (lists := find_lists(seen, index)):
        return parts, ""
    splits = by_lists(seen, index, lists, among=paths)
    dropped += splits.dropped
    notes += splits.notes
    label_of = dict(zip(paths, labels, strict=True))
    return {split: (names, [label_of[name] for name in names]) for split, names in splits.images.items() if names}, splits.origin
