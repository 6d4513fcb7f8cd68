"""What a trained model is for: predict; and how fast it is: optimize, benchmark."""

import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from convmix.artifacts.runtime import digests
from convmix.commands.derived import VERIFY, Also, Changes, Work, command, constant
from convmix.errors import ConfigError, did_you_mean

_PREDICT = Work("inference.prediction", "predict")


def _formats() -> tuple[str, ...]:
    found: tuple[str, ...] = constant("inference.output_forms", "FORMATS")
    return found


@command(_PREDICT, Changes(also=(VERIFY,), choices={"format": _formats}))
def predict(given: dict[str, Any]) -> None:
    """Label images, or find their objects or the class of every pixel, as the model's task is."""
    if not given.pop("verify"):
        digests.skip()
    files = given.pop("files")
    for name in files:
        if name.startswith("--") and not Path(name).exists():
            options = [f"--{p.name.replace('_', '-')}" for p in _PREDICT.parameters]
            raise ConfigError(f"unknown option {name}{did_you_mean(name, options)}")
    rows = _PREDICT(given.pop("run"), files, **{"output": "-", **given})
    if all(row.error for row in rows):
        sys.exit(1)


@command(
    Work("api", "optimize"),
    Changes(
        aliases={"sizes": "--batch-size", "budget_s": "--budget"},
        types={"budget_s": str},
        help={
            "model_or_run": "A model directory.",
            "sizes": "Images that are computed at once; leave it as it is for `predict` and `evaluate`.",
            "budget_s": "No further engine is begun after this time, such as 90s or 10m.",
        },
    ),
)
def optimize(given: dict[str, Any]) -> None:
    """Find the fastest engine for a model on this machine; `predict` and `evaluate` use it from then on."""
    from convmix import api
    from convmix.config import parse_duration
    from convmix.speed.report import table

    if "budget_s" in given:
        given["budget_s"] = parse_duration(given["budget_s"])
    Console().print(table(api.optimize(given.pop("model_or_run"), **given).report))


@command(
    Work("benchmarking.measure", "benchmark"),
    Changes(
        also=(
            Also(
                "share", bool, False,
                "Check and time the GPU kernels on this machine's card, without models, and write a record to send back; it names no user, "
                "no machine and no path.",
            ),
        ),
        defaults={"models": ()},
        without=("command",),
        help={"models": "Names of `convmix models`; or one exported model, which is measured beside the run that it came from."},
    ),
)  # fmt: skip
def benchmark(given: dict[str, Any]) -> None:
    """Measure models beside the official path and the fastest peers, in one run."""
    from convmix.artifacts.runtime.exported import is_exported
    from convmix.benchmarking.measure import ROUNDS
    from convmix.benchmarking.measure import benchmark as measure
    from convmix.commands.exporting import race_exported

    models = given.pop("models", [])
    if given.pop("share"):
        from convmix.benchmarking.card_record import share as share_card

        if models:
            raise ConfigError(f"--share measures the GPU kernels and takes no models, got {', '.join(models)}; leave them or --share out")
        share_card(given.get("output"), device=given.get("device"), console=Console())
        return
    if len(models) == 1 and is_exported(Path(models[0])):
        race_exported(
            Path(models[0]), batch_size=given.get("batch_size"), size=given.get("size"), rounds=given.get("rounds", ROUNDS),
            threads=given.get("threads"), output=given.get("output"),
        )  # fmt: skip
        return
    if not models:
        raise ConfigError("benchmark needs the name of a model; `convmix models` lists them")
    measure(models, **given, console=Console(), command=shlex.join(["convmix", *sys.argv[1:]]))
