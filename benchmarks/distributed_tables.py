"""The section of RESULTS.md on training with two processes, from benchmarks/results/distributed/*.json (written by distributed.py)."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results/distributed"
NETWORKS = {"loopback": "loopback", "cable": "two namespaces", "gigabit": "two namespaces, 1 Gbit/s"}
HEAD = """## Training with two processes

Measured by `python benchmarks/distributed.py`: training steps in fp32, one thread per process, both processes on one machine with {cores}
cores ({name}); medians of {rounds} interleaved rounds and their range. "Without talking" is both at once, each for
itself: what is lost there goes to shared caches and memory, and two machines would not lose it. Efficiency is per process: weak, a batch
each, against one process alone and (in brackets) against two that do not talk; strong, half a batch each, against one alone.
"""
COLUMNS = "| model | network | alone, images/s | without talking | weak | strong | efficiency weak | efficiency strong |"


def read_distributed(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The records, by network, from the fastest to the slowest."""
    return {name: json.loads(file.read_text()) for name in NETWORKS if (file := folder / f"{name}.json").is_file()}


def tables(folder: Path = FOLDER) -> str:
    """Markdown; empty without records."""
    records = read_distributed(folder)
    if not records:
        return ""
    some = next(iter(records.values()))
    lines = [HEAD.format(**some["machine"], rounds=some["rounds"]), COLUMNS, "|" + " --- |" * (COLUMNS.count("|") - 1)]
    for i in range(len(some["workloads"])):
        lines += [_row(record["workloads"][i], NETWORKS[network]) for network, record in records.items()]
    return "\n".join(lines) + "\n"


def _row(w: dict[str, Any], network: str) -> str:
    rate, every = w["images_per_s"], w["all_images_per_s"]
    cells = [f"{rate[way]:.1f} ({min(every[way]):.1f} to {max(every[way]):.1f})" for way in ("alone", "apart", "weak", "strong")]
    weak = f"{rate['weak'] / rate['alone'] / 2:.0%} ({rate['weak'] / rate['apart']:.0%})"
    strong = f"{rate['strong'] / rate['alone'] / 2:.0%}"
    model = f"{w['model']}, {w['parameters'] / 1e6:.1f} M, {w['side']} px, batch {w['batch']}"
    return "| " + " | ".join([model, network, *cells, weak, strong]) + " |"
