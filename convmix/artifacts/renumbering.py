"""The classes of a data set as a run's own columns, by name."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convmix.data.examples import Examples
from convmix.data.formats import read_class_names
from convmix.data.targets import IGNORE, UNKNOWN, Annotation, Objects, Regions
from convmix.errors import DataError, did_you_mean


def columns(classes: tuple[str, ...], labels: tuple[str, ...], data: str, *, used: Collection[int] | None = None) -> np.ndarray:
    """Class number of the data -> column of the run's labels, by name; -1 for a class that is not `used` and that the run does not know.

    used: the classes that some image has (None: all). Raises DataError where the run does not know one of them.
    """
    known = {label: i for i, label in enumerate(labels)}
    wanted = sorted(range(len(classes)) if used is None else set(used))
    names = list(classes)
    if any(names[i] not in known for i in wanted):  # folders of photos/test, with their readable names in photos/classes.json
        readable = read_class_names(Path(data).parent) if Path(data).exists() else None
        names = [(readable or {}).get(name, name) for name in names]
    for i in wanted:
        if names[i] not in known:
            listed = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
            raise DataError(f"{data}: the run does not know its class {names[i]}{did_you_mean(names[i], labels)} (it knows {listed})")
    return np.array([known.get(name, -1) for name in names], dtype=np.int64)


@dataclass(frozen=True)
class Renumbered:
    """Examples whose classes are the run's columns."""

    examples: Examples
    columns: np.ndarray  # class number of the data -> column
    num_columns: int = 0  # labels of the run, where images have several

    @property
    def labels(self) -> np.ndarray:
        return self.columns[self.examples.labels]

    def __len__(self) -> int:
        return len(self.examples)

    def source(self, i: int, /) -> bytes | str:
        return self.examples.source(i)

    def annotation(self, i: int, /) -> Annotation:
        known = self.examples.annotation(i)
        if isinstance(known, Tensor):  # of a label that the data does not have nobody knows
            placed = torch.full((self.num_columns,), UNKNOWN, dtype=known.dtype)
            placed[torch.from_numpy(self.columns)] = known
            return placed
        if isinstance(known, Objects):
            return replace(known, labels=self.columns[known.labels])
        if isinstance(known, Regions):
            return replace(known, classes=tuple(c if c == IGNORE else int(self.columns[c]) for c in known.classes))
        return int(self.columns[known])
