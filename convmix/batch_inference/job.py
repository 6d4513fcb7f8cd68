"""Batch prediction: input -> blocks -> workers -> partitions -> summary; a job that was stopped goes on where it was.

A block is done when its partition is there, and a partition appears whole or not at all. So whatever is killed, and whenever, the next
start computes exactly the blocks that have none.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from convmix.artifacts.artifact import load_artifact
from convmix.batch_inference.actor import BlockWork
from convmix.batch_inference.blocks import divide
from convmix.batch_inference.cluster import Share, computed, connected, require_ray, share_out
from convmix.batch_inference.listing import entries
from convmix.batch_inference.manifest import SUMMARY, Division, Manifest, Settings, numbers_of_parts, open_job, read_block
from convmix.batch_inference.packaging import PackedModel, pack
from convmix.batch_inference.partitions import Tally, part_name, read_tally
from convmix.batch_inference.progress import Progress
from convmix.batch_inference.storage import Folder, plain
from convmix.batch_inference.summary import Summary, Total
from convmix.data.remote.urls import is_url
from convmix.errors import ConfigError, ConvmixError, did_you_mean
from convmix.inference.batches import PRECISIONS
from convmix.metrics.calibration import check_threshold
from convmix.system.locking import locked
from convmix.training.signals import Interrupted, StopRequests

PART_SIZE = 2000
_FOOTERS_AT_ONCE = 16


class UnfinishedError(ConvmixError):
    """Some blocks could not be computed; all others are done, and the same call tries these again."""


def batch_predict(
    run: str | Path,
    data: str | Path,
    *,
    output: str | Path,
    workers: int | None = None,
    batch_size: int = 32,
    part_size: int = PART_SIZE,
    top: int = 1,
    threshold: float | None = None,
    image_column: str | None = None,
    name_column: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    quiet: bool = True,
) -> Summary:
    """Label any number of images on a Ray cluster, or find their objects or classes, as the run's task is; parquet partitions are written.

    run: a model directory or an exported model. It is sent to the workers, and runs there as it is: without a search for a faster engine.
    data: a folder, file or quoted pattern of images, .parquet and .tar files, or a .txt with one of these a line; a path or a URL.
    output: a folder or a URL for the partitions. A call with the same arguments goes on with the job that is there.
    workers: processes, each with the model; None: as many as the cluster has room for.
    batch_size: images that a worker computes at once.
    part_size: images of a partition; row groups of parquet files and shards are not cut.
    top, threshold: as in `convmix.predict`.
    image_column, name_column: of parquet files; None: the only column with bytes, and one that is called name, id, key or the like.
    device: None: a GPU where the worker has one, else the CPU.
    precision: auto, fp32, bf16 or fp16; auto is bf16 on workers whose hardware computes in it.
    cpus_per_worker: threads of a worker. gpus_per_worker: None: one where the cluster has GPUs.
    address: local, auto, or ray://HOST:10001; None: RAY_ADDRESS where that is set, else local, which is this machine.
    quiet: no progress on standard error.

    Raises UnfinishedError where some blocks failed three times, Interrupted after SIGINT or SIGTERM, and another ConvmixError for every
    mistake: an input that means nothing, an output that holds something else, a job begun with another input, model or other settings.
    """
    _check(top=top, workers=workers, batch_size=batch_size, part_size=part_size, cpus_per_worker=cpus_per_worker)
    if threshold is not None:
        check_threshold(threshold)
    choices = [p for p in PRECISIONS if p != "int8"]  # which is an export's
    if precision not in choices:
        raise ConfigError(f"precision: {precision} is not one of {', '.join(choices)}{did_you_mean(precision, choices)}")
    require_ray()
    artifact = load_artifact(run)
    source, folder = plain(data), Folder(output)
    _check_apart(source, folder)
    folder.names()  # a file of that name is said first
    shipped = pack(artifact, run)
    settings = Settings(top, threshold, precision, part_size, image_column, name_column)
    blocks = divide(entries(source), part_size=part_size, image_column=image_column, name_column=name_column)
    with contextlib.nullcontext() if is_url(str(folder)) else locked(Path(str(folder))):  # an object store has no locks
        manifest, division = open_job(folder, blocks, data=source, model=shipped.digest, settings=settings)
        total = Total(folder, len(division), _finished(folder, manifest, division))
        if len(total.done) == len(division) and SUMMARY in folder.names():
            return Summary(**json.loads(folder.read(SUMMARY)))
        if len(total.done) < len(division):
            total.begin()
            folder.remove(SUMMARY)  # its being there says that all is done
            with connected(address, workers=workers, cpus=cpus_per_worker, model_bytes=shipped.size):
                count, share = share_out(workers, cpus=cpus_per_worker, gpus=gpus_per_worker)
                where = device or (None if share.gpus else "cpu")
                work = BlockWork(str(folder), str(Path.cwd()), manifest.key, settings, batch_size, share.cpus, where)
                _compute(total, division, shipped, work, workers=count, share=share, quiet=quiet)
        summary = total.summary()
        with folder.replacing(SUMMARY) as file:
            file.write((json.dumps(summary.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
        return summary


def _compute(total: Total, division: Division, model: PackedModel, work: BlockWork, *, workers: int, share: Share, quiet: bool) -> None:
    """Every partition that is missing. Raises Interrupted after a signal, UnfinishedError where blocks failed and all others are done."""
    todo = [(number, *division.span(number)) for number in range(len(division)) if number not in total.done]
    failed: dict[int, str] = {}
    with StopRequests() as stop, Progress(len(division), done=len(total.done), quiet=quiet) as progress:
        for said in computed(todo, model=model, work=work, workers=workers, share=share):
            if stop.received:
                state = f"stopped; {len(total.done)} of {len(division)} partitions are in {total.folder}"
                raise Interrupted(state, number=stop.received, out=Path(work.output))
            if said is None:
                progress.tick()
            elif said["tally"] is None:
                failed[said["block"]] = said["error"]
            else:
                tally = Tally.from_json(said["tally"])
                total.add(said["block"], tally)
                progress.advance(tally.rows, tally.bad)
    if failed:
        raise UnfinishedError(_unfinished(total.folder, division, failed))


def _check(**amounts: int | None) -> None:
    for name, value in amounts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}: {value} is too small, expected at least 1")


def _check_apart(source: str, folder: Folder) -> None:
    """ConfigError where the partitions would lie in the input, of which they would then be a part."""
    where, there = (str(folder), source.rstrip("/")) if is_url(source) else (str(folder), str(Path(source).absolute()))
    if where == there or where.startswith(f"{there}/"):
        raise ConfigError(f"output: {folder} lies in the input {source}; name a folder elsewhere")


def _finished(folder: Folder, manifest: Manifest, division: Division) -> Iterator[tuple[int, Tally]]:
    """The partitions that are there. What a killed process left half written is taken away; ConfigError for those of another job."""
    names = folder.names()
    for name in names:
        if name.startswith((".part-", "._blocks", "._manifest", "._summary")):
            folder.remove(name)
    numbers = sorted(numbers_of_parts(names))
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        for number, tally in zip(numbers, pool.map(lambda n: read_tally(folder, part_name(n)), numbers), strict=True):
            if tally is None:
                continue  # no parquet file that can be read: computed again
            if tally.job != manifest.key or number >= len(division):
                raise ConfigError(f"output: {folder}/{part_name(number)} is of another job; name another output, or take it away")
            yield number, tally


def _unfinished(folder: Folder, division: Division, failed: dict[int, str]) -> str:
    shown = [f"{part_name(n)} of {read_block(folder, division.span(n))}: {failed[n]}" for n in sorted(failed)[:5]]
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return (
        f"{len(failed)} of {len(division)} partitions could not be computed: {'; '.join(shown)}{more}. "
        "The others are done; the same command tries these again"
    )
