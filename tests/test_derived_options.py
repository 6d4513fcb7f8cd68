"""The command line and the Python functions have the same options, of the same types, with the same defaults, and help for each."""

import inspect
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import convmix
from convmix.cli import build
from convmix.commands.derived import OURS, Changes, Work, constant, said_of
from convmix.config import settings
from convmix.inference.output_forms import FOLDERS, FORMATS

VERBS = (
    "train", "predict", "embed", "evaluate", "calibrate", "explain", "compare", "ablate", "doctor", "optimize", "benchmark", "export",
    "serve", "batch-predict", "push", "pull",
)  # fmt: skip
BY_HAND = {"inspect", "describe", "models", "recipes"}  # inspect takes settings of the data by name, the others print lists and numbers
OLDER = {  # spelling of earlier versions -> verb
    "--batch-size": "optimize", "--budget": "optimize", "--weights": "embed", "--allow-origin": "serve", "--allow-host": "serve",
    "--public": "push",
}  # fmt: skip


@pytest.fixture(scope="module")
def app() -> App:
    return build(shows_all=True)


def verb(app: App, name: str) -> Any:
    return app[name].default_command


def work_of(command: Any) -> tuple[Work, Changes]:
    while not hasattr(command, "work"):
        command = command.__wrapped__ if hasattr(command, "__wrapped__") else command.__closure__[0].cell_contents
    return command.work, command.changes


def test_every_verb_is_derived_or_known_not_to_be(app: App) -> None:
    names = {name for name in app if not name.startswith("-")} - {"install-completion"}
    assert names == {*VERBS, *BY_HAND}
    public = {name.replace("_", "-") for name in convmix.__all__} & names
    assert public - BY_HAND == set(VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_command_has_the_options_of_its_function(name: str, app: App) -> None:
    work, changes = work_of(verb(app, name))
    function = getattr(import_module(f"convmix.{work.module}"), work.function)
    assert function is getattr(convmix, name.replace("-", "_"))
    signature = inspect.signature(function)
    api = {
        p.name: p
        for p in signature.parameters.values()
        if p.kind is not p.VAR_KEYWORD and not any(word in str(p.annotation) for word in OURS) and p.name not in changes.without
    }
    assert [p.name for p in work.parameters if p.name not in changes.without] == list(api)
    parsed = {a.name: a for a in app[name].assemble_argument_collection()}
    flags = {flag for argument in parsed.values() for flag in (*argument.names, *argument.negatives)}
    for p in api.values():
        if p.kind is not p.KEYWORD_ONLY:
            continue
        assert f"--{p.name.replace('_', '-')}" in flags
        described = next(d for d in work.parameters if d.name == p.name)
        assert described.default == p.default or (described.default is None and not isinstance(p.default, (bool, int, float, str)))
        option = inspect.signature(verb(app, name)).parameters[p.name]
        if p.name not in changes.types:
            asked = typing.get_args(option.annotation)[0]
            assert same_kind(asked, p.annotation), (p.name, asked, p.annotation)
    known = {*api, *(a.name for a in changes.also), *(s.name for s in settings())}
    assert {p for p in inspect.signature(verb(app, name)).parameters if p != "options"} <= known


def same_kind(asked: Any, annotation: Any) -> bool:
    """Whether what cyclopts reads is among what the function takes."""
    kinds = [k for k in (typing.get_args(asked) or (asked,)) if k is not type(None)]
    taken = str(annotation)
    return all(k.__name__ in taken or ((typing.get_origin(k) or k) is list and "Sequence" in taken) for k in kinds) or "Sequence" in taken


def test_the_verbs_written_by_hand_follow_their_functions_too(app: App) -> None:
    asked = {p.name for p in inspect.signature(verb(app, "inspect")).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert asked - {"format"} <= {s.name for s in settings()}
    of_command, of_function = (inspect.signature(f).parameters for f in (verb(app, "describe"), convmix.describe))
    assert set(of_command) - {"json"} == set(of_function) - {"model_args"}
    assert {name: str(of_command[name].default) for name in of_function if name in of_command} == {
        name: str(p.default) for name, p in of_function.items() if name in of_command
    }


@pytest.mark.parametrize("name", VERBS)
def test_every_option_says_what_it_is(name: str, app: App) -> None:
    silent = [a.name for a in app[name].assemble_argument_collection() if not (a.parameter.help or "").strip()]
    assert not silent


def test_the_older_spellings_still_work(app: App) -> None:
    for flag, name in OLDER.items():
        flags = {flag for a in app[name].assemble_argument_collection() for flag in (*a.names, *a.negatives)}
        assert flag in flags


def test_the_formats_of_predict_are_all_that_there_are(app: App) -> None:
    (option,) = [a for a in app["predict"].assemble_argument_collection() if "--format" in a.names]
    said = str(option.parameter.help).rpartition("choices: ")[2].rstrip(")").split(", ")
    assert set(said) == {form for forms in FORMATS.values() for form in forms}


def test_only_what_was_typed_reaches_the_function(app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got: list[Any] = []

    def fake(*args: Any, **kwargs: Any) -> list[Any]:
        got.append((args, kwargs))
        raise StopAsyncIteration  # nothing that the command line knows

    monkeypatch.setattr("convmix.inference.prediction.predict", fake)
    with pytest.raises(StopAsyncIteration):
        app(["predict", str(tmp_path), "a.jpg", "--top", "2", "--no-recursive"], exit_on_error=False, print_error=False)
    assert got == [((tmp_path, ["a.jpg"]), {"output": "-", "top": 2, "recursive": False})]


def test_what_a_docstring_says_of_each_parameter() -> None:
    text = """Does something.

    one: the first, on
    two lines. two, three: both; None: nothing.
    four: `convmix.predict` takes it.

    five: no parameter. Raises nothing.
    """
    said = said_of(["one", "two", "three", "four"], inspect.cleandoc(text))
    assert said == {
        "one": "The first, on two lines.", "two": "both; left out: nothing.", "three": "both; left out: nothing.",
        "four": "`convmix predict` takes it.",
    }  # fmt: skip


def test_constants_are_read_without_their_modules() -> None:
    assert set(constant("inference.output_forms", "FORMATS")) == {form for forms in FORMATS.values() for form in forms}
    assert constant("inference.output_forms", "FOLDERS") == FOLDERS
    assert constant("api", "BATCH") == 32
    with pytest.raises(LookupError):
        constant("api", "NOTHING")
