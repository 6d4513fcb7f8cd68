"""Which model, and which part of it: compare, ablate. Both resume where they were interrupted."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

Several = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]


def compare(
    data: str,
    /,
    *,
    models: Several = None,
    recipe: str | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    out: Path | None = None,
    device: str | None = None,
    quiet: bool = False,
    **options: object,
) -> None:
    """Train models under the same recipe and budget, and set their accuracy against what they cost.

    Parameters
    ----------
    data:
        As `train` takes it; the splits are made once, the same for everyone.
    models:
        Names of `convmix models` or of timm, one after the other; convmix's families and five of timm's where it is left out.
    recipe:
        One of `convmix recipes`, for all.
    budget:
        Equal time: wall-clock time of every training, such as 10m.
    epochs:
        Equal epochs: of every training; the recipe's where both are left out.
    seeds:
        Trainings per model.
    out:
        The folder; runs/compare-NAME where it is left out. Running the same command again resumes where it was interrupted.
    device:
        cpu, cuda or mps; the accelerator where there is one.
    quiet:
        Print nothing but the table and errors.
    """
    from convmix.comparison.compare import compare as compare_models
    from convmix.comparison.table import comparison_table

    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    result = _resumable(
        lambda: compare_models(
            data,
            models=models or (),
            recipe=recipe,
            budget=budget,
            epochs=epochs,
            seeds=seeds,
            out=out,
            device=device,
            console=Console(quiet=quiet),
            **given,
        )
    )
    Console().print(comparison_table(result))


def ablate(
    data: str,
    /,
    *,
    model: str = "convmixer_256_8",
    axes: Several = None,
    equal: str = "macs",
    recipe: str | None = None,
    budget: str | None = None,
    epochs: int | None = None,
    seeds: int = 3,
    images: int | None = None,
    out: Path | None = None,
    device: str | None = None,
    quiet: bool = False,
    **options: object,
) -> None:
    """Change one thing at a time of a ConvMixer and its recipe, and measure what each change does to the accuracy.

    Parameters
    ----------
    data:
        As `train` takes it; the splits are made once, the same for everyone.
    model:
        The base, a ConvMixer by its size.
    axes:
        What is varied, one after the other: patch, kernel, depth, residual, norm, act, scales, augment; all where it is left out.
    equal:
        What all trainings have in common: macs (multiply-adds, by the width, and epochs), time (--budget) or epochs.
    recipe:
        One of `convmix recipes`, for all.
    budget:
        Wall-clock time of every training, with --equal time.
    epochs:
        Of every training; the recipe's where it is left out.
    seeds:
        Trainings per change.
    images:
        Train on so many images, every class in proportion; all where it is left out.
    out:
        The folder; runs/ablate-NAME where it is left out. Running the same command again resumes where it was interrupted.
    device:
        cpu, cuda or mps; the accelerator where there is one.
    quiet:
        Print nothing but the table and errors.
    """
    from convmix.comparison.ablation import ablate as ablate_model
    from convmix.comparison.table import ablation_table

    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if axes:
        given["axes"] = axes
    result = _resumable(
        lambda: ablate_model(
            data,
            model=model,
            equal=equal,
            recipe=recipe,
            budget=budget,
            epochs=epochs,
            seeds=seeds,
            images=images,
            out=out,
            device=device,
            console=Console(quiet=quiet),
            **given,
        )
    )
    Console().print(ablation_table(result))


def _resumable(work: Callable[[], Any]) -> Any:
    """The result; after a signal the way to go on, and the signal's exit code."""
    from convmix.data.remote.urls import without_credentials
    from convmix.training.signals import Interrupted

    try:
        return work()
    except Interrupted as stop:
        print(f"{stop}\ngo on with: {shlex.join(['convmix', *map(without_credentials, sys.argv[1:])])}", file=sys.stderr)
        sys.exit(128 + stop.number)
