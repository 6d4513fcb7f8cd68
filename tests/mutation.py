"""One fault put into the code on purpose, and the tests that should notice it; `mutations.py` applies those of the tables."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A change of one line of `file`, in which `old` stands exactly once."""

    name: str
    file: str  # below convmix/
    old: str
    new: str
    tests: str  # below tests/: files and node ids, as a shell would split them; narrow, since all of them are run
    why: str = ""  # what users would see, where the lines do not tell

    def __post_init__(self) -> None:
        if "\n" in self.old + self.new or self.old == self.new or not self.tests:
            raise ValueError(f"{self.name}: expected one line, another one in its place, and tests")

    @property
    def folder(self) -> str:
        """Of convmix/, as totals are counted."""
        return self.file.rpartition("/")[0].split("/")[0] or "(loose)"

    @property
    def node_ids(self) -> tuple[str, ...]:
        """What pytest is asked for."""
        return tuple(f"tests/{test}" for test in shlex.split(self.tests))
