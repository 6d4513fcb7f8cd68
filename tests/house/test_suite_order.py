"""The order in which the suite runs side by side."""

from dataclasses import dataclass

import pytest

from tests.order import spread


@dataclass(frozen=True)
class Item:
    """What the order is made of."""

    nodeid: str
    marks: tuple[str, ...] = ()

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


SLOW = ("slow",)
QUICK = [Item(f"tests/test_quick.py::test_{i}") for i in range(41)]
LONG = [Item(f"tests/test_long_{file}.py::test_{i}", SLOW) for file, count in enumerate((7, 5, 4, 1)) for i in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_every_worker_begins_with_its_share_of_what_is_slow(workers: int) -> None:
    items = [*QUICK[:20], *LONG, *QUICK[20:]]
    ordered = spread(items, workers=workers)
    assert sorted(item.nodeid for item in ordered) == sorted(item.nodeid for item in items)
    parts, rest = [], list(ordered)
    for i in range(workers):  # as xdist cuts them
        size = len(rest) // (workers - i)
        parts.append(rest[:size])
        rest = rest[size:]
    for part in parts:
        kinds = ["slow" in item.marks for item in part]
        assert kinds == sorted(kinds, reverse=True) and any(kinds)
    files = [[item.nodeid.split("::")[0] for item in part if item.marks == SLOW] for part in parts]
    assert sum(len(set(names)) for names in files) == 4  # the tests of a file stay together


def test_more_slow_tests_than_a_part_holds_lose_none() -> None:
    items = [*LONG, QUICK[0]]
    assert sorted(i.nodeid for i in spread(items, workers=4)) == sorted(i.nodeid for i in items)
