"""The command: works -> races, one after the other -> records, printed and written as JSON with a picture and a page each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from convmix.atomic import write_bytes, write_json
from convmix.benchmarking import work as works_of
from convmix.benchmarking.bar_plots import bars, lines
from convmix.benchmarking.record import machine, processor_line, record, summary, table, title
from convmix.benchmarking.roofline import Rates, measure_rates
from convmix.benchmarking.rounds import race
from convmix.benchmarking.speed_page import page
from convmix.benchmarking.work import Work, contenders, default_precision
from convmix.config import Run, override, parse_duration
from convmix.errors import ConfigError, did_you_mean
from convmix.hardware import default_device
from convmix.models.catalog import SMALL
from convmix.models.describe import describe
from convmix.ops import build
from convmix.ops.gpu import routes

ROUNDS = 9  # turns of every contender where nobody says how many


def benchmark(
    models: Sequence[str],
    *,
    work: str = "inference",
    batch_size: int | None = None,
    size: int | str | None = None,
    num_classes: int = 1000,
    precision: str = "auto",
    rounds: int = ROUNDS,
    threads: int | None = None,
    device: str | None = None,
    budget: str = "3m",
    sweep: str | None = None,
    output: str | Path | None = None,
    console: Console | None = None,
    command: str = "convmix.benchmark",
) -> list[dict[str, Any]]:
    """Races of the models against the official path and the fastest peers: one record (`record.record`) per race.

    models: names of `convmix models`.
    work: inference, training, latency (one image at a time, on one thread unless `threads` says otherwise), or several, as
    inference,training.
    batch_size: images per batch; None: 8 for inference and 32 for training. Latency has always 1.
    size: input size in pixels, N or HxW; None: 224, or 32 for models made for CIFAR-10.
    num_classes: of the models.
    precision: exact (float32), bf16 or int8: what may be computed in; auto: bf16 where this machine has it, else exact.
    rounds: turns of every contender.
    threads: of the CPU; None: all.
    device: cpu or cuda; None: the accelerator where there is one.
    budget: for convmix's own choice of an engine, such as 90s or 3m.
    sweep: batch, resolution, depth or kernel: how speed and memory grow with it.
    output: a folder for records (JSON), pictures and pages (HTML), each written as soon as it is measured.
    console: where what is found is printed; None: nowhere.
    command: what the record says it came from.

    Raises ConfigError and ModelError for values that cannot be measured.
    """
    place = _device(device)
    in_pixels = None if size is None else override(Run(), {"size": size}).data.size
    works = [
        Work(
            model=name,
            kind=kind,
            batch_size=1 if kind == "latency" else batch_size if batch_size is not None else 32 if kind == "training" else 8,
            height=(in_pixels or _own_size(name))[0],
            width=(in_pixels or _own_size(name))[1],
            num_classes=num_classes,
            device=place.type,
            threads=threads if threads is not None else 1 if kind == "latency" else torch.get_num_threads(),
            precision=default_precision(place) if precision == "auto" else precision,
            budget_s=parse_duration(budget),
        )
        for name in models
        for kind in work.replace(" ", "").split(",")
    ]
    points = [[(None, one)] if sweep is None else works_of.sweep(one, sweep) for one in works]
    _check([one for some in points for _, one in some], rounds)
    say = console or Console(quiet=True)
    say.print(processor_line({"machine": machine(place)}), highlight=False, markup=False, soft_wrap=True)
    for kernels in (build.said(place.type), routes.said(place.type)):
        if kernels:
            say.print(kernels, highlight=False, markup=False, soft_wrap=True)
    rates = {number: _rates(place, number) for number in sorted({one.threads for one in works})}
    found = []
    for one, some in zip(works, points, strict=True):
        records = []
        for value, point in some:
            say.print(f"[bold]{name_of(point)}[/bold]", highlight=False)
            made = _measure(point, rates[point.threads], rounds=rounds, command=command, console=say, in_sweep=sweep is not None)
            records.append(made if value is None else made | {"point": value})
            say.print(table(made), summary(made), "", sep="\n", highlight=False)
        if output is not None:
            say.print(f"page: {_write(Path(output), one, records, sweep)}", highlight=False, markup=False, soft_wrap=True)
        found += records
    return found


def name_of(work: Work) -> str:
    """Of the files: convmixer_768_32-inference-b8-224-bf16-cpu."""
    side = f"{work.height}" if work.height == work.width else f"{work.height}x{work.width}"
    return f"{work.model}-{work.kind}-b{work.batch_size}-{side}-{work.precision}-{work.device}"


def _device(name: str | None) -> torch.device:
    if name not in (None, "cpu", "cuda", "mps"):
        raise ConfigError(f"device: {name} is none of cpu, cuda, mps{did_you_mean(name, ('cpu', 'cuda', 'mps'))}")
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise ConfigError(f"device: {name} was asked for, but PyTorch sees none; leave --device out to use what is there")
    return torch.device(name) if name else default_device()


def _own_size(model: str) -> tuple[int, int]:
    return (32, 32) if model in SMALL else (224, 224)


def _measure(work: Work, rates: Rates, *, rounds: int, command: str, console: Console, in_sweep: bool) -> dict[str, Any]:
    macs = describe(work.model, size=(work.height, work.width), num_classes=work.num_classes).macs
    result = race(work, contenders(work, in_sweep=in_sweep), rounds=rounds, say=lambda text: console.print(text, highlight=False))
    made = record(result, rates=rates, macs=macs, command=command)
    if all(lane["failed"] for lane in made["lanes"]):
        raise ConfigError(f"{title(made)}: nothing could be measured; {made['lanes'][0]['failed']}")
    return made


def _rates(device: torch.device, threads: int) -> Rates:
    """The machine's, with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measure_rates(device)
    finally:
        torch.set_num_threads(before)


def _write(output: Path, work: Work, records: list[dict[str, Any]], sweep: str | None) -> Path:
    """NAME.json, NAME.png and the page NAME.html, whose path comes back; of a sweep one of each for all points."""
    output.mkdir(parents=True, exist_ok=True)
    name = name_of(work) if sweep is None else f"{name_of(work)}-{sweep}"
    write_json(output / f"{name}.json", records[0] if sweep is None else {"kind": "sweep", "over": sweep, "records": records})
    picture = bars(records[0]) if sweep is None else lines(records, sweep)
    write_bytes(output / f"{name}.png", picture)
    write_bytes(output / f"{name}.html", page(records, picture, over=sweep or "").html().encode("utf-8", "backslashreplace"))
    return output / f"{name}.html"


def _check(works: Sequence[Work], rounds: int) -> None:
    """Everything that can be known to be wrong is said before anything is measured."""
    if rounds < 1:
        raise ConfigError(f"rounds: {rounds}, expected at least 1")
    for work in works:
        works_of.check(work)
        describe(work.model, size=(work.height, work.width), num_classes=work.num_classes)
