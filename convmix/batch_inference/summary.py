"""What a job's partitions hold, summed up from their footers and from what the workers say."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from convmix.batch_inference.partitions import Tally
from convmix.batch_inference.storage import Folder


@dataclass(frozen=True)
class Summary:
    """What the partitions hold, and how the last run of the job went."""

    output: str
    rows: int  # images, broken ones too
    bad: int  # rows with an error
    labels: dict[str, int]  # images of the class, objects of it, or images whose map holds it
    parts: int
    computed: int  # rows of the last run; the others were there
    startup_s: float  # of the last run: Ray, the workers and their models, before the first image
    elapsed_s: float  # of the last run, from then on
    images_per_s: float  # of the last run
    workers: dict[str, dict[str, float]]  # of the last run: address/process -> parts, rows, busy_s

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Total:
    """Sums over the partitions."""

    def __init__(self, folder: Folder, parts: int, found: Iterable[tuple[int, Tally]]) -> None:
        self.folder, self.parts = folder, parts
        self.done: set[int] = set()
        self.rows = self.bad = self.computed = 0
        self.labels: Counter[str] = Counter()
        self.workers: dict[str, dict[str, float]] = {}
        self.begun = self.started = self.ended = time.perf_counter()
        for number, tally in found:
            self._count(number, tally)

    def begin(self) -> None:
        """A run begins."""
        self.begun = self.started = self.ended = time.perf_counter()

    def add(self, number: int, tally: Tally) -> None:
        """A partition made by this run."""
        self._count(number, tally)
        self.ended = time.perf_counter()
        if not self.workers:
            self.started = max(self.begun, self.ended - tally.elapsed_s)
        self.computed += tally.rows
        worker = self.workers.setdefault(tally.worker, {"parts": 0, "rows": 0, "busy_s": 0.0})
        worker["parts"] += 1
        worker["rows"] += tally.rows
        worker["busy_s"] = round(worker["busy_s"] + tally.elapsed_s, 3)

    def _count(self, number: int, tally: Tally) -> None:
        self.done.add(number)
        self.rows += tally.rows
        self.bad += tally.bad
        self.labels.update(tally.labels)

    def summary(self) -> Summary:
        elapsed_s = self.ended - self.started
        speed = self.computed / elapsed_s if elapsed_s else 0.0
        labels = dict(self.labels.most_common())
        return Summary(
            output=str(self.folder), rows=self.rows, bad=self.bad, labels=labels, parts=self.parts, computed=self.computed,
            startup_s=round(self.started - self.begun, 3), elapsed_s=round(elapsed_s, 3), images_per_s=round(speed, 2),
            workers=self.workers,
        )  # fmt: skip
