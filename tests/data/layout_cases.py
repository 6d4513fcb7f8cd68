"""What people bring, and how it must be read: builders of data sets by kind, each with its expectation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Make = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    name: str
    make: Make
    expect: dict[str, Any] = field(default_factory=dict)  # fields of the Inspection; "note" and "error": a word that must be in one
    give: str = ""  # the path to give, below the data set
    settings: dict[str, Any] = field(default_factory=dict)


class Cases(list[Case]):
    """A list that functions are added to by decoration."""

    def __call__(self, *, give: str = "", settings: dict[str, Any] | None = None, **expect: Any) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            self.append(Case(make.__name__, make, expect, give, settings or {}))
            return make

        return add
