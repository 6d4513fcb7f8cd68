"""A process that looks at images and stops for ever costs the image that it was at, and no more."""

import os
import signal
import sys
from typing import Any, cast

import pytest

from convmix.data import parallel_map
from convmix.data.examples import Examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked processes")


def look(examples: Examples, i: int) -> str:
    if i == 5:
        os.kill(os.getpid(), signal.SIGSTOP)
    return f"seen {i}"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_stopped_process_is_ended_and_its_image_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_map, "STUCK_S", 2.0)
    chunks = [(0, 0, 2), (0, 4, 6), (0, 6, 9)]
    found = dict(parallel_map._in_processes([cast(Any, None)], look, "lost", chunks, 2))
    assert found == {(0, 0, 2): ["seen 0", "seen 1"], (0, 4, 6): ["seen 4", "lost"], (0, 6, 9): ["seen 6", "seen 7", "seen 8"]}
