"""Adds records that owners of cards sent (`convmix benchmark --device cuda --share`), and turns on what they confirm.

    python benchmarks/cards.py RECORD.json ...    check them, copy them to benchmarks/results/cards, write convmix/ops/gpu/confirmed.json
    python benchmarks/cards.py                    write confirmed.json from the records that are there
    python benchmarks/cards.py --check            exit 1 where confirmed.json is not what the records say

The rule is `convmix.ops.gpu.card.confirms`: a kernel is on by default on a card of that name, as long as the kernels' source stays what
was measured, where every shape of the published models was checked, equal and not slower.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import ROOT

from convmix.benchmarking.card_record import FORMAT
from convmix.ops.gpu.card import CONFIRMED, confirms
from convmix.ops.gpu.cases import KERNELS, published

RESULTS = ROOT / "benchmarks/results/cards"
KEYS = {"kind", "format", "date", "card", "capability", "memory_gib", "processor", "system", "versions", "checks"}
CARD_KEYS = {"name", "driver", "torch", "triton", "kernels"}
CHECK_KEYS = {"key", "kernel", "trusted", "reason", "error", "bound", "ours_ms", "pytorch_ms"}


def main(arguments: Sequence[str] | None = None, *, results: Path = RESULTS, confirmed: Path = CONFIRMED) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where confirmed.json is not up to date")
    asked = parser.parse_args(arguments)
    for path in asked.records:
        add(path, results)
    text = confirmed_text(read(results))
    if asked.check:
        stale = not confirmed.exists() or confirmed.read_text() != text
        if stale:
            print(f"{confirmed.name} is not what the records say; run `python benchmarks/cards.py`", file=sys.stderr)
        return int(stale)
    confirmed.write_text(text)
    print(text, end="")
    return 0


def add(path: Path, results: Path) -> None:
    """Copies a record, normalised; SystemExit with the reason for one that is none."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: cannot be read: {error}") from None
    if reason := why_not(record):
        raise SystemExit(f"{path}: {reason}")
    results.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{record['card']['name']} {record['card']['kernels']} {record['date']}".lower())
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def why_not(record: Any) -> str | None:
    """Why this is no record of a card: None where it is one, with nothing in it that the format does not have."""
    if not isinstance(record, dict) or record.get("kind") != "card" or record.get("format") != FORMAT:
        return f"no record of a card in format {FORMAT}; `convmix benchmark --device cuda --share` writes one"
    if set(record) != KEYS or set(record["card"]) != CARD_KEYS:
        return f"expected the keys {', '.join(sorted(KEYS))}, and in card {', '.join(sorted(CARD_KEYS))}"
    if not record["checks"] or any(set(check) != CHECK_KEYS or check["kernel"] not in KERNELS for check in record["checks"]):
        return f"checks: expected at least one, each with the keys {', '.join(sorted(CHECK_KEYS))} and a kernel of {', '.join(KERNELS)}"
    return None


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]


def confirmed_text(records: Sequence[Mapping[str, Any]]) -> str:
    """confirmed.json: of each card and source of the kernels what its latest record confirms."""
    required: dict[str, list[str]] = {kernel: [] for kernel in KERNELS}
    for case in published():
        required[case.kernel].append(case.key)
    latest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for record in sorted(records, key=lambda record: record["date"]):
        latest[record["card"]["name"], record["card"]["kernels"]] = record
    rows = [
        {"card": name, "kernels": kernels, "date": record["date"], "confirmed": confirms(record, required)}
        for (name, kernels), record in sorted(latest.items())
    ]
    return json.dumps({"cards": rows}, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
