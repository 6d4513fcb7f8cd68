"""The command line: the verbs of `api.py` with the settings of `config.py` as options. Parse, call, print.

The options of `train` are generated from the fields of `config.Run`, so no option is written twice.
"""

import inspect
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console
from rich.markup import escape

from convmix.config import settings
from convmix.errors import ConfigError, ConvmixError, did_you_mean

app = App(
    name="convmix",
    help="The home of the convolutional mixers: ConvMixer, multi-scale ConvMixer, ConvMLP.",
    help_format="rich",
    result_action="return_value",
)
GROUPS = {
    "": "Run",
    "net": "Model",
    "data": "Data",
    "augment": "Augmentation",
    "optim": "Optimisation",
    "schedule": "Schedule",
}


def train(
    data: str,
    /,
    *,
    recipe: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    quiet: bool = False,
    **options: object,
) -> None:
    """Train a model and write its directory.

    Parameters
    ----------
    data:
        A folder with a folder per class, a CSV or parquet file, WebDataset shards, a Hub or torchvision name, or "digits".
    recipe:
        One of `convmix recipes`; its settings hold where no option says otherwise.
    out:
        The model directory to make; runs/NAME after the data set where it is left out.
    resume:
        Go on with the training in --out, with the settings it was started with.
    device:
        cpu, cuda or mps; the accelerator where there is one.
    quiet:
        Print nothing but errors.
    """
    from convmix import api
    from convmix.training.signals import Interrupted

    speaks = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one
    given = {key: value for key, value in options.items() if value is not None}
    try:
        run = api.train(data, recipe=recipe, out=out, resume=resume, device=device, quiet=quiet, **given)
    except Interrupted as stop:
        again = shlex.join(["convmix", "train", data, "--out", str(stop.out), "--resume"])
        if speaks:
            print(f"{stop}\nresume with: {again}", file=sys.stderr)
        sys.exit(128 + stop.number)
    if speaks and not quiet:
        _print_result(run)


def _print_result(run: Any) -> None:
    for split, scores in run.metrics.items():
        low, high = scores["accuracy_interval"]
        chosen = " (the epoch was chosen on it)" if split == "val" and run.keeps == "best" else ""
        print(
            f"{split} accuracy {scores['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}, "
            f"{scores['correct']} of {scores['n']} images{chosen}"
        )
    print(f"model directory: {run.path}")


def _with_settings(function: Any) -> Any:
    """`function` with an option per setting in the place of its `**options`."""
    fixed = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    groups = {section: Group(title, sort_key=i + 10) for i, (section, title) in enumerate(GROUPS.items())}
    options = []
    for s in settings():
        parameter = Parameter(help=s.help, group=groups[s.section], show_default=False)
        annotation: Any = Annotated[bool | None, parameter] if s.type is bool else Annotated[str | None, parameter]
        options.append(inspect.Parameter(s.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapper.__doc__, wrapper.__name__ = function.__doc__, function.__name__
    wrapper.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*fixed, *options]}
    return wrapper


app.command(_with_settings(train), name="train")


@app.command
def evaluate(
    run: Path,
    data: str | None = None,
    /,
    *,
    split: str = "test",
    output: Path | None = None,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
) -> None:
    """Score a model directory on its own test split, or on other labelled images.

    Parameters
    ----------
    run:
        A model directory.
    data:
        Labelled images in any form that `train` takes; the data set of the training where it is left out.
    split:
        train, val or test.
    output:
        The JSON file to write; into the model directory where it is left out.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where that ends sooner.
    """
    from convmix import evaluation

    result = evaluation.evaluate(
        run, data, split=split, output=output, batch_size=batch_size, device=device, precision=precision, optimize=optimize
    )
    Console().print(evaluation.table(result))


@app.command
def predict(
    run: Path,
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # so that - is one
    /,
    *,
    output: Path | None = None,
    format: str | None = None,
    top: int = 1,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "auto",
    optimize: str = "auto",
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
        table, csv, json, jsonl or parquet.
    top:
        How many labels per image.
    precision:
        auto, fp32, bf16, fp16 or int8.
    optimize:
        auto, always or never run the model in the fastest engine that `convmix optimize` finds; auto: where that ends sooner.
    """
    from convmix import prediction

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
        batch_size=batch_size,
        device=device,
        precision=precision,
        optimize=optimize,
    )
    if all(row.error for row in rows):
        sys.exit(1)


@app.command
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


@app.command
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
) -> None:
    """Measure models beside the official path and the fastest peers, in one run.

    Parameters
    ----------
    models:
        Names of `convmix models`.
    work:
        inference, training or both, as inference,training.
    batch_size:
        Images per batch; 8 for inference and 32 for training where it is left out.
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
        A folder for records (JSON) and pictures.
    """
    from convmix.benchmarking.measure import benchmark as measure

    if not models:
        raise ConfigError("benchmark needs the name of a model; `convmix models` lists them")
    measure(
        models, work=work, batch_size=batch_size, size=size, num_classes=num_classes, precision=precision, rounds=rounds, threads=threads,
        device=device, budget=budget, sweep=sweep, output=output, console=Console(),
        command=shlex.join(["convmix", *sys.argv[1:]]),
    )  # fmt: skip


@app.command
def describe(name: str, /, *, size: str = "224", num_classes: int = 1000, in_chans: int = 3, json: bool = False) -> None:
    """Parameters, true MACs, receptive field, stages and training memory of a model.

    Parameters
    ----------
    name:
        A convmix or timm model name.
    size:
        Input size in pixels, N or HxW.
    json:
        Print JSON instead of a table.
    """
    from convmix.config import Run, override
    from convmix.models.describe import describe as describe_model

    h_w = override(Run(), {"size": size}).data.size
    assert h_w is not None
    description = describe_model(name, size=h_w, num_classes=num_classes, in_chans=in_chans)
    if json:
        from json import dumps

        print(dumps(description.to_dict(), indent=2))
    else:
        print(description)


@app.command
def models(pattern: str = "*", /) -> None:
    """List the models of convmix (any timm name is accepted as well)."""
    from convmix.models.catalog import list_models

    print("\n".join(list_models(pattern)))


@app.command
def recipes() -> None:
    """List the recipes: where each comes from and what its source reports for it."""
    from convmix.data.facts import DataFacts
    from convmix.recipes import RECIPES, recipe

    for name in RECIPES:
        run = recipe(name, DataFacts(num_train=50_000, num_classes=10, height=224, width=224, in_chans=3))
        print(f"{name}\n  from: {run.source}" + (f"\n  reported there: {run.expect}" if run.expect else ""))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(arguments, error_console=errors, print_error=False, exit_on_error=False)
    except (ConvmixError, CycloptsError) as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
