"""What a trained model is for: predict; and how fast it is: optimize, benchmark."""

import inspect
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from convmix.artifacts.runtime import digests
from convmix.errors import ConfigError, did_you_mean


def predict(
    run: Path,
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # so that - is one
    /,
    *,
    output: Path | None = None,
    format: str | None = None,
    top: int = 1,
    threshold: float | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
    nearest: int = 0,
    verify: bool = True,
) -> None:
    """Label images.

    Parameters
    ----------
    run:
        A model directory.
    files:
        Images, folders, quoted globs, or - for a list of paths on standard input.
    output:
        The file to write; its suffix says the format.
    format:
        table, csv, csv-raw, json, jsonl or parquet; csv-raw keeps names and labels that a spreadsheet would compute.
    top:
        How many labels per image.
    threshold:
        An image whose best probability is below it (0..1) is "not sure"; what `convmix calibrate` stored where it is left out, 0 to be sure
        of all.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where that ends sooner.
    nearest:
        Name so many of the training images that look most alike to the model.
    verify:
        Whether the files of an exported model are compared with their digests; --no-verify takes a model that was changed on purpose.
    """
    if not verify:
        digests.skip()
    from convmix.inference import prediction

    for name in files:
        if name.startswith("--") and not Path(name).exists():
            options = [f"--{parameter.replace('_', '-')}" for parameter in inspect.signature(predict).parameters]
            raise ConfigError(f"unknown option {name}{did_you_mean(name, options)}")
    rows = prediction.predict(
        run,
        files,
        output=output or "-",
        format=format,
        top=top,
        threshold=threshold,
        batch_size=batch_size,
        device=device,
        precision=precision,
        optimize=optimize,
        nearest=nearest,
    )
    if all(row.error for row in rows):
        sys.exit(1)


def optimize(run: Path, /, *, precision: str = "auto", batch_size: int = 32, budget: str = "5m", again: bool = False) -> None:
    """Find the fastest engine for a model on this machine; `predict` and `evaluate` use it from then on.

    Parameters
    ----------
    run:
        A model directory.
    precision:
        exact (float32), bf16 or int8: what may be computed in; auto: bf16 where this machine has it, else exact.
    batch_size:
        Images that are computed at once; leave it as it is for `predict` and `evaluate`.
    budget:
        No further engine is begun after this time, such as 90s or 10m.
    again:
        Measure also where an earlier choice is kept.
    """
    from convmix import api
    from convmix.config import parse_duration
    from convmix.speed.report import table

    faster = api.optimize(run, sizes=batch_size, precision=precision, budget_s=parse_duration(budget), again=again)
    Console().print(table(faster.report))


def benchmark(
    *models: str,
    work: str = "inference",
    batch_size: int | None = None,
    size: str | None = None,
    num_classes: int = 1000,
    precision: str = "auto",
    rounds: int = 9,
    threads: int | None = None,
    device: str | None = None,
    budget: str = "3m",
    sweep: str | None = None,
    output: Path | None = None,
    share: bool = False,
) -> None:
    """Measure models beside the official path and the fastest peers, in one run.

    Parameters
    ----------
    models:
        Names of `convmix models`; or one exported model, which is measured beside the run that it came from.
    work:
        inference, training, latency (one image at a time, on one thread unless --threads says otherwise), or several, as
        inference,training.
    batch_size:
        Images per batch; 8 for inference and 32 for training where it is left out. Latency has always 1.
    size:
        Input size in pixels, N or HxW; 224, or 32 for models made for CIFAR-10.
    precision:
        exact (float32), bf16 or int8: what may be computed in; auto: bf16 where this machine has it, else exact.
    rounds:
        Turns of every contender.
    threads:
        Of the CPU; all where it is left out.
    budget:
        For convmix's own choice of an engine, such as 90s or 3m.
    sweep:
        batch, resolution, depth or kernel: how speed and memory grow with it.
    output:
        A folder for records (JSON), pictures and pages (HTML).
    share:
        Check and time the GPU kernels on this machine's card, without models, and write a record to send back; it names no user, no
        machine and no path.
    """
    from convmix.artifacts.runtime.exported import is_exported
    from convmix.benchmarking.measure import benchmark as measure
    from convmix.commands.exporting import race_exported

    if share:
        from convmix.benchmarking.card_record import share as share_card

        if models:
            raise ConfigError(f"--share measures the GPU kernels and takes no models, got {', '.join(models)}; leave them or --share out")
        share_card(output, device=device, console=Console())
        return
    if len(models) == 1 and is_exported(Path(models[0])):
        race_exported(Path(models[0]), batch_size=batch_size, size=size, rounds=rounds, threads=threads, output=output)
        return
    if not models:
        raise ConfigError("benchmark needs the name of a model; `convmix models` lists them")
    measure(
        models, work=work, batch_size=batch_size, size=size, num_classes=num_classes, precision=precision, rounds=rounds, threads=threads,
        device=device, budget=budget, sweep=sweep, output=output, console=Console(),
        command=shlex.join(["convmix", *sys.argv[1:]]),
    )  # fmt: skip
