"""What all trainings of an experiment share: the data, read once, and the settings; mistakes are said here, before anything is trained."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convmix.comparison.candidates import Candidate
from convmix.config import Run, Size, override
from convmix.config import settings as all_settings
from convmix.data.facts import DataFacts
from convmix.data.inspection import announce, refuse_too_little
from convmix.data.remote.urls import redact
from convmix.data.scan import clean, scan
from convmix.data.sources import open_source
from convmix.data.splits import with_splits
from convmix.errors import ConfigError, DataError
from convmix.inference.batches import resolve
from convmix.recipes import recipe as named_recipe
from convmix.tasks import task_class
from convmix.tasks.base import Task
from convmix.training.log import scan_progress


@dataclass(frozen=True)
class Study:
    """Data and settings of an experiment."""

    data: str  # as the user named it
    recipe: str
    settings: Mapping[str, Any]  # of config.Run, by bare names, that every training gets; JSON values; the seed apart
    run: Run  # as resolved for a model that the recipe knows nothing of
    facts: DataFacts
    counts: Mapping[str, int]  # split -> images
    fingerprint: str
    seeds: tuple[int, ...]
    device: torch.device
    console: Console
    task: type[Task]

    @property
    def name(self) -> str:
        """Of the data set, short."""
        return short_name(self.data)

    @property
    def size(self) -> Size:
        """Height and width of every model's input, pixels."""
        return _size(self.run)

    def refusal(self, contender: Candidate) -> str | None:
        """Why the task does not have the augmentations that a contender asks for; None where it does."""
        try:
            self.task.check_augment(self.resolved(contender).augment)
        except ConfigError as error:
            return str(error)
        return None

    def resolved(self, contender: Candidate) -> Run:
        """The settings of a contender's trainings, the seed apart."""
        own = {**self.settings, **contender.settings}
        return override(named_recipe(self.recipe, replace(self.facts, model=own.get("model"))), own)


def open_study(
    data: str | Path,
    *,
    recipe: str | None,
    settings: Mapping[str, object],
    budget: str | None,
    epochs: int | None,
    seeds: int,
    device: str | None,
    console: Console,
) -> Study:
    """Check the arguments, then read every image once, as training does; raises a ConvmixError for any mistake."""
    bare = {key.replace("-", "_").split(".")[-1]: value for key, value in settings.items()}
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds: {seeds}, expected a number of trainings per contender of at least 1")
    if budget is not None and epochs is not None:
        raise ConfigError("budget and epochs exclude each other: contenders get the same time, or the same epochs")
    where, _ = resolve(device, "auto")
    spec = redact(data)
    name = recipe or ("digits" if spec == "digits" else "")  # "": the task's own
    first = override(Run(), {"seed": bare.pop("seed", 0)}).seed
    shared = bare | ({"budget": budget} if budget is not None else {}) | ({"epochs": epochs} if epochs is not None else {})
    asked = override(named_recipe(name or "default", DataFacts(1, 1, 224, 224, 3)), shared)  # mistakes are said before any image is read
    opened = open_source(spec, asked.data)
    announce(opened, spec, console=console)
    task = task_class(opened.task)
    name = name or task.recipe
    refuse_too_little(opened, spec)
    source = with_splits(opened, asked.data)
    with scan_progress(console) as bar:
        row = bar.add_task("reading images", total=None)
        seen = scan(source, asked.data, progress=lambda done, total: bar.update(row, completed=done, total=total))
    counts = {split: len(examples) for split, examples in clean(source, seen).splits.items()}
    if not counts.get("test"):
        raise DataError(f"{spec}: there are no test images to compare on; give a test split, or leave data.test_fraction above 0")
    run = override(named_recipe(name, seen.facts), shared)
    shared |= {"size": "{}x{}".format(*_size(run))}  # asked for, so that a model made for 224 pixels is built for these
    return Study(
        spec, name, _as_read(shared), run, seen.facts, counts, seen.fingerprint,
        tuple(range(first, first + seeds)), where, console, task,
    )  # fmt: skip


def _as_read(shared: Mapping[str, object]) -> dict[str, Any]:
    """Settings as JSON values of their own type, so that 0.5 and a command line's '0.5' are the same."""
    run = override(Run(), shared)
    homes = {s.name: getattr(run, s.section) if s.section else run for s in all_settings()}
    return {name: "{}x{}".format(*_size(run)) if name == "size" else plain(getattr(homes[name], name)) for name in shared}


def short_name(data: str) -> str:
    """The last part of a path, a pattern's folder or a Hub name, without suffix."""
    return Path(redact(data).split("*")[0].split(":")[-1]).resolve().name.split(".")[0] or "data"


def plain(value: object) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _size(run: Run) -> Size:
    return run.data.size or (224, 224)
