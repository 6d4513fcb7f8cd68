"""How a trained model leaves convmix, and how fast it is then: export, and benchmark of what was exported."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from convmix.commands.derived import Work, command


@command(Work("exporting.export", "export"))
def export(given: dict[str, Any]) -> None:
    """Write a trained model for onnxruntime, OpenVINO or torch.export, verified against the run first."""
    from convmix.exporting.export import export as write

    console = Console()
    made = write(given.pop("run"), given.pop("format"), **given)
    found = made.verification
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(f"{found.images} images at")
    for title in ("batch", "n", "difference", "same answer", found.score, "before"):
        table.add_column(title, justify="right")
    for check in found.checks:
        scores = ["" if value is None else f"{value:.4f}" for value in (check.score, check.score_before)]
        table.add_row(check.size, str(check.batch), str(check.images), f"{check.difference:.1e}", f"{100 * check.agreed:.1f} %", *scores)
    console.print(table)
    for note in made.notes:
        console.print(note, highlight=False, markup=False)
    console.print(
        f"\n{made.path}: labels an image with\n    python {made.path / 'predict.py'} IMAGE", highlight=False, markup=False, soft_wrap=True
    )


def race_exported(path: Path, *, batch_size: int | None, size: str | None, rounds: int, threads: int | None, output: Path | None) -> None:
    """`convmix benchmark` of an exported model: milliseconds per batch beside the run's, from decoded images to answers."""
    import torch

    from convmix.atomic import write_json
    from convmix.config import Run, override
    from convmix.exporting.timing import race

    images = 8 if batch_size is None else batch_size
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        lanes = race(path, batch_size=images, rounds=rounds, size=None if size is None else override(Run(), {"size": size}).data.size)
    finally:
        torch.set_num_threads(before)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(f"batches of {images}")
    for title in ("ms per batch", "quartiles", "images/s"):
        table.add_column(title, justify="right")
    for lane in lanes:
        low, middle, high = lane.quartiles
        table.add_row(lane.name, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{1000 * images / middle:.1f}")
    Console().print(table)
    if output is not None:
        records = [{"name": lane.name, "ms": list(lane.ms)} for lane in lanes]
        write_json(output / f"{path.resolve().name}-b{images}.json", {"kind": "export race", "batch_size": images, "lanes": records})
