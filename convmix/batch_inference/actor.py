"""One process of the cluster: a model, loaded once, that turns blocks into partitions."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from convmix.batch_inference import rows
from convmix.batch_inference.manifest import Settings, read_block
from convmix.batch_inference.packaging import PackedModel
from convmix.batch_inference.partitions import Tally, part_name, write_part
from convmix.batch_inference.reading import Source, sources
from convmix.batch_inference.storage import Folder
from convmix.data.decode import BadImage
from convmix.errors import first_line
from convmix.hardware import keep_freed_memory
from convmix.inference.predictor import Answer, Predictor, Prepared
from convmix.tasks import task_class

T = TypeVar("T")
ATTEMPTS = 3  # of a block, before it is given up
_PAUSE_S = 1.0  # before the next, times the number of the last


@dataclass(frozen=True)
class BlockWork:
    """What every worker is told."""

    output: str
    folder: str  # where relative paths start
    job: str
    settings: Settings
    batch_size: int
    threads: int
    device: str | None


class Labeller:
    """A model that turns blocks into partitions."""

    def __init__(self, model: PackedModel, work: BlockWork, name: str) -> None:
        self.work, self.output, self.name = work, Folder(work.output), name
        with tempfile.TemporaryDirectory(prefix="convmix-") as folder:
            artifact = model.unpack(Path(folder))
            size = min(work.batch_size, artifact.batch_size or work.batch_size)
            self.predictor = Predictor(
                artifact, images=size, batch_size=size, device=work.device, precision=work.settings.precision, optimize="never"
            )
        self._map: Callable[..., Any] = ThreadPoolExecutor(work.threads).map if work.threads > 1 else map
        self.kind = task_class(artifact.task).result
        self.schema = rows.schema(self.kind, artifact.labels)

    def compute(self, number: int, span: tuple[int, int]) -> Tally:
        """Write the partition of one block."""
        started = time.perf_counter()
        tally = Tally(self.work.job, worker=self.name)
        block = read_block(self.output, span)

        def batches() -> Iterator[list[dict[str, Any]]]:
            read = ahead(chunks(sources(block, self.work.folder), self.predictor.batch_size))
            prepared: Iterator[list[tuple[str, Prepared | BadImage]]] = map(self._prepared, read)
            if self.work.threads > 1:
                prepared = ahead(prepared)  # with one core to itself a worker would only take it from the next
            for some in prepared:
                yield [self._row(name, answer, tally) for name, answer in self._answers(some)]
            tally.elapsed_s = time.perf_counter() - started

        write_part(self.output, part_name(number), self.schema, batches(), tally)
        return tally

    def _row(self, name: str, answer: Answer, tally: Tally) -> dict[str, Any]:
        tally.rows += 1
        tally.bad += answer.error is not None
        tally.labels.update(rows.labels_in(answer))
        return rows.row(self.kind, name, answer, top=self.work.settings.top)

    def _prepared(self, some: list[Source]) -> "list[tuple[str, Prepared | BadImage]]":
        names, encoded = zip(*some, strict=True)
        return list(zip(names, self._map(self._prepare, encoded), strict=True))

    def _prepare(self, source: bytes | BadImage) -> Prepared | BadImage:
        if isinstance(source, BadImage):
            return source
        try:
            return self.predictor.prepare(source)
        except BadImage as problem:
            return problem

    def _answers(self, some: "list[tuple[str, Prepared | BadImage]]") -> Iterator[tuple[str, Answer]]:
        """Broken images too, in their order."""
        good = [p for _, p in some if isinstance(p, Prepared)]
        answers = iter(self.predictor.answers(good, threshold=self.work.settings.threshold) if good else ())
        for name, p in some:
            yield name, Answer(None, p.reason) if isinstance(p, BadImage) else next(answers)


class Worker(Labeller):
    """The same as an actor: a batch of one block's number and span -> the number, what was written, or why nothing was."""

    def __init__(self, model: list[Any], work: BlockWork, attempts: Any) -> None:
        import ray
        import torch

        torch.set_num_threads(work.threads)
        keep_freed_memory()  # every batch needs the same amounts again
        self.attempts = attempts
        super().__init__(ray.get(model[0]), work, f"{ray.util.get_node_ip_address()}/{os.getpid()}")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        import ray

        number, span = int(batch["block"][0]), (int(batch["start"][0]), int(batch["end"][0]))
        error = ""
        while (attempt := ray.get(self.attempts.begin.remote(number))) <= ATTEMPTS:
            try:
                tally = self.compute(number, span)
            except Exception as problem:
                error = f"{type(problem).__name__}: {first_line(problem)}"
                if attempt == ATTEMPTS:
                    break
                time.sleep(_PAUSE_S * attempt)
                continue
            ray.get(self.attempts.end.remote(number))
            return {"block": [number], "tally": [tally.to_json()], "error": [None]}
        return {"block": [number], "tally": [None], "error": [error or f"ended the worker {ATTEMPTS} times"]}


def chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    some: list[T] = []
    for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread fetches the next one meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
