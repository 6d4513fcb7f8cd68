"""The cells of a label column: one label each, or several.

'rust' | 'rust scab' | 'rust|scab' | 'rust;scab' | '["rust", "scab"]'. A space or a comma may be part of a class's name, so cells are split
at one only where their parts are labels of their own in other cells.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MARKS = ("|", ";", ",", " ")  # the surest first
SURE = ("|", ";")
PLURALS = frozenset({"labels", "tags", "classes", "categories", "attributes", "findings", "finding_labels", "diseases", "species_list"})


@dataclass(frozen=True)
class LabelSet:
    """The labels of one image, where an image may have several or none."""

    present: tuple[str, ...]
    unknown: tuple[str, ...] = ()  # labels of which nobody said whether the image has them


def separator(cells: Sequence[str], header: str) -> str | None:
    """What stands between the labels of a cell: one of MARKS, "[" for lists; None where every cell is one label."""
    filled = [cell for cell in cells if cell]
    if filled and 2 * sum(_as_list(cell) is not None for cell in filled) > len(filled):
        return "["
    for mark in MARKS:
        several = [cell for cell in filled if len(_split(cell, mark)) > 1]
        if several and (mark in SURE or _are_labels(filled, several, mark, plural=plain_header(header) in PLURALS)):
            return mark
    return None


def plain_header(header: str) -> str:
    return re.sub(r"[\s-]+", "_", header.strip().lower())


def _are_labels(filled: Sequence[str], several: Sequence[str], mark: str, *, plural: bool) -> bool:
    """Whether the parts of cells are labels of their own."""
    alone = {cell for cell in filled if len(_split(cell, mark)) == 1}
    if all(part in alone for cell in several for part in _split(cell, mark)):
        return True
    distinct = {tuple(sorted(_split(cell, mark))) for cell in filled}
    uses = Counter(part for cell in distinct for part in set(cell))
    recurring = all(part in alone or uses[part] > 1 for cell in several for part in _split(cell, mark))
    return recurring and len(uses) < len(distinct) and (plural or mark == ",")


def split_cell(cell: str, mark: str) -> tuple[str, ...]:
    if mark == "[":
        listed = _as_list(cell)
        return (cell,) if listed is None and cell else tuple(dict.fromkeys(listed or ()))
    return tuple(dict.fromkeys(_split(cell, mark)))


def _split(cell: str, mark: str) -> list[str]:
    return [part.strip() for part in (cell.split() if mark == " " else cell.split(mark)) if part.strip()]


def _as_list(cell: str) -> list[str] | None:
    if not (cell.startswith(("[", "(", "{")) and cell.endswith(("]", ")", "}"))):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple | set) and all(isinstance(v, str | int) for v in value):
            return [str(v).strip() for v in value]
    return None


def one_hot(header: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether columns hold nothing but 0, 1, and -1 or nothing for unknown."""
    return (
        len(header) > 1
        and all(cell in HOT for column in columns for cell in column)
        and any(HOT[c] == 1 for col in columns for c in col if c)
    )


HOT = {
    "0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0, "True": 1, "False": 0, "TRUE": 1, "FALSE": 0, "": None, "-1": None,
    "-1.0": None, "nan": None, "NaN": None, "yes": 1, "no": 0, "Yes": 1, "No": 0, "YES": 1, "NO": 0, "y": 1, "n": 0, "Y": 1, "N": 0,
}  # fmt: skip
MINUS = ("-1", "-1.0")


def minus_is_no(columns: Sequence[Sequence[str]]) -> bool:
    """Whether -1 says no, as it does where nothing but 1 and -1 is written; beside 0 it says that nobody knows."""
    held = {cell for column in columns for cell in column}
    return bool(held & {*MINUS}) and not any(HOT.get(cell) == 0 for cell in held)


def hot_labels(header: Sequence[str], cells: Sequence[str], *, minus: bool = False) -> LabelSet:
    """minus: -1 says no."""
    values = [0 if minus and cell in MINUS else HOT[cell] for cell in cells]
    present = tuple(name for name, value in zip(header, values, strict=True) if value == 1)
    return LabelSet(present, tuple(name for name, value in zip(header, values, strict=True) if value is None))
