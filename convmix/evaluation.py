"""How good a run is on images that it was not trained on.

run + data -> the images of a split, without those that the run was trained or chosen on -> outputs -> metrics -> JSON, CSV, table
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convmix.acceleration import accelerate
from convmix.artifact import Artifact, load_artifact, write_csv, write_json
from convmix.data.formats import read_class_names
from convmix.data.loaders import eval_batches
from convmix.data.sources import Examples, Source
from convmix.errors import ConfigError, DataError, RunError, did_you_mean
from convmix.inference import resolve, run_model
from convmix.provenance import SPLITS, data_spec, digests, open_data, recorded_digests
from convmix.results import Classes
from convmix.tasks import create_task

if TYPE_CHECKING:
    from rich.console import Group

_USED_BEFORE = {"train": (), "val": ("train",), "test": ("train", "val")}
MAX_CLASSES_SHOWN = 30


@dataclass(frozen=True)
class Scored:
    """One evaluated image."""

    name: str
    truth: str
    prediction: str
    probability: float  # of the prediction, 0..1


@dataclass(frozen=True)
class Evaluation:
    """Scores of one run on one split of one data set."""

    run: str
    data: str
    split: str  # "all": data without splits, all of it
    metrics: dict[str, Any] = field(repr=False)  # of metrics.classification_metrics
    left_out: int  # images of the split that the run was trained or chosen on
    bad: tuple[tuple[str, str], ...]  # (name, reason) of images that could not be read
    notes: tuple[str, ...]  # what the user should know, a line each
    output: Path  # the JSON file; the images are in the CSV file of the same name
    images: tuple[Scored, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds: everything but the single images."""
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "left_out": self.left_out,
            "bad": [{"name": name, "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
            "metrics": self.metrics,
        }


def evaluate(
    run: str | Path | Artifact,
    data: str | Path | None = None,
    *,
    split: str = "test",
    output: str | Path | None = None,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    workers: int | None = None,
) -> Evaluation:
    """Score a run on labelled images and write the scores.

    run: a model directory, or one already loaded.
    data: a data set in any form that training reads; None: the one the run was trained on, in the splits it recorded. Labels are
    matched by name; the data may have fewer classes than the run. Data without splits is scored whole.
    split: train, val or test.
    output: the JSON file (None: evaluation-NAME.json in the model directory); a CSV with every image is written beside it.
    device, precision: where and how to compute; None and auto: what this machine is best at.
    optimize: auto, always or never run the model in the fastest engine that `convmix.optimize` finds; auto: where that ends sooner.

    An image that the run was trained on, or chosen by, is left out and counted, recognised by its bytes. Raises DataError for data
    that cannot be read, has a class that the run does not know, or has nothing left to score; RunError for an incomplete run.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: {split} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is too small, expected at least 1")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers} is too small, expected at least 0")
    if output is not None and Path(output).suffix.lower() != ".json":
        raise ConfigError(f"output: {output} must end in .json")
    where, how = resolve(device, precision)
    artifact = run if isinstance(run, Artifact) else load_artifact(run)
    spec = data_spec(artifact)
    own = data is None or _is_same(data, spec)
    source = open_data(artifact, spec if data is None else data, is_default=data is None)
    recorded = recorded_digests(artifact)
    if own:
        examples, left_out, notes = _own_split(source, recorded, split)
        name = split
    else:
        examples, left_out, notes = _unseen(source, recorded, split, data)
        name = examples.split
    written = _output_path(output, artifact, None if own else data, name)
    columns = _columns(examples, artifact.labels, data if data is not None else spec)

    batches = eval_batches(examples, artifact.preprocess, batch_size=batch_size, workers=workers)
    ready = accelerate(artifact, len(examples), batch_size=batch_size, device=where, precision=how, optimize=optimize)
    outputs = run_model(ready.model, batches, device=where, precision=ready.precision)
    notes += [ready.note] if ready.note else []
    bad = tuple((examples.name(i), reason) for i, reason in outputs.bad)
    if not len(outputs.values):
        raise DataError(f"{data if data is not None else spec}: none of its {len(bad)} images can be read; the first: {bad[0][1]}")
    if not outputs.values.isfinite().all():
        raise RunError(f"{artifact.path}: the model's output is not finite; its weights are of no use")
    targets = torch.from_numpy(columns)[outputs.targets]  # n, columns of the run's labels
    task = create_task(artifact.task, artifact.labels)
    result = Evaluation(
        run=str(artifact.path),
        data=str(data if data is not None else spec),
        split=name,
        metrics=task.metrics(outputs.values, targets),
        left_out=left_out,
        bad=bad,
        notes=tuple(notes),
        output=written,
        images=_images(examples, outputs.indices, targets, task.decode(outputs.values)),
    )
    write_json(written, result.to_dict())
    rows = [(s.name, s.truth, s.prediction, s.probability) for s in result.images]
    write_csv(written.with_suffix(".csv"), ("name", "truth", "prediction", "probability"), rows)
    return result


def _is_same(data: str | Path, spec: str) -> bool:
    return str(data) == spec or (Path(data).exists() and os.path.realpath(data) == os.path.realpath(spec))


def _own_split(source: Source, recorded: dict[str, Counter[str]], split: str) -> tuple[Examples, int, list[str]]:
    """The images of the recorded split, wherever they stand in the data today.

    A split that the data came with is scored whole, as published results are, also where it holds copies of training images;
    splits made here have none.
    """
    pools = sorted(source.splits.values(), key=lambda pool: pool.split != split)  # a copy in another split is not taken for its twin
    missing = Counter(recorded[split])
    keep = []
    for pool in pools:
        kept = []
        for d in digests(pool):
            kept.append(missing[d] > 0)
            missing[d] -= kept[-1]
        keep.append(np.array(kept, dtype=bool))
    notes = []
    copies = sum(n for d, n in recorded[split].items() if any(d in recorded[s] for s in _USED_BEFORE[split]))
    if copies:
        notes.append(f"{copies} images of the given {split} split are also in another split; they are scored, the split being given")
    if gone := sum(missing.values()):
        notes.append(f"{gone} images of the recorded {split} split are no longer in the data")
    if not any(k.any() for k in keep):
        raise DataError(f"no image of the run's {split} split is left to score: {'; '.join(notes) or 'the split is empty'}")
    return _joined(pools, keep, split), 0, notes


def _unseen(source: Source, recorded: dict[str, Counter[str]], split: str, data: object) -> tuple[Examples, int, list[str]]:
    """The asked split of other data, or all of it where it has no splits, without the images that the run has used."""
    asked = "all" if list(source.splits) == ["all"] else split
    if asked not in source.splits:
        has = ", ".join(source.splits)
        raise DataError(f"{data} has no {split} split, it has {has}; give split={next(iter(source.splits))}")
    pool = source.splits[asked]
    used = recorded["train"].keys() | recorded["val"].keys()
    keep = np.array([d not in used for d in digests(pool)], dtype=bool)
    left_out = int((~keep).sum())
    if not keep.any():
        raise DataError(f"{data}: the run was trained on, or chosen by, all of its {left_out} images; give it images that it has not seen")
    notes = [f"{left_out} images of this data were trained on or chosen by: left out"] if left_out else []
    return (pool.select(np.flatnonzero(keep)) if left_out else pool), left_out, notes


def _joined(pools: Sequence[Examples], keep: Sequence[np.ndarray], split: str) -> Examples:
    """The kept rows of several splits as one."""
    from dataclasses import replace

    import datasets

    parts = [pool.select(np.flatnonzero(k)) for pool, k in zip(pools, keep, strict=True) if k.any()]
    rows = parts[0].rows if len(parts) == 1 else datasets.concatenate_datasets([p.rows for p in parts])
    return replace(parts[0], rows=rows, split=split)


def _columns(examples: Examples, labels: tuple[str, ...], data: str | Path) -> np.ndarray:
    """Class number of the data -> column of the run (-1 for a class without images), by name."""
    columns = {label: i for i, label in enumerate(labels)}
    present = set(examples.labels.tolist())
    names = list(examples.classes)
    if any(names[i] not in columns for i in present):  # folders of photos/test, with their readable names in photos/classes.json
        readable = read_class_names(Path(data).parent) if Path(data).exists() else None
        names = [(readable or {}).get(name, name) for name in names]
    for i in sorted(present):
        if names[i] not in columns:
            known = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
            raise DataError(f"{data}: the run does not know its class {names[i]}{did_you_mean(names[i], labels)} (it knows {known})")
    return np.array([columns.get(name, -1) for name in names], dtype=np.int64)


def _images(examples: Examples, indices: torch.Tensor, targets: torch.Tensor, classes: Classes) -> tuple[Scored, ...]:
    labels = classes.labels
    said = [row[0] for row in classes.top(1)]
    triples = zip(indices.tolist(), targets.tolist(), said, strict=True)
    return tuple(Scored(examples.name(i), labels[t], label, probability) for i, t, (label, probability) in triples)


def _output_path(output: str | Path | None, artifact: Artifact, data: str | Path | None, split: str) -> Path:
    if output is not None:
        return Path(output)
    name = split
    if data is not None:
        parts = Path(data).resolve().parts if Path(data).exists() else (str(data),)
        is_split_folder = parts[-1].lower() in (*SPLITS, "valid", "validation")
        name = re.sub(r"[^\w.-]+", "_", "-".join([*(parts[-2:] if is_split_folder else parts[-1:]), *([split] if split != "all" else [])]))
    return artifact.path / f"evaluation-{name}.json"


def table(evaluation: Evaluation) -> "Group":
    """The scores for a terminal: the summary, then the classes (the worst ones first where they are many)."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    m = evaluation.metrics
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column(style="bold")
    summary.add_column()
    low, high = m["accuracy_interval"]
    rows = [
        (
            "images",
            f"{m['n']} ({evaluation.data}, {evaluation.split} split)" if evaluation.split != "all" else f"{m['n']} ({evaluation.data})",
        ),
        ("accuracy", f"{_percent(m['accuracy'])}, 95 % interval {_percent(low)} to {_percent(high)}"),
        ("top 5", _percent(m["top5"])),
        ("loss", f"{m['loss']:.4f} nats"),
        ("balanced accuracy", _percent(m["balanced_accuracy"])),
        ("macro precision", _percent(m["macro_precision"])),
        ("macro F1", _percent(m["macro_f1"])),
    ]
    for name, value in rows:
        if name != "top 5" or len(m["per_class"]) > 5:
            summary.add_row(name, Text(value))
    scores = {name: s for name, s in m["per_class"].items() if s["support"]}
    many = len(scores) > MAX_CLASSES_SHOWN
    names = sorted(scores, key=lambda name: (scores[name]["f1"], name)) if many else list(scores)
    per_class = Table(box=None, header_style="bold", pad_edge=False)
    per_class.add_column("class", overflow="fold")
    for title in ("precision", "recall", "F1", "images"):
        per_class.add_column(title, justify="right")
    for name in names[:MAX_CLASSES_SHOWN]:
        s = scores[name]
        per_class.add_row(Text(name), _percent(s["precision"]), _percent(s["recall"]), _percent(s["f1"]), str(s["support"]))
    lines = [f"{len(names) - MAX_CLASSES_SHOWN} more classes with a better F1 are in {evaluation.output}"] if many else []
    lines += evaluation.notes
    if evaluation.bad:
        lines.append(f"{len(evaluation.bad)} images could not be read and are not counted; the first: {': '.join(evaluation.bad[0])}")
    remarks = [Text(line) for line in ("", *lines)] if lines else []
    return Group(summary, "", per_class, *remarks)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
