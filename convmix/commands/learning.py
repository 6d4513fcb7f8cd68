"""`convmix train`: its options are generated from the fields of `config.Run`, so no option is written twice."""

import functools
import inspect
import os
import shlex
import sys
import types
import typing
from collections.abc import Collection
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from convmix.commands.derived import Work, command
from convmix.config import Run, Setting, settings
from convmix.data.remote.urls import without_credentials

FIRST = Group("Most used", sort_key=9)
MOST_USED = (
    "model", "epochs", "budget", "size", "batch_size", "lr", "pretrained", "weights", "freeze", "task", "layout", "fit", "val_fraction",
    "test_fraction", "image_column", "label_column", "workers", "precision", "seed", "tracker",
)  # fmt: skip
ALL_OPTIONS = "--help-all"
GROUPS = {
    "": "Run",
    "net": "Model",
    "dense": "Detection and segmentation",
    "data": "Data",
    "augment": "Augmentation",
    "optim": "Optimisation",
    "schedule": "Schedule",
}


@command(Work("api", "train"))
def train(given: dict[str, Any]) -> None:
    """Train a model and write its directory."""
    from convmix import api
    from convmix.training.signals import Interrupted

    speaks = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one
    data, quiet = given.pop("data"), given.get("quiet", False)
    try:
        run = api.train(data, **given)
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


def with_settings(function: Any, *, without: Collection[str] = (), shows_all: bool = False) -> Any:
    """`function` with an option per setting in the place of its `**options`; not for those it has itself, nor those named in `without`.

    The help shows the settings of `MOST_USED`, or all of them.
    """
    fixed = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    taken = {*without, *(p.name for p in fixed)}
    groups = {section: Group(title, sort_key=i + 10) for i, (section, title) in enumerate(GROUPS.items())}
    options = []
    for s in settings():
        if s.name not in taken:
            often = s.name in MOST_USED
            parameter = _option(s, FIRST if often and not shows_all else groups[s.section], shown=often or shows_all)
            annotation: Any = Annotated[bool | None, parameter] if s.type is bool else Annotated[str | None, parameter]
            options.append(inspect.Parameter(s.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    hidden = 0 if shows_all else sum(o.name not in MOST_USED for o in options)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    more = f"\n\n{ALL_OPTIONS} shows {hidden} more options." if hidden else ""
    first, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n")
    wrapper.__doc__, wrapper.__name__ = f"{first}{more}\n{rest}", function.__name__
    wrapper.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*fixed, *options]}
    return wrapper


def _option(s: Setting, group: Group, *, shown: bool) -> Parameter:
    """Its type, choices and default are words in the help alone: the value goes on as text, and `config.override` has better errors."""
    kind, choices = _kind(s.type)
    said = f"{s.help} (choices: {', '.join(map(str, choices))})" if choices else s.help
    return Parameter(help=said, group=group, show=shown, show_default=lambda _: _left_out(s), metavar=kind)


def _kind(type_: Any) -> tuple[str | None, tuple[Any, ...]]:
    """What the help calls a type, and its choices: int -> INT; two numbers in one word -> N,N; None where the option is a switch."""
    part = next((a for a in typing.get_args(type_) if a is not type(None)), type_) if typing.get_origin(type_) is types.UnionType else type_
    if typing.get_origin(part) is Literal:
        return "CHOICE", typing.get_args(part)
    if typing.get_origin(part) is tuple:
        *numbers, last = typing.get_args(part)
        return ("N,N,..." if last is Ellipsis else ",".join("N" for _ in [*numbers, last])), ()
    return None if part is bool else part.__name__.upper(), ()


@functools.cache
def _of_recipes() -> frozenset[str]:
    """Paths of settings that any recipe sets."""
    from convmix import recipes
    from convmix.data.facts import DataFacts

    facts = DataFacts(num_train=1000, num_classes=10, height=224, width=224, in_chans=3, model=None)
    usual = _values(Run())
    return frozenset(
        path for name in recipes.RECIPES for path, value in _values(recipes.recipe(name, facts)).items() if value != usual[path]
    )


def _values(run: Run) -> dict[str, Any]:
    return {s.path: getattr(getattr(run, s.section) if s.section else run, s.name) for s in settings()}


def _left_out(s: Setting) -> str | None:
    """What holds without the option, for the help."""
    if s.path in _of_recipes():
        return "recipe"
    value = _values(Run())[s.path]
    return None if value is None or value == "" else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
