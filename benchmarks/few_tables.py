"""The section of RESULTS.md on few images, from benchmarks/results/few/*.json (written by few.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WAYS = {"head": "classifier on frozen features", "tuned": "fine-tuned after it", "scratch": "from scratch"}
HEAD = """## Few images

```sh
python benchmarks/few.py
```

Test accuracy in percent on {test} images by training images of each class: the mean over draws of the training images with Student's
95 % interval (one draw has none), and in brackets the number of draws and the median time of the whole run. Ten validation images of each
class come on top. The weights are EfficientNet-Lite0's (ImageNet, from a package); imagenette160 is a part of ImageNet, whose photos are
not new to them. Fine-tuning takes five epochs and is kept where validation says so. From scratch is the default model of `convmix train`.
Machine: {name}, {cores} cores, {threads} thread(s), shared with other work, so that the times are upper bounds.
"""

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def read_few(folder: Path) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def section(records: Sequence[Record], table: Table) -> str:
    """Markdown; empty without records."""
    if not records:
        return ""
    numbers = sorted({r["per_class"] for r in records})
    by = {(r["data"], r["way"], r["per_class"]): r for r in records}
    rows = [
        (data, title, *(_cell(by.get((data, way, n))) for n in numbers))
        for data in sorted({r["data"] for r in records})
        for way, title in WAYS.items()
        if any((data, way, n) in by for n in numbers)
    ]
    some = records[0]
    test = " or ".join(sorted({f"{draw['n']:,}" for r in records for draw in r["draws"].values()}))
    head = HEAD.format(test=test, **{key: some["machine"][key] for key in ("name", "cores", "threads")})
    return f"{head}\n{table(('data', 'way', *(f'{n} of each class' for n in numbers)), rows)}\n"


UNLIKE = """### Unlike the training images

```sh
python benchmarks/unlike.py
```

The classifier on frozen features of {classes} of the ten classes, {per_class} photos each, beside {n} test images of its own classes, of
which {false_alarms:.1f} % are called "unlike the training images". AUROC of the distance to the training images, and for comparison of
one minus the best probability.
"""


def unlike_section(records: Sequence[Record], table: Table) -> str:
    """Markdown; empty without records."""
    parts = []
    for r in records:
        own = r["own"]
        head = UNLIKE.format(
            classes=r["classes"], per_class=r["per_class"], n=own["n"], false_alarms=100 * own["false_alarms"]
        )  # fmt: skip
        rows = [
            (kind, f"{x['n']:,}", f"{x['auroc']:.3f}", f"{x['auroc_probability']:.3f}", f"{100 * x['told']:.1f} %")
            for kind, x in r["others"].items()
        ]
        parts.append(f"{head}\n{table(('shown', 'images', 'AUROC', 'AUROC of the probability', 'called unlike'), rows)}\n")
    return "\n".join(parts)


def _cell(record: Record | None) -> str:
    from convmix.comparison.interval import mean_of

    if record is None or not record["draws"]:
        return "not measured"
    draws = list(record["draws"].values())
    mean = mean_of([draw["accuracy"] for draw in draws]).within(0, 1)
    times = sorted(draw["elapsed_s"] for draw in draws)
    interval = "" if mean.low is None or mean.high is None else f", {100 * mean.low:.1f} to {100 * mean.high:.1f}"
    return f"{100 * mean.value:.1f}{interval} ({mean.n} x {times[len(times) // 2]:.0f} s)"
