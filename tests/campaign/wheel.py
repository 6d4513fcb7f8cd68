"""The wheel in a bare environment: what the lock file names, hashes checked, then the wheel; its demo trains and predicts."""

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPO

_LIMIT_S = 3600.0  # downloads of some gigabytes


def limit_s() -> float:
    return _LIMIT_S


def _run(*command: str, cwd: Path) -> str:
    """Standard output; RuntimeError with the end of what it said where it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CONVMIX"))}
    environment |= {"PIP_CONSTRAINT": os.devnull, "OMP_NUM_THREADS": "1"}  # the versions are the lock file's
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:4])} ends with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def prepared(folder: Path) -> None:
    """The environment without convmix."""
    _run(sys.executable, "-m", "venv", str(folder / "venv"), cwd=folder)
    lock = str(REPO / "requirements.lock")
    python = str(folder / "venv/bin/python")
    _run(python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--require-hashes", "--no-deps", "-r", lock, cwd=folder)


def attack(folder: Path, _: random.Random) -> tuple[str, str, int]:
    """What became of the wheel."""
    python = str(folder.parent / "prepared/venv/bin/python")
    built = _run(sys.executable, str(REPO / ".ci/distribution.py"), str(folder / "dist"), cwd=REPO).split()
    wheel = next(name for name in built if name.endswith(".whl"))
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel, cwd=folder)
    _run(python, "-m", "pip", "check", cwd=folder)
    said = _run(python, "-m", "convmix.demo", cwd=folder)
    place = _run(python, "-c", "import convmix; print(convmix.__file__)", cwd=folder)
    if "venv" not in place or not (folder / "runs/digits/model.safetensors").is_file():
        return "lost", f"{place.strip()}: {said[-200:]}", 1
    return "answered", "", 1
