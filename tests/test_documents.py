"""What is read from JSON has the type that is expected, or is refused by name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from convmix import documents
from convmix.atomic import write_json
from convmix.documents import checked, fields_of, parse_object, read_object
from convmix.errors import RunError


@dataclass(frozen=True)
class Inner:
    name: str
    sizes: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rows: list[dict[str, float]]
    kind: Literal["a", "b"] = "a"
    note: str | None = None


def test_values_of_the_right_type_are_taken() -> None:
    read = checked({"inner": {"name": "x", "sizes": [3, 4]}, "rows": [{"a": 1}], "note": None}, Outer, where="file")
    assert read == Outer(Inner("x", (3, 4)), [{"a": 1.0}])
    assert fields_of(Outer, {"kind": "b", "unknown": 1}, where="file") == {"kind": "b"}
    assert checked(float("inf"), float, where="x") == float("inf")  # where a file may hold it


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ("1", int, "x: '1' is not a whole number"),
        (1.5, int, "x: 1.5 is not a whole number"),
        (True, int, "x: True is not a whole number"),
        (True, float, "x: True is not a number"),
        (10**400, float, "is not a smaller number"),
        (2**70, int, "is not a smaller number"),
        (1, bool, "x: 1 is not true or false"),
        (None, str, "x: None is not text"),
        ("ab", list[str], "x: 'ab' is not a list"),
        ("ab", tuple[str, ...], "x: 'ab' is not a list"),
        ([1, 2, 3], tuple[int, int], r"x: \[1, 2, 3\] is not 2 values"),
        (["a", 1], list[str], r"x\[1\]: 1 is not text"),
        ([], dict[str, Any], r"x: \[\] is not an object"),
        ({"a": {"b": "c"}}, dict[str, dict[str, int]], "x.a.b: 'c' is not a whole number"),
        ("c", Literal["a", "b"], "x: 'c' is not one of a, b"),
        ([["a"]], Literal["a", "b"], "is not one of a, b"),
        ({"name": "n", "sizes": [1, "2"]}, Inner, r"x.sizes\[1\]: '2' is not a whole number"),
        ({"nmae": "n"}, Inner, "x: unknown key nmae, did you mean name"),
        ({}, Inner, "x has no name"),
        ("y" * 1000, int, r"x: 'y{59}\.\.\. is not"),
    ],
)
def test_values_of_another_type_are_refused_by_name(value: object, hint: Any, words: str) -> None:
    with pytest.raises(RunError, match=words) as error:
        checked(value, hint, where="x")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[1]", r"file: \[1\] is not an object"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    ],
)
def test_text_that_is_no_object_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(RunError, match=words):
        parse_object(text, where="file")


@pytest.mark.timeout(30)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, words in (("pipe", "not a regular file"), ("device", "not a regular file"), (".", "a folder")):
        with pytest.raises(RunError, match=words):
            read_object(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "nothing")


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGEST_BYTES", 5)
    (tmp_path / "a").write_text('{"a": 1}')
    with pytest.raises(RunError, match="has 8 bytes, expected less than 5"):
        read_object(tmp_path / "a")


@pytest.mark.parametrize("value", [None, "x", [1], 3])
def test_a_section_of_settings_that_is_none_is_said(value: object) -> None:
    from convmix.config import from_dict
    from convmix.errors import ConfigError

    with pytest.raises(ConfigError, match=r"optim: .* is not an object of settings"):
        from_dict({"optim": value})


def test_half_a_surrogate_pair_is_written_as_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\\ud800b"}')
    value = read_object(tmp_path / "a.json")
    write_json(tmp_path / "b.json", value)
    assert read_object(tmp_path / "b.json") == value == {"a": "\ud800b"}
