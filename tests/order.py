"""In which order tests run side by side.

pytest-xdist gives every worker an equal part of the list, in its order; who is done takes tests from the end of another's part.
"""

from collections.abc import Sequence
from itertools import islice

import pytest


def spread(items: Sequence[pytest.Item], *, workers: int) -> list[pytest.Item]:
    """`items` in as many equal parts as there are workers, each of which begins with its share of those marked slow.

    The slow tests of a file stay together, since they share what they prepare.
    """
    slow: dict[str, list[pytest.Item]] = {}  # by file
    quick = []
    for item in items:
        if item.get_closest_marker("slow"):
            slow.setdefault(item.nodeid.split("::")[0], []).append(item)
        else:
            quick.append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for some in sorted(slow.values(), key=len, reverse=True):
        min(parts, key=len).extend(some)
    rest, ordered = iter(quick), list[pytest.Item]()
    for i, part in enumerate(parts):
        size = (len(items) - len(ordered)) // (workers - i)  # as xdist cuts the list
        ordered += [*part, *islice(rest, max(0, size - len(part)))]
    return ordered
