"""The races of benchmarks/results/speed/ as tables; `tables.py` puts them into the pages."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
KEYS = ("command", "date", "work", "lanes", "ours", "best_peer", "ours_to_official", "ours_to_best_peer", "machine", "rates", "versions")
KIND_ORDER = ("training", "inference")


def read_races(folder: Path) -> tuple[list[Record], list[Record]]:
    """The single races and the sweeps; a record that lacks a key is an error naming file and key."""
    races, sweeps = [], []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        parts = record["records"] if record.get("kind") == "sweep" else [record]
        for part in parts:
            if missing := [key for key in KEYS if key not in part]:
                raise SystemExit(f"{path.name} is no complete record of a race: it lacks {', '.join(missing)}")
        (sweeps if record.get("kind") == "sweep" else races).append({**record, "file": path.stem})
    order = {model: i for i, model in enumerate(dict.fromkeys(r["work"]["model"] for r in sorted(races, key=_model_order)))}
    return sorted(races, key=lambda r: (r["work"]["device"], KIND_ORDER.index(r["work"]["kind"]), order[r["work"]["model"]])), sweeps


def _model_order(record: Record) -> tuple[str, float]:
    return record["work"]["model"].split("_")[0], record.get("gmacs_per_image", 0.0)


def summary(races: Sequence[Record], table: Any) -> str:
    """One row per race: rates of the official path, the best peer and convmix, and the two ratios."""
    header = ("model", "work", "official path", "best peer", "convmix", "x official", "x best peer")
    rows = []
    for r in races:
        work, lanes = r["work"], {lane["name"]: lane for lane in r["lanes"] if not lane["failed"]}
        official = next((lane for lane in lanes.values() if lane["role"] == "official"), None)
        peer, ours = lanes.get(r["best_peer"]), lanes.get(r["ours"])
        rows.append(
            (
                f"`{work['model']}`",
                f"{work['kind']}, {work['precision']}, {work['batch_size']} x {work['height']} px, {work['device']}",
                rate(official),
                f"{rate(peer)} ({peer['name']})" if peer else "",
                f"{rate(ours)} ({ours['plan']})" if ours else "",
                times(r["ours_to_official"]),
                f"**{times(r['ours_to_best_peer'])}**",
            )
        )
    return table(header, rows)


def headline(races: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    """The largest network's inference as a row of README's table: what, model, cost, result; no row where there is none."""
    inference = [r for r in races if r["work"]["kind"] == "inference" and r["ours"] and r["best_peer"]]
    if not inference:
        return []
    r = max(inference, key=lambda r: r.get("gmacs_per_image", 0.0))
    work, [ours] = r["work"], [lane for lane in r["lanes"] if lane["name"] == r["ours"]]
    what = f"inference, {work['precision']}, {work['batch_size']} x {work['height']} px, {work['device']}"
    result = (
        f"{times(r['ours_to_official'])} times the official path, {times(r['ours_to_best_peer'])} times the best peer ({r['best_peer']})"
    )
    return [(what, f"`{work['model']}`", f"{rate(ours)} images/s", result)]


def section(r: Record, table: Any) -> str:
    """Every contender of one race."""
    work, machine, rates = r["work"], r["machine"], r["rates"]
    header = ("contender", "images/s", "ms (quartiles)", "x official", "convmix is x", "peak MiB", "of matmul rate", "error")
    rows = []
    for lane in sorted(r["lanes"], key=lambda lane: lane.get("median_ms", float("inf"))):
        name = f"**{lane['name']}** ({lane['plan']})" if lane["role"] == "ours" else lane["name"]
        if lane["failed"]:
            rows.append((name, "", lane["failed"], "", "", "", "", ""))
            continue
        low, high = lane["quartiles_ms"]
        rows.append(
            (
                name,
                rate(lane),
                f"{lane['median_ms']:.4g} ({low:.4g} to {high:.4g})",
                f"{lane['to_official']['median']:.2f}" if lane["to_official"] else "",
                f"{lane['ours_is_faster']['median']:.2f}" if lane["ours_is_faster"] else "",
                f"{lane['memory_mib']:.0f}",
                f"{100 * lane['share_of_matmul_rate']:.0f} %",
                f"{lane['difference']:.1e}",
            )
        )
    engines = ", ".join(f"{name} {found}" for name, found in r["versions"].items())
    facts = (
        f"{machine['name'].strip()}, {work['threads']} threads, {work['device']}; matrix products {rates['matmul_fp32'] / 1e9:.0f} "
        f"(float32) and {rates['matmul_bf16'] / 1e9:.0f} (bf16) GFLOP/s, copying {rates['copy'] / 1e9:.0f} GB/s; "
        f"{r['gmacs_per_image']:.3g} G multiply-adds per image; {engines}; {r['date']}"
    )
    head = f"### {work['model']}: {work['kind']}, {work['precision']}, batch {work['batch_size']}, {work['height']} x {work['width']}"
    return f"{head}\n\n```sh\n{command(r)}\n```\n\n{table(header, rows)}\n\n{facts}\n"


def sweep_section(s: Record, table: Any) -> str:
    """Images per second and MiB of every contender where something grows."""
    first = s["records"][0]
    names = [lane["name"] for lane in first["lanes"]]
    rows = []
    for record in s["records"]:
        lanes = {lane["name"]: lane for lane in record["lanes"]}
        cells = [f"{rate(lanes[name])} / {lanes[name]['memory_mib']:.0f}" if not lanes[name]["failed"] else "" for name in names]
        rows.append((record["point"], *cells))
    work = first["work"]
    head = f"### {work['model'] if s['over'] in ('batch', 'resolution') else 'ConvMixer'}: {work['kind']} with growing {s['over']}"
    picture = f"![{s['over']}](benchmarks/results/speed/{s['file']}.png)"
    return f"{head}\n\nImages per second / peak MiB.\n\n{table((s['over'], *names), rows)}\n\n{picture}\n\n```sh\n{command(first)}\n```\n"


def command(r: Record) -> str:
    """Without where the record was written to."""
    return r["command"].split(" --output")[0]


def rate(lane: Record | None) -> str:
    if lane is None:
        return ""
    value = lane["images_per_s"]
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: Mapping[str, float] | None) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
