"""Waiting for what another process or thread does: for a condition, never for a length of time."""

import subprocess
import time
from collections.abc import Callable

PATIENCE_S = 240.0  # far more than a busy machine needs; only a fault waits so long


def until(condition: Callable[[], bool], *, while_runs: "subprocess.Popen[bytes] | subprocess.Popen[str] | None" = None) -> None:
    """Wait until it holds; fails at once where the process that should make it so has ended without."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        ended = while_runs is not None and while_runs.poll() is not None
        assert not ended or condition(), f"the process ended with {while_runs.returncode}" if while_runs else ""
        assert time.monotonic() < end, f"not in {PATIENCE_S:.0f} s"
        time.sleep(0.01)
