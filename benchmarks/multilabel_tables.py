"""The section of RESULTS.md on several labels per image, from benchmarks/results/multilabel/*.json (written by multilabel.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
HEAD = """## Several labels per image

`python benchmarks/multilabel.py`: CIFAR-10 tiled two by two, each tile a class, so that the true labels are known; how-to page:
docs/how_to/multilabel.md. Scores are of the test pictures, at the end of the run; intervals are bootstrapped over them. "By chance": the
mean AP of answers that know nothing.
"""
_SCORES = {"mean AP": "map", "micro F1": "micro_f1", "macro F1": "macro_f1", "all labels right": "subset_accuracy"}


def read(folder: Path) -> list[Record]:
    """Every record of the folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def section(records: Sequence[Record], table: Table) -> str:
    """One table, and the command behind every row; nothing without a record."""
    if not records:
        return ""
    header = ("data", "model", "parameters", "trained for", *_SCORES, "by chance", "test pictures")
    rows = [
        (
            r["data"]["name"], f"`{r['model']}`", f"{r['parameters'] / 1e6:.2f} M",
            f"{r['train_elapsed_s'] / 60:.0f} min, {r['epochs_done']:.1f} epochs", *(_share(r["test"], name) for name in _SCORES.values()),
            f"{100 * r['map_by_chance']:.1f} %", f"{r['test']['n']:,}",
        )
        for r in records
    ]  # fmt: skip
    commands = "\n".join(r["command"] for r in records)
    machines = sorted({f"{r['machine']['name']}, {r['machine']['cores']} cores, {r['machine']['precision']}" for r in records})
    return f"{HEAD}\n{table(header, rows)}\n\nMachine: {'; '.join(machines)}.\n\n```sh\n{commands}\n```\n"


def _share(test: Record, name: str) -> str:
    low, high = test[f"{name}_interval"]
    return f"{100 * test[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
