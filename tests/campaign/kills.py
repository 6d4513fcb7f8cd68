"""Trainings killed at a random moment or while a file is written, and resumed until they end: the same bits as without."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.campaign.forks import forked, import_everything
from tests.conftest import REPO, make_photos
from tests.dense_scenes import write_coco
from tests.training.witness import die_writing

_COMMON = (
    "--model", "convmixer_16_2_k3_p4", "--batch-size", "8", "--epochs", "3", "--workers", "2", "--save-every", "0", "--hflip", "0.5",
    "--precision", "fp32", "--tune", "never", "--device", "cpu", "--autoresume",
)  # fmt: skip
TRAININGS = {
    "classification": ("photos", "--size", "24", "--mixup", "0.4", "--ema-decay", "0.9"),
    "detection": ("boxes", "--size", "64", "--pyramid-channels", "8"),
    "two processes": ("photos", "--size", "24", "--ema-decay", "0.9"),
}
_WRITTEN = {  # how often in a life
    "job.json": 1, "last.safetensors": 3, "model.safetensors": 3, "curves.csv": 3, "convmix.json": 1, "splits.csv": 1, "record.json": 1,
    "README.md": 1,
}  # fmt: skip
_MOST = 8  # times that one training is killed
_LIMIT_S = 300.0


def _arguments(training: str, place: Path, out: Path) -> list[str]:
    data, *more = TRAININGS[training]
    return ["train", str(place / data), "--out", str(out), *_COMMON, *more]


def _run(
    training: str, place: Path, out: Path, *, kill_after_s: float | None = None, aim: tuple[str, int] | None = None
) -> tuple[int | None, str]:
    """Exit code and standard error; killed after so long, or when it has written that file so often."""
    arguments = _arguments(training, place, out)
    if training == "two processes":
        return _run_two(arguments, kill_after_s=kill_after_s, aim=aim)

    def train() -> None:
        from convmix.cli import main

        if aim is not None:
            die_writing(*aim)
        main(arguments)

    return forked(train, out.parent / "said", limit_s=_LIMIT_S, kill_after_s=kill_after_s)


def _run_two(arguments: list[str], *, kill_after_s: float | None, aim: tuple[str, int] | None) -> tuple[int | None, str]:
    program = ["-m", "tests.training.witness", "die-writing", aim[0], str(aim[1])] if aim else ["-m", "convmix"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=REPO, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=kill_after_s or _LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a machine that is taken away
        _, said = process.communicate()
        return (-signal.SIGKILL if kill_after_s else None), said
    killed = process.returncode != 0 and "SIGKILL" in said  # torchrun says so of the process that was aimed at
    return (-signal.SIGKILL if killed else process.returncode), said


def prepared(folder: Path) -> None:
    """The data, the trainings that nobody kills, and how long they take."""
    make_photos(folder / "photos")
    write_coco(folder / "boxes", {"train": 24, "val": 8}, masks=False)
    import_everything()
    for training in TRAININGS:
        (folder / training).mkdir()
        began = time.monotonic()
        code, said = _run(training, folder, folder / training / "whole")
        assert code == 0, said
        (folder / training / "took").write_text(str(time.monotonic() - began))


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of a training that was killed several times; as many cases as kills."""
    import_everything()
    place, out = folder.parent / "prepared", folder / "out"
    training = rng.choice(("classification", "classification", "classification", "detection", "detection", "two processes"))
    took, kills = float((place / training / "took").read_text()), 0
    for _ in range(_MOST):
        name = rng.choice(list(_WRITTEN))
        aim = (name, rng.randint(1, _WRITTEN[name])) if rng.random() < 0.5 else None
        code, said = _run(training, place, out, kill_after_s=None if aim else rng.uniform(0.05, 0.6) * took, aim=aim)
        if code is None:
            return "hang", f"{training} after {kills} kills", kills
        if code not in (0, -signal.SIGKILL):
            return "traceback", f"{training}: after {kills} kills it ends with {code}: {said.strip()[-300:]}", kills
        kills += code != 0
        if code == 0:  # it was faster
            break
    for file in out.rglob(".*.unfinished"):
        os.utime(file, (0, 0))  # what is a minute old is nobody's who still writes
    code, said = _run(training, place, out)
    if code != 0:
        return "lost", f"{training}: it does not end: {code}: {said.strip()[-300:]}", kills
    for name in ("model.safetensors", "state/last.safetensors"):
        one, other = load_file(place / training / "whole" / name), load_file(out / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return "differs", f"{training}: {name} has other bits after {kills} kills", kills
    left = [path.name for path in out.rglob(".*")]
    shutil.rmtree(out)
    return ("lost", f"{left} are left behind", kills) if left else ("resumed", "", kills)
