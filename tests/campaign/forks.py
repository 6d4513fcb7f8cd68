"""A process that has imported everything, and forks of it that each do one thing: a case costs what it computes, not what it imports."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def import_everything() -> None:
    """So that no fork imports it again, and no fault meets an import."""
    import captum.attr  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import timm  # noqa: F401

    import convmix.cli
    import convmix.exporting.export
    import convmix.training.session  # noqa: F401


def forked(work: Callable[[], None], said: Path, *, limit_s: float, kill_after_s: float | None = None) -> tuple[int | None, str]:
    """Exit code and standard error of a fork of this process; None where it took longer than `limit_s`. Killed after `kill_after_s`."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _as_a_process(work, said)
    began, killed, ended, status = time.monotonic(), False, 0, 0
    while not ended and (passed_s := time.monotonic() - began) - waited_s(child) < limit_s:
        if kill_after_s is not None and passed_s > kill_after_s and not killed:
            killed = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and whatever it started
    if not ended:
        os.waitpid(child, 0)
        return None, said.read_text(errors="replace")
    return os.waitstatus_to_exitcode(status), said.read_text(errors="replace") if said.exists() else ""


def waited_s(process_id: int | None) -> float:
    """How long the process was ready to run and others ran: of a busy machine, no sign of a hang."""
    try:
        return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _as_a_process(work: Callable[[], None], said: Path) -> None:
    os.setpgid(0, 0)
    code = 70
    try:
        errors = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
