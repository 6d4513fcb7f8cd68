"""Convmix under fire: `python -m tests.campaign RECORD.jsonl`, which goes on where it stopped and prints the table of its record.

Not a part of the suite. Cases of one part share a process until one ends it; each has 60 seconds (trainings more), and is known by part and
number: the same seed damages the same bytes. `--only images --number 17` carries out one.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from tests.campaign.cases import Cases
from tests.campaign.record import GOOD, Record
from tests.conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import campaign_tables
import tables

PARTS = {
    "images": 100,
    "annotations": 500,
    "documents": 500,
    "kills": 30,
    "faults": 100_000,
    "server": 1,
    "wheel": 1,
}  # cases; one of images has twenty files, one of kills several


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--number", type=int, help="this case alone")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases, for a small dose")
    parser.add_argument("--minutes", type=float, default=10, help="that the server is under fire")
    parser.add_argument("--summary", type=Path, help="a JSON file for benchmarks/tables.py to be written at the end")
    given = parser.parse_args()
    os.environ["CONVMIX_CAMPAIGN_MINUTES"] = str(given.minutes)
    record = Record(given.record, seed=given.seed)
    place = given.record.with_suffix(".work").resolve()  # what cases share is prepared once; to be removed when the code has changed
    planned: dict[str, int] = {}
    for part in [given.only] if given.only else PARTS:
        with Cases(part, place / part, seed=given.seed) as shooting:
            planned[part] = shooting.count(PARTS[part])
            cases = max(1, round(planned[part] * given.share))
            numbers = range(cases) if given.number is None else [given.number]
            for number in (n for n in numbers if given.number is not None or not record.has(part, n)):
                outcome = shooting.case(number)
                if given.number is None:
                    record.add(outcome)
                if outcome.what not in GOOD:
                    print(f"{part} {number}: {outcome.what}: {outcome.said}", flush=True)
    summary = record.summary({"faults": planned["faults"]} if "faults" in planned else {}) | about()
    if given.summary:
        given.summary.parent.mkdir(parents=True, exist_ok=True)
        given.summary.write_text(json.dumps(summary, indent=2) + "\n")
    print(campaign_tables.rows(summary, tables.table))


def about() -> dict[str, Any]:
    """When, on what, with which versions."""
    import torch

    from convmix.hardware import describe_machine

    versions = {
        "convmix": importlib.metadata.version("convmix"),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }
    return {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(torch.device("cpu")), "versions": versions}


if __name__ == "__main__":
    main()
