"""Which images a run is scored on: those of the asked split, without the ones it was trained or chosen on.

run + data + split -> Selection
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.provenance import SPLITS, data_spec, digests, home, open_data, recorded_digests
from convmix.data.examples import Examples, Source
from convmix.data.inspection import announce
from convmix.data.remote.urls import redact
from convmix.errors import ConfigError, DataError, did_you_mean

_USED_BEFORE = {"train": (), "val": ("train",), "test": ("train", "val")}


@dataclass(frozen=True)
class Selection:
    """Labelled images to score."""

    examples: Examples
    digests: tuple[str, ...]  # n, of the encoded images
    data: str  # as the user named it
    split: str  # "all": data without splits, all of it
    own: bool  # whether it is a split that the run itself recorded
    left_out: int  # images of the split that the run was trained or chosen on
    notes: tuple[str, ...]


def select(artifact: Artifact, data: str | Path | None, *, split: str, console: Console | None = None) -> Selection:
    """The images of a split of `data`, or of the run's own data where that is None.

    Raises ConfigError for a split that does not exist, DataError for data that cannot be read or has nothing left to score.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: {split} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    spec = data_spec(artifact)
    data = redact(data) if isinstance(data, str) else data
    source = open_data(artifact, spec if data is None else data, is_default=data is None)
    announce(source, spec if data is None else data, console=console)
    if data is not None and home(artifact) is None:
        found = _unseen(source, {name: Counter() for name in SPLITS}, split, data=str(data))
        return replace(found, notes=(*found.notes, "this exported model does not know what it was trained on: no image is left out"))
    recorded = recorded_digests(artifact)
    if data is None or _is_same(data, spec):
        return _own_split(source, recorded, split, data=str(data or spec))
    return _unseen(source, recorded, split, data=str(data))


def unseen_by(rival: Artifact, selection: Selection, *, split: str) -> np.ndarray:
    """Positions of the images that another run may be judged on too, m int64.

    It is held to what the first one is: on its own split `val`, say, a run may have been chosen by the images but not trained on them.
    """
    recorded = recorded_digests(rival)
    used = set().union(*(recorded[name].keys() for name in (_USED_BEFORE[split] if selection.own else ("train", "val"))))
    return np.flatnonzero([digest not in used for digest in selection.digests])


def _is_same(data: str | Path, spec: str) -> bool:
    return str(data) == spec or (Path(data).exists() and os.path.realpath(data) == os.path.realpath(spec))


def _own_split(source: Source, recorded: dict[str, Counter[str]], split: str, *, data: str) -> Selection:
    """The images of the recorded split, wherever they stand in the data today.

    A split that the data came with is scored whole, as published results are, also where it holds copies of training images;
    splits made here have none.
    """
    pools = sorted(source.splits.values(), key=lambda pool: pool.split != split)  # a copy in another split is not taken for its twin
    missing = Counter(recorded[split])
    keep, kept_digests = [], []
    for pool in pools:
        kept = []
        for digest in digests(pool):
            kept.append(missing[digest] > 0)
            missing[digest] -= kept[-1]
            kept_digests += [digest] * kept[-1]
        keep.append(np.array(kept, dtype=bool))
    notes = []
    copies = sum(n for d, n in recorded[split].items() if any(d in recorded[s] for s in _USED_BEFORE[split]))
    if copies:
        notes.append(f"{copies} images of the given {split} split are also in another split; they are scored, the split being given")
    if gone := sum(missing.values()):
        notes.append(f"{gone} images of the recorded {split} split are no longer in the data")
    if not kept_digests:
        raise DataError(f"no image of the run's {split} split is left to score: {'; '.join(notes) or 'the split is empty'}")
    return Selection(_joined(pools, keep, split), tuple(kept_digests), data, split, True, 0, tuple(notes))


def _unseen(source: Source, recorded: dict[str, Counter[str]], split: str, *, data: str) -> Selection:
    """The asked split of other data, or all of it where it has no splits, without the images that the run has used."""
    asked = "all" if list(source.splits) == ["all"] else split
    if asked not in source.splits:
        has = ", ".join(source.splits)
        raise DataError(f"{data} has no {split} split, it has {has}; give split={next(iter(source.splits))}")
    pool = source.splits[asked]
    used = recorded["train"].keys() | recorded["val"].keys()
    found = digests(pool)
    keep = np.array([d not in used for d in found], dtype=bool)
    left_out = int((~keep).sum())
    if not keep.any():
        raise DataError(f"{data}: the run was trained on, or chosen by, all of its {left_out} images; give it images that it has not seen")
    notes = (f"{left_out} images of this data were trained on or chosen by: left out",) if left_out else ()
    examples = pool.select(np.flatnonzero(keep)) if left_out else pool
    return Selection(examples, tuple(d for d, k in zip(found, keep, strict=True) if k), data, examples.split, False, left_out, notes)


def _joined(pools: Sequence[Examples], keep: Sequence[np.ndarray], split: str) -> Examples:
    """The kept rows of several splits as one."""
    import datasets

    parts = [pool.select(np.flatnonzero(k)) for pool, k in zip(pools, keep, strict=True) if k.any()]
    rows = parts[0].rows if len(parts) == 1 else datasets.concatenate_datasets([p.rows for p in parts])
    return replace(parts[0], rows=rows, split=split)
