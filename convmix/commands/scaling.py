"""A trained model on any number of images: batch-predict."""

import shlex
import sys
from pathlib import Path

from rich.console import Console

from convmix.artifacts.runtime import digests


def batch_predict(
    run: Path,
    input: str,
    /,
    *,
    output: str,
    workers: int | None = None,
    batch_size: int = 32,
    part_size: int | None = None,
    top: int = 1,
    threshold: float | None = None,
    image_column: str | None = None,
    name_column: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    quiet: bool = False,
    verify: bool = True,
) -> None:
    """Label millions of images on a Ray cluster, or on this machine; resumes where it was stopped.

    Parameters
    ----------
    run:
        A model directory or an exported model.
    input:
        A folder, file or quoted pattern of images, .parquet and .tar files, or a .txt with one a line; a path or a URL such as
        s3://bucket/photos.
    output:
        A folder or a URL for the parquet partitions.
    workers:
        Processes, each with the model; as many as there is room for where it is left out.
    batch_size:
        Images that a worker computes at once.
    part_size:
        Images of a partition; 2000 where it is left out. Row groups of parquet files and shards are not cut.
    top:
        How many labels per image.
    threshold:
        As for `convmix predict`.
    image_column:
        The column of parquet files with the encoded images; the only one with bytes where it is left out.
    name_column:
        The column of parquet files with the name; one called name, id, key or the like where it is left out.
    device:
        cpu or cuda; a GPU where the worker has one.
    precision:
        auto, fp32, bf16 or fp16.
    cpus_per_worker:
        Threads of a worker.
    gpus_per_worker:
        One where the cluster has GPUs, when it is left out; 0.5 puts two workers on each.
    address:
        local, auto, or ray://HOST:10001; RAY_ADDRESS where that is set, else this machine.
    quiet:
        No progress.
    verify:
        Whether the files of an exported model are compared with their digests; --no-verify takes a model that was changed on purpose.
    """
    if not verify:
        digests.skip()
    from convmix.batch_inference import job
    from convmix.training.signals import Interrupted

    try:
        summary = job.batch_predict(
            run, input, output=output, workers=workers, batch_size=batch_size, part_size=part_size or job.PART_SIZE, top=top,
            threshold=threshold, image_column=image_column, name_column=name_column, device=device, precision=precision,
            cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker, address=address, quiet=quiet,
        )  # fmt: skip
    except Interrupted as stop:
        print(f"{stop}\ngo on with: {shlex.join(['convmix', *sys.argv[1:]])}", file=sys.stderr)
        sys.exit(128 + stop.number)
    bad = f", {summary.bad:,} of them with an error" if summary.bad else ""
    print(f"{summary.rows:,} rows{bad} in {summary.parts:,} partitions: {summary.output}")
    counts = [f"{label} {n:,}" for label, n in list(summary.labels.items())[:10]]
    if counts:
        print("; ".join(counts))
    if summary.computed:
        busy = len(summary.workers)
        workers_said = f"{busy} worker{'s' if busy != 1 else ''}"
        Console(stderr=True, highlight=False).print(
            f"{summary.computed:,} images in {summary.elapsed_s:.1f} s with {workers_said}: {summary.images_per_s:,.0f} images a second"
        )
