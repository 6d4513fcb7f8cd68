"""What became of every case, a line each in a file that a campaign goes on from, and the table made of it."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GOOD = ("answered", "refused", "resumed")  # everything else is a fault


@dataclass(frozen=True)
class Outcome:
    """One case."""

    part: str
    number: int  # with the seed of the campaign it says all
    what: str  # of GOOD, or traceback, hang, crash, memory, lost, differs
    said: str = ""  # of faults the first line, of a server its figures
    cases: int = 1  # files in it
    seconds: float = 0.0
    memory_mib: int = 0  # above a clean process, at most


class Record:
    """The file."""

    def __init__(self, file: Path, *, seed: int) -> None:
        self.file, self.outcomes = file, []
        lines = file.read_text().splitlines() if file.exists() else []
        if lines and json.loads(lines[0]) != {"seed": seed}:
            raise SystemExit(f"{file} is of another campaign: {lines[0]}; give its seed, or another file")
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"seed": seed}) + "\n")
        for line in lines[1:]:
            try:
                self.outcomes.append(Outcome(**json.loads(line)))
            except ValueError:  # the line that was being written when the campaign was stopped
                continue

    def has(self, part: str, number: int) -> bool:
        return any((o.part, o.number) == (part, number) for o in self.outcomes)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def summary(self, planned: Mapping[str, int]) -> dict[str, Any]:
        """What RESULTS.md is written from; `planned`: part -> cases that there are, as far as is known."""
        parts: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            parts[outcome.part].append(outcome)
        return {"parts": [_summed(part, some, planned.get(part)) for part, some in sorted(parts.items())]}


def _summed(part: str, some: Sequence[Outcome], planned: int | None) -> dict[str, Any]:
    return {
        "part": part,
        "cases": sum(o.cases for o in some),
        "planned": planned,
        "good": {what: n for what in GOOD if (n := sum(o.cases for o in some if o.what == what))},
        "faults": Counter(o.what for o in some if o.what not in GOOD),
        "slowest_s": round(max(o.seconds for o in some), 1),
        "memory_mib": max(o.memory_mib for o in some),
        "said": [o.said for o in some if o.said and o.what in GOOD],
    }
