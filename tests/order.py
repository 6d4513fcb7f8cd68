"""In which order tests run side by side.

pytest-xdist gives every worker an equal part of the list, in its order; who is done takes tests from the end of another's part.
"""

from collections.abc import Sequence
from itertools import islice

import pytest

ALONE = 5  # slow tests that take as long as one marked alone


def spread(items: Sequence[pytest.Item], *, workers: int) -> list[pytest.Item]:
    """`items` in as many equal parts as there are workers: the first begins with those marked alone, each goes on with its share of those
    marked slow, and ends with the others.

    Tests marked alone start processes of their own, and share them: in one worker, so one at a time, and at the front, where nobody takes
    them away. The slow tests of a file stay together, since they share what they prepare.
    """
    alone = [item for item in items if item.get_closest_marker("alone")]
    slow: dict[str, list[pytest.Item]] = {}  # by file
    quick = []
    for item in items:
        if item.get_closest_marker("alone"):
            continue
        if item.get_closest_marker("slow"):
            slow.setdefault(item.nodeid.split("::")[0], []).append(item)
        else:
            quick.append(item)
    parts: list[list[pytest.Item]] = [alone, *([] for _ in range(workers - 1))]
    weights = [ALONE * len(alone), *([0] * (workers - 1))]
    for some in sorted(slow.values(), key=len, reverse=True):
        least = weights.index(min(weights))
        parts[least] += some
        weights[least] += len(some)
    rest, ordered = iter(quick), list[pytest.Item]()
    for i, part in enumerate(parts):
        size = (len(items) - len(ordered)) // (workers - i)  # as xdist cuts the list
        ordered += [*part, *islice(rest, max(0, size - len(part)))]
    return ordered
