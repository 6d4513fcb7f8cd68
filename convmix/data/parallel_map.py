"""Every example of a data set through one function, in worker processes; an image that kills its process is found and named.

parts (splits) -> chunks of examples -> look(examples, index) in a worker -> ((part, start, stop), what was seen of each)
"""

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from convmix.data.examples import Examples
from convmix.system.processors import processors
from convmix.system.surroundings import without_main

T = TypeVar("T")
Look = Callable[[Examples, int], T]  # what is to be known of one example; it must not raise
Chunk = tuple[int, int, int]  # part, start, stop
Progress = Callable[[int, int], None]  # images done, images in all
SMALL = 500  # below this, starting processes costs more than it saves
CHUNK = 128
STUCK_S = 1800.0  # a chunk of the largest images takes minutes
CRASH = "decoding it ends the process"  # the reason of an image that `lost` is asked for


def sweep(
    parts: list[Examples], look: Look[T], *, lost: T, workers: int | None = None, progress: Progress | None = None
) -> Iterator[tuple[Chunk, list[T]]]:
    """What `look` says of every example, chunk by chunk, in any order.

    workers: processes (None: one per core; 0: this process). `lost` stands for an image whose decoding ends its process: a crash inside
    a codec, or the system taking back memory.
    """
    workers = processors() if workers is None else workers
    total = sum(map(len, parts))
    chunks = [(p, i, min(i + CHUNK, len(e))) for p, e in enumerate(parts) for i in range(0, len(e), CHUNK)]
    here = workers < 1 or total < SMALL
    done = 0
    for chunk, seen in _here(parts, look, chunks) if here else _in_processes(parts, look, lost, chunks, workers):
        done += len(seen)
        if progress:
            progress(done, total)
        yield chunk, seen


_work: tuple[list[Examples], Look[Any]] | None = None  # set in each worker


def _start_worker(parts: list[Examples], look: Look[Any]) -> None:
    global _work
    _work = (parts, look)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides


def _look_at_chunk(part: int, start: int, stop: int) -> list[Any]:
    assert _work is not None
    parts, look = _work
    return [look(parts[part], i) for i in range(start, stop)]


def _here(parts: list[Examples], look: Look[T], chunks: list[Chunk]) -> Iterator[tuple[Chunk, list[T]]]:
    for chunk in chunks:
        part, start, stop = chunk
        yield chunk, [look(parts[part], i) for i in range(start, stop)]


def _in_processes(parts: list[Examples], look: Look[T], lost: T, chunks: list[Chunk], workers: int) -> Iterator[tuple[Chunk, list[T]]]:
    left = dict.fromkeys(chunks)
    pool = _pool(parts, look, workers)
    try:
        for future, chunk in _submit(pool, chunks):
            try:
                seen = future.result()
            except BrokenProcessPool:
                break  # a codec crashed, or the system killed a worker for its memory: the rest goes one worker at a time
            del left[chunk]
            yield chunk, seen
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    for chunk in left:
        yield chunk, _look_carefully(parts, look, lost, chunk)


def _look_carefully(parts: list[Examples], look: Look[T], lost: T, chunk: Chunk) -> list[T]:
    """Halves the chunk until the image that kills its process stands alone."""
    part, start, stop = chunk
    pool = _pool(parts, look, 1)
    try:
        (future, _), *_ = _submit(pool, [chunk])
        seen: list[T] = future.result()
        return seen
    except BrokenProcessPool:
        if stop - start == 1:
            return [lost]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    middle = (start + stop) // 2
    return _look_carefully(parts, look, lost, (part, start, middle)) + _look_carefully(parts, look, lost, (part, middle, stop))


def _pool(parts: list[Examples], look: Look[Any], workers: int) -> ProcessPoolExecutor:
    # Fork where it is safe, as torch's DataLoader does: no second import, and no `if __name__ == "__main__"` asked of the user's script.
    context = get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(parts, look))


def _submit(pool: ProcessPoolExecutor, chunks: list[Chunk]) -> Iterator[tuple[Future[list[Any]], Chunk]]:
    with warnings.catch_warnings(), without_main():
        # Python 3.12 warns of forking beside threads; these workers only decode.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        futures = {pool.submit(_look_at_chunk, *chunk): chunk for chunk in chunks}
    return _as_they_come(pool, futures)


def _as_they_come(pool: ProcessPoolExecutor, futures: dict[Future[list[Any]], Chunk]) -> Iterator[tuple[Future[list[Any]], Chunk]]:
    """Each once it is done. Workers of which none has done anything for STUCK_S are killed, which is seen as a crash."""
    left = set(futures)
    while left:
        done, left = wait(left, timeout=STUCK_S, return_when=FIRST_COMPLETED)
        if not done:
            for process in list(pool._processes.values()):
                process.kill()
        for future in done:
            yield future, futures.pop(future)
