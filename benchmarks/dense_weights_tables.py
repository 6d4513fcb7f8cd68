"""The section of RESULTS.md on dense tasks from weights, from benchmarks/results/dense_weights/*.json (written by dense_weights.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
HEAD = """### From weights and from scratch, minute by minute

```sh
python benchmarks/dense_weights.py
```

One network, `{model}` as the backbone, once from ImageNet weights with their preprocessing, once from scratch: the best validation score
in percent of the epochs that had ended by each minute of the command (-: none had), and the test scores at the end with 95 % intervals,
bootstrapped over images. One training each. Machine: {name}, {cores} cores.
"""
_WAYS = {"weights": "from weights", "scratch": "from scratch"}
_TITLES = {"ap": "AP", "ap50": "AP50", "miou": "mean IoU", "pixel_accuracy": "pixel accuracy"}


def read_dense_weights(folder: Path) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def at_minutes(r: Record) -> list[float | None]:
    """The best validation score of what had ended by minute 1, 2, ...; None before the first."""
    marks = range(1, round(r["budget_s"] / 60) + 1)
    return [max((p["value"] for p in r["points"] if p["elapsed_s"] <= 60 * mark), default=None) for mark in marks]


def section(records: Sequence[Record], table: Table) -> str:
    """Markdown; empty without records."""
    if not records:
        return ""
    most = max(len(at_minutes(r)) for r in records)
    rows = []
    for data in sorted({r["data"] for r in records}):
        for way, title in _WAYS.items():
            rows += [(data, title, *_cells(r, most), _test(r)) for r in records if (r["data"], r["way"]) == (data, way)]
    some = records[0]
    head = HEAD.format(model=some["model"], **{key: some["machine"][key] for key in ("name", "cores")})
    header = ("data", "start", *(f"{m} min" for m in range(1, most + 1)), "test scores (95 % interval)")
    return f"{head}\n{table(header, rows)}\n"


def _cells(r: Record, most: int) -> list[str]:
    values = at_minutes(r)
    return ["-" if value is None else f"{100 * value:.1f}" for value in [*values, *[None] * (most - len(values))]]


def _test(r: Record) -> str:
    names = [name for name in _TITLES if name in r["test"]]
    intervals = {name: r["test"][f"{name}_interval"] for name in names}
    return "; ".join(
        f"{_TITLES[n]} {100 * r['test'][n]:.1f} % ({100 * low:.1f} to {100 * high:.1f})" for n, (low, high) in intervals.items()
    )
