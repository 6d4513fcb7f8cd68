"""How a data set is read, before anything is trained: `convmix inspect`.

spec -> Source (readers) -> Inspection: layout, task, classes and images per split, what is left out and why, sizes and modes of a sample,
and the command that would train. Nothing is decoded but the headers of the sample.
"""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from convmix.config import Data, Run, override
from convmix.data.decode import BadImage, read_file, read_header, upright_size
from convmix.data.examples import Examples, Source
from convmix.data.readers.survey import spread
from convmix.data.remote.urls import redact
from convmix.data.sources import open_source
from convmix.errors import DataError

SAMPLE = 200  # images whose headers are read
EXAMPLES = 3  # of what is left out, per reason


@dataclass(frozen=True)
class LeftOut:
    """Files, rows or annotations that are not used, for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A data set as it is understood."""

    data: str  # as the user named it
    layout: str  # folders, table, parquet, shards, voc, yolo, coco, labelme, labelstudio, cvat, via, createml, kitti, dota, masks, hub, ...
    task: str  # classify, multilabel, detect, instances or segment
    root: str  # the folder that names are relative to
    classes: tuple[str, ...]
    images: int  # over all splits
    splits: dict[str, int]  # "train", "val", "test"; "all" where they are still to be made
    split_origin: str
    class_counts: dict[str, dict[str, int]]  # split -> class -> images, or objects where images hold several; empty for class maps
    annotations_per_image: dict[str, float]  # least, median, most; empty where every image has one
    left_out: tuple[LeftOut, ...]
    sizes: dict[str, int]  # WIDTHxHEIGHT -> images of the sample, the commonest first
    modes: dict[str, int]  # Pillow's mode -> images of the sample
    sampled: int  # images whose header was read
    notes: tuple[str, ...]
    train_command: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def inspect(data: str | Path, **settings: object) -> Inspection:
    """How `data` is read; trains nothing.

    settings: any setting of the data, such as layout="yolo", task="detect" or label_column="breed".
    Raises DataError, in one sentence, where the data cannot be read or not be trained on.
    """
    asked = override(Run(), settings).data
    source = open_source(data, asked)
    refuse_too_little(source, str(data))
    return inspected(source, data, settings)


def inspected(source: Source, data: str | Path, settings: dict[str, object] | None = None) -> Inspection:
    """The same of data that is open already."""
    asked = override(Run(), settings or {}).data
    spec = redact(str(data))
    sizes, modes, sampled, broken = _headers(source, asked)
    left_out = [*_left_out(source.dropped), *broken]
    return Inspection(
        data=spec,
        layout=source.layout,
        task=source.task,
        root=source.root,
        classes=source.classes,
        images=sum(map(len, source.splits.values())),
        splits={split: len(examples) for split, examples in source.splits.items()},
        split_origin=_split_origin(source),
        class_counts=_class_counts(source),
        annotations_per_image=_annotations_per_image(source),
        left_out=tuple(left_out),
        sizes=sizes,
        modes=modes,
        sampled=sampled,
        notes=(*source.notes, *_warnings(source)),
        train_command=shlex.join(["convmix", "train", spec, *_options(settings or {})]),
    )


