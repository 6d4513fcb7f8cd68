"""A folder is held by one process at a time, and by none that is dead."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from convmix.errors import RunError, TrainingError
from convmix.system.locking import NAME, locked

REPO = Path(__file__).resolve().parents[1]
HOLDER = """
import os, sys, time
from pathlib import Path
from convmix.system.locking import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker that outlives it for a while
        time.sleep(600)
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process has it, and a child of that process too."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_second_process_is_told_who_has_it_and_a_kill_lets_it_go(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "run") as holder:
        with pytest.raises(RunError, match=f"run is in use by process {holder.pid} on .*another folder"), locked(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
        with locked(tmp_path / "run"):  # though its child lives
            assert (tmp_path / "run" / NAME).exists()


def test_a_second_thread_of_this_process_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="this process itself"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "run") as held:
        held.check()
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "used").mkdir()
    with locked(tmp_path / "used"):
        pass
    assert list((tmp_path / "used").iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_was_removed_is_noticed(tmp_path: Path, again: bool) -> None:
    with locked(tmp_path / "run") as held:
        (tmp_path / "other").mkdir()  # so that no other folder gets its number
        shutil.move(tmp_path / "run", tmp_path / "away")
        if again:
            (tmp_path / "run").mkdir()
        with pytest.raises(TrainingError, match="removed or replaced"):
            held.check()


def test_places_that_cannot_be_held_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is not a folder"), locked(tmp_path / "file"):
        pass
    with pytest.raises(RunError, match="cannot be made: Not a directory"), locked(tmp_path / "file" / "run"):
        pass
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot be written"), locked(tmp_path / "link"):
        pass
    assert not (tmp_path / "elsewhere").exists()
