"""A race as a record: JSON values with machine and versions, the ratios in them, a table for a terminal and a picture.

    {"kind": "speed", "work": {...}, "lanes": [{"name", "role", "ms", "median_ms", "images_per_s", ...}], "best_peer": "...", ...}

Ratios are taken round by round, between turns that follow each other, and given as median and quartiles. The record keeps all of them;
table and summary leave out those that another program spoiled (`disturbance`).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from convmix.benchmarking.disturbance import MAX_SPREAD, complaints, is_steady
from convmix.benchmarking.roofline import Rates, operations
from convmix.benchmarking.rounds import Lane, Result
from convmix.hardware import describe_machine
from convmix.system.instructions import instruction_sets, processor_model

if TYPE_CHECKING:
    from rich.console import Group

PACKAGES = ("convmix", "torch", "timm", "openvino", "nncf", "onnxruntime")
Record = Mapping[str, Any]


def record(result: Result, *, rates: Rates, macs: int, command: str) -> dict[str, Any]:
    """JSON values of a race; `macs` are the model's for one image."""
    work = result.work
    count = operations(macs, work.batch_size, work.kind)
    official = _of_role(result, "official")
    ours = fastest(result, "ours")
    peer = fastest(result, "peer")
    lanes = [_lane(lane, official, ours, count, rates, work.batch_size) for lane in result.lanes]
    return {
        "kind": "speed",
        "command": command,
        "date": date.today().isoformat(),
        "work": asdict(work),
        "gmacs_per_image": macs / 1e9,
        "lanes": lanes,
        "ours": ours and ours.contender.name,
        "best_peer": peer and peer.contender.name,
        "ours_to_official": _ratio(official, ours),
        "ours_to_best_peer": _ratio(peer, ours),
        "load": result.load and asdict(result.load),
        "disturbed": complaints(result.load),
        "machine": machine(torch.device(work.device)) | {"threads": work.threads},
        "rates": asdict(rates),
        "versions": {name: found for name in PACKAGES if (found := version_of(name))},
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What a record says about where it was measured; on a card the processor as well."""
    return describe_machine(device) | {"processor": processor_model(), "instruction_sets": instruction_sets()}


def fastest(result: Result, role: str) -> Lane | None:
    """Of those with that role that were measured."""
    measured = [lane for lane in result.lanes if lane.contender.role == role and lane.ms]
    return min(measured, key=lambda lane: statistics.median(lane.ms), default=None)


def _of_role(result: Result, role: str) -> Lane | None:
    return next((lane for lane in result.lanes if lane.contender.role == role and lane.ms), None)


def _lane(lane: Lane, official: Lane | None, ours: Lane | None, count: int, rates: Rates, batch_size: int) -> dict[str, Any]:
    said = {"name": lane.contender.name, "role": lane.contender.role, "plan": lane.plan, "failed": lane.failed}
    if not lane.ms:
        return said
    median_ms = statistics.median(lane.ms)
    is_bf16 = any(word in lane.plan for word in ("bf16", "autocast", "int8"))
    return said | {
        "start_s": lane.start_s,
        "ms": list(lane.ms),
        "median_ms": median_ms,
        "quartiles_ms": _quartiles(lane.ms),
        "images_per_s": 1000 * batch_size / median_ms,
        "to_official": _ratio(official, lane),
        "ours_is_faster": _ratio(lane, ours),
        "memory_mib": lane.memory_mib,
        "difference": lane.difference,
        "share_of_matmul_rate": count / (median_ms / 1000) / (rates.matmul_bf16 if is_bf16 else rates.matmul_fp32),
    }


def _ratio(slow: Lane | None, fast: Lane | None) -> dict[str, float] | None:
    """How many times faster `fast` is: median and quartiles over the rounds."""
    if slow is None or fast is None or not slow.ms or not fast.ms:
        return None
    ratios = [a / b for a, b in zip(slow.ms, fast.ms, strict=False)]
    low, high = _quartiles(ratios)
    return {"median": statistics.median(ratios), "low": low, "high": high}


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def title(record: Record, *, over: str = "") -> str:
    """What was measured, on what; `over` is what grows in a sweep, whose value at one point is left out."""
    work = record["work"]
    threads = work["threads"]
    parts = {
        "model": f"ConvMixer with growing {over}" if over in ("depth", "kernel") else work["model"],
        "kind": work["kind"],
        "batch": f"batch {work['batch_size']}",
        "resolution": f"{work['height']}x{work['width']}",
        "machine": record["machine"]["name"].strip(),
        "threads": f"{threads} thread{'' if threads == 1 else 's'}",
    }
    return ", ".join(text for name, text in parts.items() if name != over)


def processor_line(record: Record) -> str:
    """Which processor it was, and which of the instruction sets it has that engines choose their code by."""
    machine = record["machine"]
    sets = machine.get("instruction_sets")
    said = "its instruction sets are not known on this system" if sets is None else ", ".join(sets) or "none of the faster instruction sets"
    return f"Processor: {machine.get('processor', machine['name'])}, {machine['cores']} usable; {said}."


def table(record: Record) -> "Group":
    """For a terminal of 80 columns: how fast, the fastest first; then what it costs and how it was computed, then who failed and why."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ratios = not record.get("disturbed")
    speed = Table(title=title(record), title_justify="left", box=None, header_style="bold", pad_edge=False)
    costs = Table(box=None, header_style="bold", pad_edge=False)
    for shown, headings in (
        (speed, ("images/s", "ms", "+-", *(("x\nofficial", "convmix\nx") if ratios else ()))),
        (costs, ("MiB", "of peak", "error", "start s")),
    ):
        shown.add_column("", overflow="fold")
        for heading in headings:
            shown.add_column(heading, justify="right", no_wrap=True)
    ended: list[Text] = []
    for lane in sorted(record["lanes"], key=lambda lane: lane.get("median_ms", float("inf"))):
        if lane["failed"]:
            ended.append(Text(f"{lane['name']}: {lane['failed']}"))
            continue
        low, high = lane["quartiles_ms"]
        name = Text(lane["name"], style="bold" if lane["role"] == "ours" else "")
        times = [_times(lane["to_official"]), _times(lane["ours_is_faster"])] if ratios else []
        speed.add_row(name, f"{lane['images_per_s']:.1f}", _ms(lane["median_ms"]), _ms((high - low) / 2), *times)
        costs.add_row(
            name,
            f"{lane['memory_mib']:.0f}" if lane["memory_mib"] is not None else "",
            f"{lane['share_of_matmul_rate']:.0%}",
            f"{lane['difference']:.0e}" if lane["difference"] is not None else "",
            f"{lane['start_s']:.0f}" if lane["start_s"] is not None else "",
        )
    plans = [Text(f"{lane['name']}: computed by {lane['plan']}") for lane in record["lanes"] if lane["role"] == "ours" and lane["plan"]]
    return Group(speed, "", costs, *plans, *ended)


def summary(record: Record) -> str:
    """The two ratios in a sentence, or why there are none, and the rates that the shares are of."""
    rates = record["rates"]
    machine = (
        f"This machine multiplies matrices at {rates['matmul_fp32'] / 1e9:.0f} (float32) and {rates['matmul_bf16'] / 1e9:.0f} (bf16) "
        f"GFLOP/s and copies {rates['copy'] / 1e9:.0f} GB/s."
    )
    if record.get("disturbed"):
        return f"{disturbed(record)} {machine}"
    sides = (("ours_to_best_peer", f"the best peer ({record['best_peer']})"), ("ours_to_official", "the official path"))
    said = [_compared(record[ratio], beside) for ratio, beside in sides if record[ratio]]
    return " ".join([*said, machine])


def disturbed(record: Record) -> str:
    """Why no ratios are given, and what to do; an empty string where nothing is known against the race."""
    if not record.get("disturbed"):
        return ""
    return (
        f"Another program disturbed this race: {'; '.join(record['disturbed'])}. No ratio is given, and the times are of a busy machine. "
        "End the other programs, or choose fewer --threads, and measure again."
    )


def _compared(ratio: Mapping[str, float], beside: str) -> str:
    if is_steady(ratio):
        return f"convmix is {_range(ratio)} times as fast as {beside}."
    return (
        f"No ratio to {beside} is given: its quartiles over the rounds, {ratio['low']:.2f} and {ratio['high']:.2f}, are more than a "
        f"factor of {MAX_SPREAD} apart, as where another program disturbs the race. Measure again on a quiet machine or with more --rounds."
    )


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _times(ratio: Mapping[str, float] | None) -> str:
    return "" if not ratio else f"{ratio['median']:.2f}" if is_steady(ratio) else "varies"


def _range(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
