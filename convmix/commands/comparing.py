"""Which model, and which part of it: compare, ablate. Both resume where they were interrupted."""

import shlex
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from convmix.commands.derived import QUIET, Changes, Work, command


@command(Work("comparison.compare", "compare"), Changes(also=(QUIET,)))
def compare(given: dict[str, Any]) -> None:
    """Train models under the same recipe and budget, and set their score against what they cost."""
    from convmix.comparison.compare import compare as compare_models
    from convmix.comparison.table import comparison_table

    console = Console(quiet=given.pop("quiet"))
    Console().print(comparison_table(_resumable(lambda: compare_models(given.pop("data"), **given, console=console))))


@command(Work("comparison.ablation", "ablate"), Changes(also=(QUIET,)))
def ablate(given: dict[str, Any]) -> None:
    """Change one thing at a time of a ConvMixer and its recipe, and measure what each change does to the score."""
    from convmix.comparison.ablation import ablate as ablate_model
    from convmix.comparison.table import ablation_table

    console = Console(quiet=given.pop("quiet"))
    Console().print(ablation_table(_resumable(lambda: ablate_model(given.pop("data"), **given, console=console))))


def _resumable(work: Callable[[], Any]) -> Any:
    """The result; after a signal the way to go on, and the signal's exit code."""
    from convmix.data.remote.urls import without_credentials
    from convmix.training.signals import Interrupted

    try:
        return work()
    except Interrupted as stop:
        print(f"{stop}\ngo on with: {shlex.join(['convmix', *map(without_credentials, sys.argv[1:])])}", file=sys.stderr)
        sys.exit(128 + stop.number)
