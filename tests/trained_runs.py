"""Small trained runs, one a task, made once for the whole suite: for tests that read a finished run and do not care how it was trained."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import convmix
from tests.dense_scenes import write_coco, write_maps
from tests.label_scenes import write_labels
from tests.made_once import MadeOnce

CLASSIFIER: dict[str, Any] = {"model": "convmixer_16_2_k3_p4", "size": 24, "batch_size": 12, "precision": "fp32", "workers": 0}
DENSE: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 64, "pyramid_channels": 16, "batch_size": 4, "workers": 0, "tune": "never",
    "precision": "fp32",
}  # fmt: skip
SPLITS = {"train": 8, "val": 4, "test": 4}
DENSE_TASKS = ("detect", "instances", "segment")


def classifier(made_once: MadeOnce, photos: Path) -> Path:
    """A run of eight epochs on `photos`, which knows its three classes; read only."""
    return made_once("classifier", lambda out: convmix.train(photos, out=out, quiet=True, epochs=8, **CLASSIFIER))


def probe(made_once: MadeOnce, photos: Path) -> Path:
    """A classifier fitted to frozen features of `photos`, which knows its training images; read only."""
    settings = {**CLASSIFIER, "weights": str(classifier(made_once, photos)), "freeze": "backbone"}
    return made_once("probe", lambda out: convmix.train(photos, out=out, quiet=True, **settings))


def labelled(made_once: MadeOnce) -> Path:
    """Pictures with several labels each, and a table; read only."""
    return made_once("labelled", write_labels)


def multilabel(made_once: MadeOnce) -> Path:
    """A run on `labelled` that has learned its three labels; read only."""
    data = labelled(made_once)
    return made_once("multilabel", lambda out: convmix.train(data, out=out, quiet=True, epochs=12, tune="never", **CLASSIFIER))


def scenes(made_once: MadeOnce, task: str) -> Path:
    """Drawn shapes with boxes, outlines or class maps, eight, four and four pictures; read only."""
    return made_once(f"scenes_{task}", lambda root: write_scenes(task, root, SPLITS))


def write_scenes(task: str, root: Path, counts: dict[str, int], *, same: bool = False) -> Path:
    """A data set of the task."""
    return write_maps(root, counts, same=same) if task == "segment" else write_coco(root, counts, masks=task == "instances", same=same)


def dense_run(made_once: MadeOnce, task: str) -> Path:
    """A run of one epoch on `scenes`; read only."""
    data = scenes(made_once, task)
    return made_once(f"run_{task}", lambda out: convmix.train(data, out=out, epochs=1, quiet=True, **DENSE))


def demo(made_once: MadeOnce) -> Path:
    """What `make demo` leaves in a folder: runs/digits, trained to the end; and said.txt, what it printed; read only."""

    def show(folder: Path) -> None:
        folder.mkdir()
        environment = {**os.environ, "COLUMNS": "160"}
        done = subprocess.run([sys.executable, "-m", "convmix.demo"], cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        (folder / "said.txt").write_text(done.stdout)

    return made_once("demo", show)
