"""Consoles that are not UTF-8, scripts without a main guard, folders that cannot be written."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convmix.errors import RunError
from convmix.system.surroundings import refuse_unwritable, show_every_letter, without_main
from tests.command_line import Command
from tests.conftest import REPO, make_photos


class _Console(io.TextIOWrapper):
    """A console of an encoding, and what was printed to it."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def said(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("ascii", b"caf\\xe9 \\u65e5"), ("cp1252", b"caf\xe9 \\u65e5"), ("utf-8", "café 日".encode())],
)
def test_letters_that_a_console_lacks_are_written_out(monkeypatch: pytest.MonkeyPatch, encoding: str, said: bytes) -> None:
    out, err = _Console(encoding), _Console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    show_every_letter()
    print("café 日", end="")
    print("café 日", end="", file=sys.stderr)
    assert out.said() == err.said() == said


def test_the_command_line_speaks_to_such_a_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convmix.cli import main

    make_photos(tmp_path / "fotos", classes=2, per_class=4)
    (tmp_path / "fotos/class_0").rename(tmp_path / "fotos/café")
    console = _Console("ascii")
    monkeypatch.setattr(sys, "stdout", console)
    main(["inspect", str(tmp_path / "fotos")])
    assert b"caf\\xe9" in console.said()


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    refuse_unwritable(tmp_path / "not" / "there", option="--out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    locked = tmp_path / "locked"
    locked.mkdir()

    def deny(*, dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", deny)  # file modes mean nothing to root
    with pytest.raises(RunError, match=r"locked/run cannot be written \(.*locked: Permission denied\); name another folder with --out"):
        refuse_unwritable(locked / "run", option="--out")
    photos = make_photos(tmp_path / "photos", classes=2, per_class=4)
    done = command("train", photos, "--out", locked / "run", "--device", "cpu")
    assert done.code == 2 and "cannot be written" in done.err and "epoch" not in done.out and not list(locked.iterdir())


def test_processes_started_inside_know_no_main_script_and_it_is_there_again_afterwards() -> None:
    from multiprocessing.spawn import get_preparation_data

    main = sys.modules["__main__"]
    before = dict(main.__dict__)
    with without_main():
        data = get_preparation_data("child")
    assert not {"init_main_from_name", "init_main_from_path"} & data.keys()
    assert dict(main.__dict__) == before


SCRIPT = """
import convmix
from convmix.data import loaders
print("the script begins", flush=True)
loaders._START = "spawn"  # as where there is no fork
small = dict(model="convmixer_8_1_k3_p4", size=24, batch_size=16, tune="never", workers=1, quiet=True)
run = convmix.train({data!r}, out={out!r}, epochs=1, val_fraction=0, test_fraction=0, **small)  # one worker process
print("trained", run.stopped)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_trains_once(tmp_path: Path, photos: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(data=str(photos), out=str(tmp_path / "run")))
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the script begins", "trained epochs"]
