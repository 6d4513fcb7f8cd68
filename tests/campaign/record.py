"""What became of every case, a line each in a file that a campaign goes on from, and the table made of it."""

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

GOOD = ("answered", "refused", "resumed")  # everything else is a fault


@dataclass(frozen=True)
class Outcome:
    """One case."""

    part: str  # images, annotations, documents, kills
    number: int  # with the seed of the campaign it says all
    what: str  # of GOOD, or traceback, hang, crash, memory, lost, differs
    said: str = ""  # the first line, for faults
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

    def table(self) -> str:
        """Markdown."""
        parts: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            parts[outcome.part].append(outcome)
        rows = ["| part | cases | answered or refused | faults | slowest | memory above clean |", "| --- | --- | --- | --- | --- | --- |"]
        for part, some in sorted(parts.items()):
            faults = Counter(o.what for o in some if o.what not in GOOD)
            said = ", ".join(f"{n} {what}" for what, n in faults.most_common()) or "0"
            good = sum(o.cases for o in some if o.what in GOOD)
            slowest, memory = max(o.seconds for o in some), max(o.memory_mib for o in some)
            rows.append(f"| {part} | {sum(o.cases for o in some):,} | {good:,} | {said} | {slowest:.0f} s | {memory:,} MiB |")
        return "\n".join(rows)
