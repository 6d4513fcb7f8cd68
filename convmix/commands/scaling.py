"""A trained model on any number of images: batch-predict."""

import shlex
import sys
from typing import Any

from rich.console import Console

from convmix.artifacts.runtime import digests
from convmix.commands.derived import VERIFY, Changes, Work, command


@command(
    Work("batch_inference.job", "batch_predict"), Changes(also=(VERIFY,), types={"output": str}, defaults={"quiet": False})
)  # the folder may be a URL; on a terminal there is progress
def batch_predict(given: dict[str, Any]) -> None:
    """Label millions of images on a Ray cluster, or on this machine; resumes where it was stopped."""
    if not given.pop("verify"):
        digests.skip()
    from convmix.batch_inference import job
    from convmix.training.signals import Interrupted

    try:
        summary = job.batch_predict(given.pop("run"), given.pop("data"), **given)
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
