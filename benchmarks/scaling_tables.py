"""The section of RESULTS.md on batch prediction, from benchmarks/results/scaling/*.json (written by scaling.py)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
FOLDER = Path(__file__).resolve().parent / "results/scaling"


def tables(folder: Path = FOLDER) -> str:
    """Markdown; empty without records."""
    records: dict[str, Record] = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not records:
        return ""
    parts = ["## Batch prediction", "", "`convmix batch-predict` on a local Ray (docs/how_to/batch_predict.md), one core per worker."]
    if "throughput" in records:
        parts += ["", _throughput(records["throughput"])]
    if "memory" in records:
        parts += ["", _memory(records["memory"])]
    commands = "\n".join(r["command"] for r in records.values())
    machines = "; ".join(sorted({f"{r['machine']['name']}, {r['machine']['cores']} cores" for r in records.values()}))
    return "\n".join([*parts, "", f"Machine: {machines}.", "", f"```sh\n{commands}\n```", ""])


def _throughput(record: Record) -> str:
    rows = []
    for workers in record["images_per_s"]:
        cells: list[str] = [workers]
        for rate in (record["images_per_s"], record["steady_per_s"]):
            speed = rate[workers]
            cells.append(f"{speed['median']:.1f} ({speed['min']:.1f} to {speed['max']:.1f})")
            cells.append(f"{speed['median'] / rate['1']['median']:.2f}")
        rows.append(cells)
    table = _table(("workers", "images per second", "times one worker", "while all are at work", "times one worker"), rows)
    repeats = len(record["runs"]) // len(record["images_per_s"])
    about = (
        f"{record['images']:,} pictures of {record['image']} in a parquet file, `{record['model']}` at {record['input']} px in "
        f"{record['precision']}; medians and range of {repeats} jobs each, in turn, from the first "
        "image to the last partition, and the sum of the workers' own rates."
    )
    return f"{about}\n\n{table}"


def _memory(record: Record) -> str:
    parts = ("driver", "workers", "ray", "all")
    rows = [(f"{r['rows']:,}", r["parts"], *(f"{r['peak_bytes'].get(p, 0) / 2**20:,.0f} MiB" for p in parts)) for r in record["runs"]]
    header = ("rows", "partitions", "driver", f"{record['workers']} workers", "Ray", "all")
    about = (
        f"Peak memory (proportional set size, the object store included) with {record['workers']} workers on {record['image']} pictures in "
        f"a parquet file, with a tiny network (`{record['model']}`), so that everything but the network shows."
    )
    return f"{about}\n\n{_table(header, rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
