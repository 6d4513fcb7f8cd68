"""The ablations of benchmarks/results/ablation/ as sections of RESULTS.md; `tables.py` puts them into the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parent / "results" / "ablation"
KEYS = ("name", "command", "date", "data", "seeds", "begun_with", "base", "effects", "notes", "machine", "versions")
HEAD = """## Patches or attention?

`convmix ablate` (docs/how_to/compare.md) changes one thing at a time of a ConvMixer and of its recipe. "Difference": test accuracy of the
change minus that of the base, in percentage points, paired by seed, with Student's 95 % interval over the seeds; of twenty such intervals
about one leaves zero outside by chance. "Paper": what Trockman and Kolter (arXiv 2201.09792) found for this change of ConvMixer-256/8 on
all of CIFAR-10 in a long training, at equal width, so that smaller patches and larger kernels had more multiply-adds; a question mark
where that sign is from memory. "Here": whether it holds, surely (the interval leaves zero outside) or in sign alone. A short training on
few images is another experiment than theirs.
"""
Record = Mapping[str, Any]


def read_ablations(folder: Path) -> list[Record]:
    """Every record, by name; one that lacks a key is an error naming file and key."""
    records = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if missing := [key for key in KEYS if key not in record]:
            raise SystemExit(f"{path.name} is no complete record of an ablation: it lacks {', '.join(missing)}")
        records.append(record)
    return records


def section(r: Record, table: Any) -> str:
    """Every change of one ablation."""
    base, data, machine = r["base"], r["data"], r["machine"]
    header = ("change", "difference", "95 % interval", "paper", "here", "multiply-adds", "parameters")
    rows = [
        (
            e["name"],
            f"{100 * e['difference']['value']:+.1f}" if e["difference"] else "",
            _interval(e["difference"]),
            e["paper"] + ("" if e["paper_is_sure"] else "?"),
            e["verdict"],
            f"{e['macs'] / 1e6:.2f} M" if e["macs"] else "",
            f"{e['parameters']:,}" if e["parameters"] else "",
        )
        for e in r["effects"]
    ]
    facts = [
        f"base: `{base['note']}`, {base['parameters']:,} parameters, {base['macs'] / 1e6:.2f} M multiply-adds per image, test accuracy "
        f"{100 * base['accuracy']['value']:.1f} % ({_interval(base['accuracy'], signed=False)} over {base['accuracy']['n']} seeds)",
        f"equal: {r['begun_with']['equal']}; data: {data['name']}, {data['train']:,} images to train on, {data['test']:,} to test, the "
        f"same for everyone; fingerprint `{data['fingerprint']}`",
        f"machine: {machine['name'].strip()}, {machine['cores']} cores, {machine['device']}; torch {r['versions']['torch']}, "
        f"convmix {r['versions']['convmix']}; {r['date']}",
        *r["notes"],
        *(f"{e['name']} failed: {next(iter(e['failures'].values()))}" for e in r["effects"] if e["failures"]),
    ]
    listed = "\n".join(f"- {fact}" for fact in facts)
    picture = f"![differences](benchmarks/results/ablation/{r['name']}.png)"
    return f"### {r['name']}\n\n```sh\n{r['command']}\n```\n\n{summary(r)}\n\n{listed}\n\n{table(header, rows)}\n\n{picture}\n"


def summary(r: Record) -> str:
    """How many of the paper's findings hold."""
    verdicts = [e["verdict"] for e in r["effects"] if e["verdict"]]
    count = {word: verdicts.count(word) for word in ("holds", "holds in sign", "no difference", "fails in sign", "fails")}
    return f"Of {len(verdicts)} changes with a finding of the paper: " + "; ".join(f"{word}: {n}" for word, n in count.items() if n) + "."


def _interval(mean: Record | None, *, signed: bool = True) -> str:
    if mean is None or mean["low"] is None:
        return ""
    return " to ".join(f"{100 * mean[end]:{'+' if signed else ''}.1f}" for end in ("low", "high"))


def sections(records: Sequence[Record], table: Any) -> list[str]:
    """All of them under one heading; nothing where there are none."""
    return [HEAD, *(section(r, table) for r in records)] if records else []
