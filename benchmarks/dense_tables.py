"""The section of RESULTS.md on detection and segmentation, from benchmarks/results/dense/*.json (written by dense.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
HEAD = """## Detection and segmentation

Trained from scratch by `python benchmarks/dense.py` on small public sets; how-to pages: docs/how_to/detect.md, instances.md, segment.md.
Scores are of the test split (nuclei: of one made here), at the end of each run. Validation chose the epoch, but sizes and widths were
found on trial runs whose test scores were seen (LOG.md). Intervals are bootstrapped over the test images.
"Position prior" says at every position what is there most often in the training images.
"""
_SCORES = {
    "detect": (("AP", "ap"), ("AP50", "ap50")),
    "instances": (("mask AP", "mask_ap"), ("mask AP50", "mask_ap50"), ("box AP50", "ap50")),
    "segment": (("mean IoU", "miou"), ("pixel accuracy", "pixel_accuracy")),
}


def read_dense(folder: Path) -> list[Record]:
    """Every record of the folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def headline(records: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    """The detector of the best AP as a row of README's table: what, model, cost, result; no row where there is none."""
    detectors = [r for r in records if r["task"] == "detect"]
    if not detectors:
        return []
    best = max(detectors, key=lambda r: r["test"]["ap"])
    what = f"objects in {best['data']['name']}, {best['test']['n']:,} test images"
    return [(what, _model(best), f"{best['parameters'] / 1e6:.2f} M parameters, {_trained_for(best)}", _scores(best))]


def _trained_for(r: Record) -> str:
    return f"{r['train_elapsed_s'] / 60:.0f} min, {r['epochs_done']:.0f} epochs"


def section(records: Sequence[Record], table: Table) -> str:
    """One table, and the command behind every row."""
    header = ("data", "task", "model", "parameters", "multiply-adds", "trained for", "test images", "test scores (95 % interval)")
    rows = [
        (
            r["data"]["name"], r["task"], _model(r), f"{r['parameters'] / 1e6:.2f} M", f"{r['macs'] / 1e9:.2f} G",
            _trained_for(r), r["test"]["n"], _scores(r),
        )
        for r in records
    ]  # fmt: skip
    machines = sorted({_machine(r["machine"]) for r in records})
    commands = "\n".join(r["command"] for r in records)
    return f"{HEAD}\n{table(header, rows)}\n\nMachine: {'; '.join(machines)}.\n\n```sh\n{commands}\n```\n"


def _machine(machine: Record) -> str:
    cores = machine["cores"]
    return f"{machine['name']}, {cores} core{'s' if cores != 1 else ''}, {machine['precision']}"


def _model(r: Record) -> str:
    """With the settings of the network that were not the recipe's."""
    others = [f"{name} {value}" for name, value in r["settings"].items() if name not in ("model", "budget")]
    return ", ".join([f"`{r['model']}`", *others])


def _scores(r: Record) -> str:
    test = r["test"]
    words = [f"{title} {_share(test, name)}" for title, name in _SCORES[r["task"]]]
    if prior := r.get("position_prior"):
        words.append(f"position prior: mean IoU {_share(prior, 'miou')}, so {test['miou'] / prior['miou']:.2f} times")
    return "; ".join(words)


def _share(scores: Record, name: str) -> str:
    if scores.get(name) is None:
        return "-"
    low, high = scores[f"{name}_interval"]
    return f"{100 * scores[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
