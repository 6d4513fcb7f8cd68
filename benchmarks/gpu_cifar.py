"""CIFAR-10 on a lent card: the 25 epochs that should give 92.6 % within a minute, and the 200 epochs that should give 95.9 %.

    python benchmarks/gpu_cifar.py pack                      here: ../shared/data/cifar10 in two halves, .cifar-a and .cifar-b
    python benchmarks/gpu_cifar.py stage .cifar-a            there: put a half where it stays while the machine is held
    python benchmarks/gpu_cifar.py fast --seeds 0 1 2        there: train; records, curves and logs into $OUT
    python benchmarks/gpu_cifar.py best --seeds 0 --limit 540    the same; stops with its state saved, and goes on when called again

The images (102 MiB as lossless WebP) do not fit into one call's 64 MiB, so each of two calls, less than 30 seconds apart, carries a half:

    echo /.cifar-a/ >> .git/info/exclude; echo /.cifar-b/ >> .git/info/exclude; echo /.whl/ >> .git/info/exclude
    carry .cifar-a:                           PYTHONPATH=. python3 benchmarks/gpu_cifar.py stage .cifar-a
    carry .cifar-b, .whl, convmix.egg-info:   (install .whl as the README of the library says) && export PYTHONPATH=/tmp/site:. &&
        python3 benchmarks/gpu_cifar.py stage .cifar-b && PYTHONUNBUFFERED=1 python3 benchmarks/gpu_cifar.py fast --seeds 0 1 2

.whl holds datasets, dill and multiprocess, which that machine has not. Nothing is held out: the last epoch's weights are tested once.
"""

import argparse
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import ROOT

SHARED = Path(os.environ.get("CONVMIX_SHARED", ROOT.parent / "shared"))
STAGED = Path(tempfile.gettempdir()) / "convmix-cifar10"
RUNS = Path(tempfile.gettempdir()) / "convmix-cifar10-runs"
HALVES = (".cifar-a", ".cifar-b")


@dataclass(frozen=True)
class Goal:
    """A recipe, and what is to be reached with it."""

    recipe: str
    accuracy: float
    train_s: float | None


GOALS = {"fast": Goal("convmixer_cifar10", 0.926, 60.0), "best": Goal("convmixer_cifar10_200", 0.959, None)}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if asked.what == "pack":
        pack(asked.data or SHARED / "data/cifar10", asked.into)
        return 0
    if asked.what == "stage":
        return stage(asked.half, asked.data or STAGED)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    results = Path(asked.output or os.environ.get("OUT") or ROOT / "benchmarks/results/gpu_cifar")
    done = [train(asked.what, seed, asked, settings, results) for seed in asked.seeds]
    return 0 if all(done) else 1


def pack(source: Path, into: Path) -> None:
    """Two folders of one training shard and one half of the test split each, in the rows' order; nothing is encoded anew."""
    import pyarrow.parquet as pq

    shards = sorted(source.glob("train-*.parquet"))
    (test,) = source.glob("test-*.parquet")
    if len(shards) != len(HALVES):
        raise SystemExit(f"{source}: {len(shards)} training shards, expected {len(HALVES)}")
    rows = pq.read_table(test)
    for i, (name, shard) in enumerate(zip(HALVES, shards, strict=True)):
        folder = into / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shard, folder / shard.name)
        start, stop = len(rows) * i // 2, len(rows) * (i + 1) // 2
        pq.write_table(rows.slice(start, stop - start), folder / f"test-{i:05}-of-00002.parquet")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {size / 2**20:.1f} MiB")


def stage(half: Path, data: Path) -> int:
    """Where it stays between two calls; 1 while the other half is missing is no failure, so it is only said."""
    data.mkdir(parents=True, exist_ok=True)
    for path in sorted(half.glob("*.parquet")):
        shutil.copyfile(path, data / path.name)
    print(f"{data}: {', '.join(sorted(path.name for path in data.iterdir()))}")
    return 0


def train(name: str, seed: int, asked: argparse.Namespace, settings: dict[str, str], results: Path) -> bool:
    """One run, or what is left of it; true where it is finished and reached its goal."""
    from rich.console import Console

    import convmix
    from convmix.training.session import train_session
    from convmix.training.signals import Interrupted

    goal, out = GOALS[name], asked.runs / f"{name}-{seed}"
    data = asked.data or STAGED
    said = io.StringIO()
    overrides = {"seed": seed, "val_fraction": 0, "keep": "last", "augment_on": "auto", "cache_gib": 2.0} | settings
    timer = threading.Timer(asked.limit, os.kill, (os.getpid(), signal.SIGTERM))  # as a scheduler would: the state is saved
    timer.daemon = True
    timer.start()
    try:
        train_session(
            str(data), recipe=goal.recipe, overrides=overrides, out=out, resume=False, autoresume=True,
            console=Console(file=_Both(said, sys.stdout), width=160), device=asked.device,
        )  # fmt: skip
    except Interrupted as stopped:
        print(f"{name} {seed}: {stopped}", flush=True)
    except convmix.ConvmixError as error:
        print(f"{name} {seed}: {error}", file=sys.stderr, flush=True)
    finally:
        timer.cancel()
        results.mkdir(parents=True, exist_ok=True)
        with (results / f"{name}-{seed}.log").open("a") as log:
            log.write(said.getvalue())
    if not (out / "record.json").exists():
        if (out / "curves.csv").exists():
            shutil.copyfile(out / "curves.csv", results / f"{name}-{seed}.unfinished.csv")
        return False
    record = json.loads((out / "record.json").read_text())
    reached = verdict(goal, record)
    record |= {"kind": "gpu_cifar", "name": f"{name}-{seed}", "goal": reached}
    (results / f"{name}-{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{name} {seed}: {record['test']['accuracy']:.2%} of {record['test']['n']}, {record['train_elapsed_s']:.1f} s of training, waiting "
        f"for images {record['data_wait_s'] / record['train_elapsed_s']:.1%}; goal {'reached' if reached['reached'] else 'missed'}",
        flush=True,
    )
    return reached["reached"]


def verdict(goal: Goal, record: dict[str, Any]) -> dict[str, Any]:
    """The goal beside what was reached."""
    in_time = goal.train_s is None or record["train_elapsed_s"] <= goal.train_s
    return {
        "accuracy": goal.accuracy, "train_s": goal.train_s, "reached": bool(in_time and record["test"]["accuracy"] >= goal.accuracy),
    }  # fmt: skip


class _Both:
    """A file that writes into two."""

    def __init__(self, *files: Any) -> None:
        self.files = files

    def write(self, text: str) -> None:
        for file in self.files:
            file.write(text)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "stage", *GOALS))
    parser.add_argument("half", nargs="?", type=Path, default=None, help="stage: the carried folder")
    parser.add_argument("--data", type=Path, default=None, help="the parquet files (default: where `stage` puts them)")
    parser.add_argument("--into", type=Path, default=ROOT, help="pack: where the two folders are made")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--limit", type=float, default=540.0, help="seconds of one run in this call")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the model directories")
    parser.add_argument("--output", type=Path, default=None, help="folder of records and logs (default: $OUT, else benchmarks/results)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings other than the recipe's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
