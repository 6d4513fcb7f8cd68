"""A user's words as values of a setting's type: text from a command line, lists from JSON, values from Python."""

import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from convmix.errors import did_you_mean


def as_type(hint: Any, value: Any) -> Any:
    """`value`, perhaps text or a list, as the type; TypeError, ValueError or OverflowError where it is none."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return as_type(next(a for a in args if a is not type(None)), value)
    if origin is Literal:
        if isinstance(value, bool) and "yes" in args:  # as runs of earlier versions have it, and Python's users
            return "yes" if value else "no"
        if value not in args:
            raise ValueError
        return value
    if origin is tuple:
        return _as_tuple(args, value)
    if hint is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        return word in ("true", "yes", "1") if word in ("true", "false", "yes", "no", "1", "0") else _refuse()
    if isinstance(value, bool):
        raise TypeError
    if hint is int:
        number = float(value)
        return int(number) if number.is_integer() else _refuse()
    if hint is float:
        return float(value)
    if isinstance(value, Mapping):  # model_args from Python
        return json.dumps(value)
    return value if isinstance(value, str) else _refuse()


def _as_tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    parts = re.split(r"[x,\s]+", value.strip(" ()[]")) if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, (int, float)) else list(parts)
    if args[-1] is Ellipsis:
        return tuple(as_type(args[0], p) for p in parts)
    if len(parts) == 1 and args == (int, int):  # size=224 is 224x224; a range such as scale=0.5,1 has two ends
        parts = parts * len(args)
    if len(parts) != len(args):
        raise ValueError
    return tuple(as_type(a, p) for a, p in zip(args, parts, strict=True))


def _refuse() -> Any:
    raise ValueError


def expected(hint: Any) -> str:
    """What a value of the type is, for people."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return expected(next(a for a in args if a is not type(None))) + " or none"
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return "a list of numbers" if args[-1] is Ellipsis else f"{len(args)} numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]


def near_choice(hint: Any, value: object) -> str:
    """ ", did you mean X?" for the nearest choice of the type, or nothing."""
    choices = [c for a in (hint, *typing.get_args(hint)) if typing.get_origin(a) is Literal for c in typing.get_args(a)]
    return did_you_mean(str(value), choices)
