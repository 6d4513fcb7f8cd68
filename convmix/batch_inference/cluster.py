"""A Ray cluster to work on: one that is there, or one of this machine's cores that ends with the job.

Nothing is reported to anybody, there is no dashboard, and Ray's own logs stay in its session folder.
"""

import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Any

from convmix.batch_inference.actor import BlockWork, Worker
from convmix.batch_inference.packaging import PackedModel
from convmix.batch_inference.retries import Retries
from convmix.errors import ConfigError, ConvmixError, first_line
from convmix.system.processors import processors

_OBJECT_STORE = 96 * 2**20  # bytes on this machine, beside the model; nothing but numbers of blocks goes through it
_TICK_S = 0.25


class WorkersError(ConvmixError):
    """Workers that cannot start, or a cluster that is gone."""


@dataclass(frozen=True)
class Share:
    """What one worker is given."""

    cpus: int
    gpus: float


def require_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('batch prediction needs Ray: pip install "convmix[ray]"')


@contextmanager
def connected(address: str | None, *, workers: int | None, cpus: int, model_bytes: int) -> Iterator[None]:
    """Ray, ready for use. address: as ray.init has it; None: RAY_ADDRESS where that is set, else "local"."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its own future at every start
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings about restarted workers are for its developers
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {}
    if address == "local":
        here = {
            "num_cpus": workers * cpus if workers else max(processors(), cpus),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE + 2 * model_bytes,
        }
    try:
        with _silent_stderr():  # where its core tells of its own settings
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"address: no Ray cluster answers at {address} ({first_line(error)}); expected local, auto or ray://HOST:10001"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Of this process, its libraries' too; mistakes come as exceptions."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def share_out(workers: int | None, *, cpus: int, gpus: float | None) -> tuple[int, Share]:
    """How many workers, and what each is given. gpus None: one each where the cluster has any. ConfigError where not even one fits."""
    import ray

    has = ray.cluster_resources()
    share = Share(cpus, float(has.get("GPU", 0) >= 1) if gpus is None else gpus)
    fit = int(has.get("CPU", 0) // share.cpus)
    if share.gpus:
        fit = min(fit, int(has.get("GPU", 0) / share.gpus))
    if fit < 1:
        raise ConfigError(
            f"a worker asks for {share.cpus} CPUs and {share.gpus:g} GPUs, the whole cluster has {has.get('CPU', 0):g} and "
            f"{has.get('GPU', 0):g}; lower cpus_per_worker or gpus_per_worker"
        )
    return workers or fit, share


def computed(
    todo: Iterable[tuple[int, int, int]], *, model: PackedModel, work: BlockWork, workers: int, share: Share
) -> Iterator[dict[str, Any] | None]:
    """What `Worker` says of every block (number, start, end), as they are done; None when nothing happened for a moment."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    items = [{"block": number, "start": start, "end": end} for number, start, end in todo]
    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Retries).remote()
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(  # one each: what a lost worker had is computed again
        Worker,
        fn_constructor_args=([ray.put(model)], work, attempts),
        batch_size=1,
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
    )
    ready: Queue[dict[str, Any] | BaseException | None] = Queue()

    def run() -> None:  # in a thread, so that a signal is noticed while all workers are busy
        try:
            for row in dataset.iter_rows():
                ready.put(row)
            ready.put(None)
        except BaseException as problem:
            ready.put(problem)

    Thread(target=run, daemon=True).start()
    while True:
        try:
            row = ready.get(timeout=_TICK_S)
        except Empty:
            yield None
            continue
        if row is None:
            return
        if isinstance(row, ray.exceptions.RayError):
            raise WorkersError(f"the workers ended: {_cause(row)}; what is done is kept, the same command resumes") from row
        if isinstance(row, BaseException):
            raise row
        yield row


def _cause(error: BaseException) -> str:
    """What lies at the bottom: Ray wraps the workers' own errors in the text of their tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("convmix.errors.") or re.match(r"[\w.]+(Error|Exception): ", line)]
    return (said or lines or [type(error).__name__])[-1].removeprefix("convmix.errors.")
