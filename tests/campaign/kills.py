"""Trainings killed at a random moment or while a file is written, and resumed until they end: the same bits as without."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.conftest import REPO, make_photos

_SETTINGS: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 8, "epochs": 3, "workers": 2, "save_every": 0, "hflip": 0.5, "mixup": 0.4,
    "ema_decay": 0.9, "precision": "fp32", "tune": "never",
}  # fmt: skip
_WRITTEN = ("job.json", "last.safetensors", "model.safetensors", "curves.csv", "convmix.json", "splits.csv", "record.json", "README.md")
_MOST = 8  # times that one training is killed


def _command(folder: Path, out: Path, *, before: tuple[str, ...] = ()) -> list[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in _SETTINGS.items()]
    program = ["-m", "tests.training.witness", *before] if before else ["-m", "convmix"]
    return [sys.executable, *program, "train", str(folder / "photos"), "--out", str(out), "--device", "cpu", "--autoresume", *options]


def _run(command: list[str], *, kill_after_s: float | None) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=kill_after_s or 600)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    return process.returncode, said


def prepared(folder: Path) -> None:
    """The data, the training that nobody kills, and how long it takes."""
    make_photos(folder / "photos")
    began = time.monotonic()
    code, said = _run(_command(folder, folder / "whole"), kill_after_s=None)
    assert code == 0, said
    (folder / "took").write_text(str(time.monotonic() - began))


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of a training that was killed several times."""
    place = folder.parent / "prepared"
    took, out = float((place / "took").read_text()), folder / "out"
    for _ in range(_MOST):
        if rng.random() < 0.5:
            aimed = ("die-writing", rng.choice(_WRITTEN), str(rng.randint(1, 4)))
            code, said = _run(_command(place, out, before=aimed), kill_after_s=None)
        else:
            code, said = _run(_command(place, out), kill_after_s=rng.uniform(0.2, 1.0) * took)
        if code not in (0, -signal.SIGKILL):
            return "traceback", f"after a kill it ends with {code}: {said.strip()[-300:]}", 1
    code, said = _run(_command(place, out), kill_after_s=None)
    if code != 0:
        return "lost", f"it does not end: {code}: {said.strip()[-300:]}", 1
    for name in ("model.safetensors", "state/last.safetensors"):
        one, other = load_file(place / "whole" / name), load_file(out / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return "differs", f"{name} has other bits", 1
    left = [path.name for path in out.rglob(".*")]
    shutil.rmtree(out)
    return ("lost", f"{left} are left behind", 1) if left else ("resumed", "", 1)
