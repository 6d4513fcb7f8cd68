"""JSON that a program wrote and anybody may have changed since: read whole, and each value held against the type that the code expects.

path -> read_object -> {...} -> checked(value, int | None, where="state.step") -> the value, or a RunError that names it
"""

import dataclasses
import json
import math
import stat
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from convmix.errors import RunError, did_you_mean

T = TypeVar("T")
LARGEST_BYTES = 256 * 2**20  # a description of a hundred thousand classes has ten
_LARGEST_INT = 2**63
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "an object", list: "a list", tuple: "a list"}


def read_file(path: Path) -> bytes:
    """A regular file's bytes; FileNotFoundError where there is none, RunError where it is something else, too large or unreadable."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            raise RunError(f"{path} cannot be read: {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}")
        if found.st_size > LARGEST_BYTES:
            raise RunError(f"{path} has {found.st_size:,} bytes, expected less than {LARGEST_BYTES:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object, finite numbers alone. FileNotFoundError and RunError as `read_file`."""
    return parse_object(read_file(path), where=str(path))


def parse_object(text: str | bytes, *, where: str, finite: bool = True) -> dict[str, Any]:
    """The same from text, without `finite` with NaN and infinity; RunError, beginning with `where`."""
    try:
        value = json.loads(text, parse_constant=_no_constant if finite else None)
    except RecursionError:
        raise RunError(f"{where} is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise RunError(f"{where} is not valid JSON: {str(error)[:200]}") from None
    return checked(value, dict[str, Any], where=where)


def checked(value: object, hint: Any, *, where: str) -> Any:
    """`value` as the type says: int, float, bool, str, None, Any, unions, Literal, list, tuple, dict of these, and dataclasses of these.

    Whole numbers pass for floats, lists for tuples, objects for dataclasses. Raises RunError, beginning with `where`.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return checked(value, next(a for a in args if a is not type(None)), where=where)
    if origin is Literal:
        if not isinstance(value, (str, int)) or value not in args:
            _refuse(value, "one of " + ", ".join(map(str, args)) + did_you_mean(str(value), map(str, args)), where)
        return value
    if origin is dict and isinstance(value, Mapping):
        return {_key(k, where): checked(v, args[1], where=f"{where}.{k}") for k, v in value.items()}
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return _sequence(value, origin, args, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _dataclass(value, typing.cast(Any, hint), where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) <= _LARGEST_INT or (isinstance(value, float) and not math.isfinite(value)):
            return float(value)
        _refuse(value, "a smaller number", where)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < _LARGEST_INT:
            return value
        _refuse(value, "a smaller number", where)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    return _refuse(value, _WORDS.get(origin if origin in _WORDS else hint, "an object"), where)


def shown(value: object, *, at_most: int = 200) -> str:
    """The value in a message: its first characters; Python writes out no number of thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**60:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= at_most else f"{text[:at_most]}..."


def fields_of(cls: type, values: object, *, where: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The arguments of a dataclass from JSON, those known and given; RunError for a value of another type."""
    hints = typing.get_type_hints(cls)
    given = checked(values, dict[str, Any], where=where)
    names = [f.name for f in dataclasses.fields(cls) if f.name in given and f.name not in without]
    return {name: checked(given[name], hints[name], where=f"{where}.{name}") for name in names}


def _dataclass(values: Mapping[str, Any], cls: type, where: str) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise RunError(f"{where}: unknown key {str(key)[:100]}{did_you_mean(str(key), known)}")
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise RunError(f"{where} has no {', '.join(missing)}")
    return cls(**fields_of(cls, values, where=where))


def _sequence(value: Any, origin: type, args: tuple[Any, ...], where: str) -> Any:
    if origin is tuple and args[-1] is not Ellipsis:
        if len(value) != len(args):
            _refuse(value, f"{len(args)} values", where)
        return tuple(checked(v, a, where=f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    return origin(checked(v, args[0], where=f"{where}[{i}]") for i, v in enumerate(value))


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise RunError(f"{where}: the key {key!r} is not text")
    return key


def _refuse(value: object, expected: str, where: str) -> Any:
    raise RunError(f"{where}: {shown(value, at_most=60)} is not {expected}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
