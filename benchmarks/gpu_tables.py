"""The section of RESULTS.md on GPUs, from benchmarks/results/gpu/*.json (written by gpu.py)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
HEAD = """## On a GPU

`python benchmarks/gpu.py` runs timm's module (ConvMLP: the authors' architecture in PyTorch's layers) eager and compiled, contiguous and
channels_last, under bf16 autocast, and convmix, in one process in turn, on random images that stay on the device; medians of rounds, by
events on the device. Training is forward, loss, backward and AdamW, without stochastic depth. "Error": of the logits, or of all
gradients, against float32, as a share of their norm.
"""
UNMEASURED = """**Unmeasured**: no GPU was at hand so far, and nothing here promises speed on one. The Triton kernels are tested through
Triton's interpreter alone and are off by default; docs/how_to/speed.md says how to try them and how to send back what a card says.
"""


def read_gpu(folder: Path) -> list[Record]:
    """Every record of the folder, by name, rehearsals left out."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [record for record in records if record.get("kind") == "gpu" and not record["rehearsal"]]


def section(records: Sequence[Record], table: Table) -> str:
    """A summary, and every lane of every work; that there is none where there is none."""
    measured = [(record, work) for record in records for work in record["works"] if any("median_ms" in lane for lane in work["lanes"])]
    if not measured:
        return f"{HEAD}\n{UNMEASURED}"
    parts = [HEAD, summary(records, table), ""]
    parts += [_work(record, work, table) for record, work in measured]
    return "\n".join(parts)


def summary(records: Sequence[Record], table: Table) -> str:
    """One row per work: timm's best of the four, convmix's best, the ratio."""
    header = ("model", "work", "timm's best of four", "convmix", "x timm's best", "card")
    rows = []
    for record in records:
        for made in record["works"]:
            peer, ours = best(made, "peer"), best(made, "ours")
            if peer is None or ours is None:
                continue
            work = made["work"]
            rows.append(
                (
                    f"`{work['model']}`",
                    f"{work['kind']}, {work['batch_size']} x {work['side']} px",
                    _rate(peer),
                    _rate(ours),
                    f"**{ours['images_per_s'] / peer['images_per_s']:.2f}**",
                    record["machine"]["name"],
                )
            )
    return table(header, rows) if rows else UNMEASURED.strip()


def best(made: Record, role: str) -> Record | None:
    """The fastest lane with that role."""
    lanes = [lane for lane in made["lanes"] if lane["role"] == role and "median_ms" in lane]
    return min(lanes, key=lambda lane: lane["median_ms"], default=None)


def _rate(lane: Record) -> str:
    return f"{lane['images_per_s']:,.0f} ({lane['name']})"


def _work(record: Record, made: Record, table: Table) -> str:
    work, peer = made["work"], best(made, "peer")
    header = ("lane", "images/s", "ms (quartiles)", "x timm's best", "peak MiB", "error", "started in")
    rows = []
    for lane in sorted(made["lanes"], key=lambda lane: lane.get("median_ms", float("inf"))):
        name = f"**{lane['name']}**" if lane["role"] == "ours" else lane["name"]
        if "median_ms" not in lane:
            rows.append((name, "", lane["failed"] or "not timed", "", "", "", ""))
            continue
        low, high = lane["quartiles_ms"]
        rows.append(
            (
                name,
                f"{lane['images_per_s']:,.0f}",
                f"{lane['median_ms']:.4g} ({low:.4g} to {high:.4g})",
                f"{peer['median_ms'] / lane['median_ms']:.2f}" if peer else "",
                f"{lane['memory_mib']:,.0f}" if lane["memory_mib"] is not None else "",
                f"{lane['error']:.1e}",
                f"{lane['start_s']:.0f} s",
            )
        )
    machine, rates = record["machine"], record["rates"]
    clocks = ", ".join(
        f"{when} {read['clocks.sm']}" for when, read in (("before", made.get("smi_before")), ("after", made.get("smi_after"))) if read
    )
    facts = (
        f"{machine['name']}, torch {machine['torch']}; matrix products {rates['matrix'] / 1e12:.0f} TFLOP/s, copying "
        f"{rates['memory'] / 1e12:.2f} TB/s in the same run"
        + (f"; SM clock {clocks}" if clocks else "")
        + f"; tests on the card: {record['checks']}; {record['date']}"
    )
    head = f"### {work['model']} on a GPU: {work['kind']}, batch {work['batch_size']}, {work['side']} x {work['side']}"
    return f"{head}\n\n```sh\n{record['command']}\n```\n\n{table(header, rows)}\n\n{facts}\n"
