"""A file is written whole or not at all, whichever of the system's calls fails: every call of one write, with every fault, in turn."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

_PROGRAM = """
import ctypes, json, os, sys
from pathlib import Path
from convmix.atomic import write_bytes
from convmix.errors import WriteError
folder, library = Path(sys.argv[1]), ctypes.CDLL(None)
found = []
for fault, lasts in json.loads(sys.argv[2]):
    for at in range(100):
        (folder / "a.json").write_bytes(b"old" * 1000)
        library.faults_arm(os.fsencode(folder), 2, ctypes.c_long(at), fault, lasts, 0, -1)
        said = ""
        try:
            write_bytes(folder / "a.json", b"new" * 1000)
        except WriteError as error:
            said = str(error)
        struck = library.faults_disarm()
        kept = (folder / "a.json").read_bytes()
        left = [path.name for path in folder.iterdir() if path.name != "a.json"]
        for name in left:
            (folder / name).unlink()
        if not struck:
            break
        found.append([fault, at, said, kept[:3].decode() if kept in (b"old" * 1000, b"new" * 1000) else "neither", left])
print(json.dumps(found))
"""
SHORT = -1  # of a write: only a part is taken


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux and gcc")
def test_a_write_that_fails_anywhere_keeps_the_old_file_or_brings_the_new_one(tmp_path: Path) -> None:
    library, folder = tmp_path / "faults.so", tmp_path / "data"
    folder.mkdir()
    source = str(REPO / "tests/campaign/faults.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    faults = [[errno.ENOSPC, 0], [errno.ENOSPC, 1], [errno.EIO, 0], [errno.EINTR, 0], [SHORT, 0]]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", _PROGRAM, str(folder), json.dumps(faults)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {fault for fault, *_ in found} == {errno.ENOSPC, errno.EIO, errno.EINTR, SHORT}
    for fault, at, said, kept, left in found:
        assert kept == ("old" if said else "new"), (fault, at, said, kept)
        assert not said or "what was there before is kept" in said
        assert not left or fault == errno.EIO, (fault, at, left)  # a disk that fails may not let go of a file either
    assert any(said for *_, said, _, _ in found) and any(not said for *_, said, _, _ in found)
