"""CIFAR-10 on a card: the 25 epochs that should give 92.6 % within a minute, and the 200 epochs that should give 95.9 %.

    python benchmarks/gpu_cifar.py fast --data cifar10/ --seeds 0 1 2      records and logs into $OUT or benchmarks/results/gpu_cifar
    CONVMIX_KERNELS=gpu python benchmarks/gpu_cifar.py fast --data cifar10/    the same with the GPU kernels that prove themselves

Expects the card to change the images itself (augment_on=device). Nothing is held out: the last epoch's weights are tested once. A run that
was stopped goes on when it is called again. Unmeasured so far: no card has run it.
"""

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import ROOT

RUNS = Path(tempfile.gettempdir()) / "convmix-cifar10-runs"


@dataclass(frozen=True)
class Goal:
    """A recipe, and what is to be reached with it."""

    recipe: str
    accuracy: float
    train_s: float | None


GOALS = {"fast": Goal("convmixer_cifar10", 0.926, 60.0), "best": Goal("convmixer_cifar10_200", 0.959, None)}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    results = Path(asked.output or os.environ.get("OUT") or ROOT / "benchmarks/results/gpu_cifar")
    done = [train(asked.what, seed, asked, settings, results) for seed in asked.seeds]
    return 0 if all(done) else 1


def train(name: str, seed: int, asked: argparse.Namespace, settings: dict[str, str], results: Path) -> bool:
    """One run, or what is left of it; true where it is finished and reached its goal."""
    from rich.console import Console

    import convmix
    from convmix.training.session import train_session

    goal, out = GOALS[name], asked.runs / f"{name}-{seed}"
    said = io.StringIO()
    overrides = {"seed": seed, "val_fraction": 0, "keep": "last", "augment_on": "device", "cache_gib": 2.0} | settings
    try:
        train_session(
            str(asked.data), recipe=goal.recipe, overrides=overrides, out=out, resume=False, autoresume=True,
            console=Console(file=_Both(said, sys.stdout), width=160), device=asked.device,
        )  # fmt: skip
    except convmix.ConvmixError as error:
        print(f"{name} {seed}: {error}", file=sys.stderr, flush=True)
        return False
    finally:
        results.mkdir(parents=True, exist_ok=True)
        with (results / f"{name}-{seed}.log").open("a") as log:
            log.write(said.getvalue())
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
    parser.add_argument("what", choices=tuple(GOALS))
    parser.add_argument("--data", type=Path, required=True, help="the folder of parquet files")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the model directories")
    parser.add_argument("--output", type=Path, default=None, help="folder of records and logs (default: $OUT, else benchmarks/results)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings other than the recipe's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
