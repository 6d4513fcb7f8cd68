"""The section of RESULTS.md on convmix under fire, from benchmarks/results/campaign/summary.json (written by `make campaign`)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Summary = Mapping[str, Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
PARTS = {
    "annotations": "data sets with damaged annotation files: inspected, scanned, trained on",
    "documents": "run directories with damaged files: predicted with, evaluated, resumed",
    "faults": "a full or failing disk, no memory, a kill, a stop, a signal or another time at one call of a verb",
    "images": "damaged and hostile image files among good ones: predicted, served, examined, trained on",
    "kills": "kills of trainings, at random moments and at writes; then the same bits as without",
    "server": "proper requests to a server under fire",
    "wheel": "the wheel in a bare environment made from the lock file: its demo trains and predicts",
}
HEAD = """## Under fire

`make campaign` damages, kills and starves convmix, and goes on where it was stopped. A case is good where the right answer, one sentence
that says what is wrong, or, after a kill or a signal, the same result at the second attempt comes out. What was not carried out yet is
"of" a larger number. Memory is what a process took beyond a clean one.
"""


def rows(summary: Summary, table: Table) -> str:
    """The table."""
    lines = []
    for p in summary["parts"]:
        cases = f"{p['cases']:,}" + (f" of {p['planned']:,}" if p["planned"] and p["planned"] > p["cases"] else "")
        good = ", ".join(f"{n:,} {what}" for what, n in p["good"].items()) or "none"
        faults = ", ".join(f"{n} {what}" for what, n in p["faults"].items()) or "none"
        lines.append((f"{p['part']}: {PARTS[p['part']]}", cases, good, faults, f"{p['slowest_s']:.0f} s", f"{p['memory_mib']:,} MiB"))
    return table(("what", "cases", "good", "faults", "slowest", "memory"), lines)


def section(file: Path, table: Table) -> str:
    """The whole section; '' where no campaign was recorded."""
    if not file.exists():
        return ""
    summary = json.loads(file.read_text())
    machine, versions = summary["machine"], summary["versions"]
    said = "".join(f"\n{p['part'].capitalize()}: {line}.\n" for p in summary["parts"] for line in p["said"])
    software = f"torch {versions['torch']}, convmix {versions['convmix']}"
    about = f"Machine: {machine['name']}, {machine['cores']} cores; {software}; {summary['date']}."
    return f"{HEAD}\n{rows(summary, table)}\n{said}\n{about}\n"
