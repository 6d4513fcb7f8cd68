"""The section of RESULTS.md on the server, from benchmarks/results/serving/*.json (written by serving.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
RESULTS = Path(__file__).parent / "results" / "serving"
HEAD = """## Serving

Measured by `python benchmarks/serving.py`: {clients} clients at once, one image per request, every label checked; the server that batches
and the one that computes one image at a time take turns of {round_s:g} s. Medians over the rounds, in brackets the lowest and the highest.
The clients run on the same machine.
"""


def read_serving(folder: Path = RESULTS) -> list[Record]:
    """Every record of the folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def section(records: Sequence[Record], table: Table) -> str:
    """Throughput of every model; latency and memory where they were measured."""
    header = ("model", "input", "requests/s, batched", "requests/s, one at a time", "gain", "failed")
    rows = [
        (
            r["model"], f"{r['size_px']} px", _range(r["requests_per_s"]["batched"], 0), _range(r["requests_per_s"]["one at a time"], 0),
            _range(r["speedup"], 2), r["failed"],
        )
        for r in records
    ]  # fmt: skip
    long = [r for r in records if "minute" in r]
    more = ("model", "requests in a minute", "failed", "p50", "p99", "memory before and after 10,000 requests")
    lines = [
        (
            r["model"], f"{r['minute']['requests']:,}", r["minute"]["failed"], f"{r['minute']['p50_ms']:.0f} ms",
            f"{r['minute']['p99_ms']:.0f} ms", f"{r['memory']['before_mib']:.0f} and {r['memory']['after_mib']:.0f} MiB",
        )
        for r in long
    ]  # fmt: skip
    head = HEAD.format(clients=records[0]["clients"], round_s=records[0]["round_s"])
    machines = sorted({f"{r['machine']['name']}, {r['machine']['cores']} cores" for r in records})
    return f"{head}\n{table(header, rows)}\n\n{table(more, lines)}\n\nMachine: {'; '.join(machines)}.\n"


def tables(table: Table, folder: Path = RESULTS) -> str:
    """The whole section; '' where nothing was measured."""
    records = read_serving(folder)
    return section(records, table) if records else ""


def _range(value: Record, digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['lowest']:.{digits}f} to {value['highest']:.{digits}f})"
