"""`convmix train`: its options are generated from the fields of `config.Run`, so no option is written twice."""

import inspect
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from convmix.config import settings
from convmix.data.remote.urls import without_credentials

GROUPS = {
    "": "Run",
    "net": "Model",
    "dense": "Detection and segmentation",
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
    autoresume: bool = False,
    device: str | None = None,
    quiet: bool = False,
    **options: object,
) -> None:
    """Train a model and write its directory.

    Parameters
    ----------
    data:
        A folder with a folder per class, a CSV or parquet file, WebDataset shards (also behind a URL), a Hub or torchvision name,
        or "digits". With --resume the model directory alone is enough.
    recipe:
        One of `convmix recipes`; its settings hold where no option says otherwise.
    out:
        The model directory to make; runs/NAME after the data set where it is left out.
    resume:
        Go on with the training in --out, with the settings it was started with; a larger --epochs extends it.
    autoresume:
        --resume where --out holds a training, else begin one: the command for machines that may be taken away and given back.
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
        run = api.train(data, recipe=recipe, out=out, resume=resume, autoresume=autoresume, device=device, quiet=quiet, **given)
    except Interrupted as stop:
        again = shlex.join(["convmix", "train", without_credentials(data), "--out", str(stop.out), "--resume"])
        if speaks:
            print(f"{stop}\nresume with: {again}", file=sys.stderr)
        sys.exit(128 + stop.number)
    if speaks and not quiet:
        _print_result(run)


def _print_result(run: Any) -> None:
    for split, scores in run.metrics.items():
        chosen = " (the epoch was chosen on it)" if split == "val" and run.keeps == "best" and run.stopped != "head" else ""
        print(f"{split} {run.task.sentence(scores)}{chosen}")
    print(f"model directory: {run.path}")


def with_settings(function: Any, *, without: Collection[str] = ()) -> Any:
    """`function` with an option per setting in the place of its `**options`; not for those it has itself, nor those named in `without`."""
    fixed = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    taken = {*without, *(p.name for p in fixed)}
    groups = {section: Group(title, sort_key=i + 10) for i, (section, title) in enumerate(GROUPS.items())}
    options = []
    for s in settings():
        if s.name in taken:
            continue
        parameter = Parameter(help=s.help, group=groups[s.section], show_default=False)
        annotation: Any = Annotated[bool | None, parameter] if s.type is bool else Annotated[str | None, parameter]
        options.append(inspect.Parameter(s.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapper.__doc__, wrapper.__name__ = function.__doc__, function.__name__
    wrapper.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*fixed, *options]}
    return wrapper