def announce(source: Source, data: str | Path, *, console: Console | None) -> None:
    """Says, before anything is done with it, how a data set was read; nothing without a console, or on a quiet one."""
    if console is not None and not console.quiet:
        for line in lines(inspected(source, data)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _options(settings: dict[str, object]) -> list[str]:
    return [part for key, value in settings.items() if value is not None for part in (f"--{key.replace('_', '-')}", str(value))]


def _split_origin(source: Source) -> str:
    if list(source.splits) == ["all"]:
        return "none given: training makes val and test"
    missing = [split for split in ("val", "test") if split not in source.splits]
    made = f"; training makes {' and '.join(missing)}" if missing and "train" in source.splits else ""
    return (source.split_origin or "given") + made


# Too little


def refuse_too_little(source: Source, spec: str) -> None:
    """DataError, with what to do, where a classifier has nothing to tell apart."""
    if not {"train", "all"} & source.splits.keys():
        raise DataError(f"{spec}: has only the {', '.join(source.splits)} split; training needs a train split or unsplit images")
    if source.task == "multilabel":
        _refuse_same_labels(source, spec)
    if source.task != "classify":
        return
    numbers = [name for name in source.classes if re.fullmatch(r"-?\d*\.\d*[1-9]\d*", name)]
    if len(source.classes) > 10 and 2 * len(numbers) > len(source.classes):
        raise DataError(
            f"{spec}: the labels are {len(source.classes)} numbers such as {numbers[0]}, a quantity and no classes; give a column of "
            "classes with --label-column, or cut the numbers into ranges"
        )
    pool = source.splits.get("train") or source.splits.get("all")
    if len(source.classes) == 1:
        raise DataError(
            f"{spec}: has images of one class, {source.classes[0]!r}, and a classifier needs at least two to tell apart: add a folder (or "
            "a label) of what is no such thing, or look with --layout whether the data means something else"
        )
    if pool is None:
        return
    counts = np.bincount(pool.labels, minlength=len(source.classes))
    if counts.max() < 2:
        raise DataError(
            f"{spec}: has one image per class ({len(source.classes)} classes): nothing is left to validate on; give several images of each "
            "class, or check that the folders or labels are classes and not single images"
        )


def _refuse_same_labels(source: Source, spec: str) -> None:
    """DataError where no label is on one image and known to be missing on another."""
    pool = source.splits.get("train") or source.splits["all"]
    matrix = pool.label_matrix
    if matrix is not None and not ((matrix == 1).any(0) & (matrix == 0).any(0)).any():
        raise DataError(
            f"{spec}: no label ({_some(source.classes)}) is on some images and known to be missing on others, so there is nothing to tell "
            "apart: add images without it, or say 0 where a cell is empty"
        )


def _warnings(source: Source) -> list[str]:
    notes = []
    pool = source.splits.get("train") or source.splits.get("all")
    if source.task == "classify" and pool is not None:
        counts = np.bincount(pool.labels, minlength=len(source.classes))
        few = [source.classes[i] for i in np.flatnonzero((counts > 0) & (counts < 3))]
        none = [source.classes[i] for i in np.flatnonzero(counts == 0)]
        if none:
            notes.append(
                f"no training image has the class {_some(none)}: it will never be the answer; add images or take it out of the names"
            )
        if few and len(source.splits) == 1:
            notes.append(
                f"fewer than 3 images of {_some(few)}: they stay in train whole, so nothing is known of how well they are recognised"
            )
    if source.task == "classify":
        for split in ("val", "test"):
            if split in source.splits:
                absent = set(range(len(source.classes))) - set(source.splits[split].labels.tolist())
                if absent:
                    names = [source.classes[i] for i in sorted(absent)]
                    notes.append(f"the {split} split has no image of {_some(names)}: its scores say nothing about them; add some")
    if source.task == "multilabel" and pool is not None and pool.label_matrix is not None:
        notes += _warnings_of_labels(pool.label_matrix, source.classes)
    if pool is not None and len(pool) < 20:
        notes.append(f"{len(pool)} images to train on are few: expect a rough model, and scores with wide intervals; add images if you can")
    return notes


def _warnings_of_labels(matrix: np.ndarray, classes: Sequence[str]) -> list[str]:
    """What the labels n,k of the images to train on leave open."""
    yes, no = (matrix == 1).sum(0), (matrix == 0).sum(0)
    notes = []
    if unknown := int((matrix < 0).sum()):
        notes.append(
            f"of {unknown} of {matrix.size} labels nobody says whether an image has them: they are neither learned from nor scored"
        )
    if bare := int(((matrix != 1).all(1)).sum()):
        notes.append(f"{bare} images have no label, which is something to learn from too")
    for counts, words in ((yes, "no training image has the label"), (no, "every training image has, or may have, the label")):
        if none := np.flatnonzero(counts == 0).tolist():
            notes.append(f"{words} {_some([classes[i] for i in none])}: nothing can be learned of it; add images or take it out")
    if few := np.flatnonzero((yes > 0) & (yes < 3)).tolist():
        notes.append(
            f"fewer than 3 training images have the label {_some([classes[i] for i in few])}: they all stay in train where splits are made"
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# Counts


def _class_counts(source: Source) -> dict[str, dict[str, int]]:
    if source.task == "segment":
        return {}
    found = {}
    for split, examples in source.splits.items():
        labels = _all_labels(examples)
        counts = np.bincount(labels, minlength=len(source.classes))
        found[split] = {name: int(n) for name, n in zip(source.classes, counts, strict=True)}
    return found


def _all_labels(examples: Examples) -> np.ndarray:
    """Of all images or objects, n int64."""
    column = next((c for c in ("object_labels", "labels") if c in examples.rows.column_names), None)
    if column is None:
        return examples.labels
    listed = examples.rows.select_columns([column]).with_format("arrow")[:][column].to_pylist() if len(examples) else []
    return np.array([label for of_image in listed for label in of_image], np.int64)


def _annotations_per_image(source: Source) -> dict[str, float]:
    column = {"detect": "object_labels", "instances": "object_labels", "multilabel": "labels"}.get(source.task)
    if column is None:
        return {}
    counts = [
        len(of_image)
        for examples in source.splits.values()
        for of_image in examples.rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    ]
    return {"least": float(min(counts)), "median": float(np.median(counts)), "most": float(max(counts))} if counts else {}


def _left_out(dropped: Sequence[tuple[str, str]]) -> list[LeftOut]:
    """By reason; reasons that differ in numbers and names alone are one."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, reason in dropped:
        groups.setdefault(_kind_of(reason), []).append((name, reason))
    ranked = sorted(groups.values(), key=len, reverse=True)
    return [LeftOut(group[0][1], len(group), tuple(name for name, _ in group[:EXAMPLES])) for group in ranked]


def _kind_of(reason: str) -> str:
    return re.sub(r"'[^']*'|\S*[\d/.]\S*", "#", reason)


def _headers(source: Source, data: Data) -> tuple[dict[str, int], dict[str, int], int, list[LeftOut]]:
    """Sizes and modes of a sample, evenly over every split, and what of it cannot be read."""
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    broken: list[tuple[str, str]] = []
    sampled = 0
    share = max(SAMPLE // max(len(source.splits), 1), 1)
    for examples in source.splits.values():
        if examples.remote is not None:
            continue
        for i in map(int, spread([str(i) for i in range(len(examples))], share)):
            sampled += 1
            try:
                image = examples.source(i)
                content = image if isinstance(image, bytes) else read_file(image)
                height, width = upright_size(content, in_chans=data.in_chans, max_pixels=data.max_pixels)
            except BadImage as bad:
                broken.append((examples.name(i), f"in the sample: {bad.reason}"))
                continue
            sizes[f"{width}x{height}"] += 1
            modes[read_header(content).mode or "array"] += 1
    return dict(sizes.most_common(8)), dict(modes.most_common()), sampled, _left_out(broken)


def lines(found: Inspection) -> list[str]:
    """For people, a line each."""
    classes = _some(found.classes)
    text = [
        f"data      {found.data}: {found.layout}, task {found.task}" + (f", in {found.root}" if found.root else ""),
        f"classes   {len(found.classes)}: {classes}",
        f"images    {found.images}: {', '.join(f'{split} {n}' for split, n in found.splits.items())} ({found.split_origin})",
    ]
    if found.annotations_per_image:
        least, median, most = (found.annotations_per_image[key] for key in ("least", "median", "most"))
        text.append(f"per image {median:g} annotations in the middle, {least:g} to {most:g}")
    text += [f"left out  {item.count}: {item.reason} (such as {', '.join(item.examples)})" for item in found.left_out]
    if found.sampled:
        sizes = ", ".join(f"{size} ({n})" for size, n in list(found.sizes.items())[:3])
        text.append(
            f"pictures  {sizes}; {', '.join(f'{mode} ({n})' for mode, n in found.modes.items())}; headers of {found.sampled} images"
        )
    text += [f"note      {note}" for note in found.notes]
    return text


def table_of_counts(found: Inspection) -> list[str]:
    """A line per class: its name and its count in every split."""
    splits = list(found.class_counts)
    if not splits:
        return []
    width = max(len(name) for name in (*found.classes, "class"))
    head = f"{'class':<{width}}  " + "  ".join(f"{split:>7}" for split in splits)
    return [head, *(f"{name:<{width}}  " + "  ".join(f"{found.class_counts[s][name]:>7}" for s in splits) for name in found.classes)]
