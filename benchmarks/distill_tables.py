"""The section of RESULTS.md on distillation, from benchmarks/results/distill/*.json (written by distill.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
HEAD = """## A teacher

```sh
python benchmarks/distill.py --budget {budget}
```

`{student}` on {data}, {budget} per training whether or not it listens to a teacher: accuracy in percent on {n} test images, the mean over
seeds with Student's 95 % interval; the difference is paired by seed. The teacher, `{teacher}` from ImageNet weights with a classifier on
frozen features, has {teacher_accuracy} % itself and took {teacher_s:.0f} s, once. The photos are a part of ImageNet and not new to it.
Machine: {name}, {cores} cores.
"""
_WAYS = {"without": "labels alone", "with": "labels and the teacher's answers"}


def read_distill(folder: Path) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def section(records: Sequence[Record], table: Table) -> str:
    """Markdown; empty without records of both ways."""
    return "\n".join(_part(r, table) for r in records if all(r["seeds"][way] for way in _WAYS))


def _part(r: Record, table: Table) -> str:
    from convmix.comparison.interval import mean_difference, mean_of

    values = {way: {int(seed): x["accuracy"] for seed, x in r["seeds"][way].items()} for way in _WAYS}
    rows = []
    for way, title in _WAYS.items():
        epochs = sorted(x["epochs_done"] for x in r["seeds"][way].values())
        mean = mean_of(list(values[way].values())).within(0, 1)
        rows.append((title, mean.n, f"{epochs[len(epochs) // 2]:.1f}", _said(mean)))
    difference = mean_difference(values["with"], values["without"])
    rows.append(("difference", difference.n if difference else 0, "", _said(difference) if difference else "not measured"))
    some = next(iter(r["seeds"]["with"].values()))
    head = HEAD.format(
        budget=r["budget"], student=r["student"], data=r["data"], n=f"{some['n']:,}", teacher=r["teacher"]["model"],
        teacher_accuracy=f"{100 * r['teacher']['accuracy']:.1f}", teacher_s=r["teacher"]["elapsed_s"],
        name=r["machine"]["name"], cores=r["machine"]["cores"],
    )  # fmt: skip
    return f"{head}\n{table(('learned from', 'seeds', 'epochs (median)', 'test accuracy'), rows)}\n"


def _said(mean: Any) -> str:
    interval = "" if mean.low is None or mean.high is None else f" ({100 * mean.low:.1f} to {100 * mean.high:.1f})"
    return f"{100 * mean.value:.1f}{interval}"
