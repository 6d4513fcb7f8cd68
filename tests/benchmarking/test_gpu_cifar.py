"""CIFAR-10 as it travels to a lent card and is trained there, rehearsed on a few of its images."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from convmix.config import Run
from convmix.data.facts import DataFacts
from convmix.recipes import recipe
from convmix.training import log

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_cifar  # noqa: E402


@pytest.fixture
def few(shared: Path, tmp_path: Path) -> Path:
    """The first 100 rows of every file."""
    (tmp_path / "few").mkdir()
    for path in (shared / "data/cifar10").glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 100), tmp_path / "few" / path.name)
    return tmp_path / "few"


def test_both_halves_together_are_the_data_in_order(few: Path, tmp_path: Path) -> None:
    assert gpu_cifar.main(["pack", "--data", str(few), "--into", str(tmp_path)]) == 0
    for half in gpu_cifar.HALVES:
        assert gpu_cifar.main(["stage", str(tmp_path / half), "--data", str(tmp_path / "staged")]) == 0
    for split in ("train", "test"):
        whole, staged = (
            [row for f in sorted(folder.glob(f"{split}-*")) for row in pq.read_table(f).to_pylist()]
            for folder in (few, tmp_path / "staged")
        )
        assert whole == staged and len(whole) == (200 if split == "train" else 100)
    names = [pq.read_schema(path).metadata for path in sorted((tmp_path / "staged").glob("*"))]
    assert len(names) == 4 and all(name == names[0] for name in names)


def test_a_run_is_recorded_with_its_goal(few: Path, tmp_path: Path) -> None:
    words = ["fast", "--data", str(few), "--device", "cpu", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    tiny = ["--set", "model=convmixer_8_1_k5_p2", "epochs=1", "batch_size=50", "workers=0", "augment_on=device", "precision=fp32"]
    assert gpu_cifar.main([*words, "--seeds", "3", *tiny]) == 1  # one epoch of a tiny model reaches nothing
    record = json.loads((tmp_path / "results/fast-3.json").read_text())
    assert record["goal"] == {"accuracy": 0.926, "train_s": 60.0, "reached": False}
    assert record["data"]["train"] == 200 and record["data"].get("val") is None and record["test"]["n"] == 100
    assert record["recipe"] == "convmixer_cifar10" and record["settings"]["seed"] == "3"
    assert "resident" not in record and (tmp_path / "results/fast-3.log").read_text()


class Limit:
    """A timer that a test sets off."""

    daemon = False
    running: ClassVar[list["Limit"]] = []

    def __init__(self, limit_s: float, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self.limit_s, self.over = limit_s, lambda: function(*arguments)

    def start(self) -> None:
        self.running.append(self)

    def cancel(self) -> None:
        self.running.remove(self)


def test_a_run_that_is_cut_short_goes_on(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["best", "--data", str(few), "--device", "cpu", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    tiny = ["--set", "model=convmixer_8_1_k9_p1", "epochs=3", "workers=0", "augment_on=device", "precision=fp32"]
    write = log.write_csv

    def logged(path: Path, *table: Any) -> None:
        write(path, *table)
        if Limit.running[0].limit_s == 6:  # over after the first epoch
            Limit.running[0].over()

    monkeypatch.setattr(gpu_cifar, "threading", SimpleNamespace(Timer=Limit))
    monkeypatch.setattr(log, "write_csv", logged)
    assert gpu_cifar.main([*words, "--limit", "6", *tiny]) == 1
    assert not (tmp_path / "results/best-0.json").exists() and (tmp_path / "results/best-0.unfinished.csv").exists()
    assert gpu_cifar.main([*words, "--limit", "500", *tiny]) == 1
    assert json.loads((tmp_path / "results/best-0.json").read_text())["epochs_done"] == 3
    assert "resuming at step" in (tmp_path / "results/best-0.log").read_text()
    assert not Limit.running


@pytest.mark.parametrize(("accuracy", "train_s", "reached"), [(0.927, 59.0, True), (0.927, 61.0, False), (0.925, 10.0, False)])
def test_a_goal_is_accuracy_within_the_time(accuracy: float, train_s: float, reached: bool) -> None:
    record = {"test": {"accuracy": accuracy}, "train_elapsed_s": train_s}
    assert gpu_cifar.verdict(gpu_cifar.GOALS["fast"], record)["reached"] is reached


def test_the_recipes_are_those_of_the_facts() -> None:
    facts = DataFacts(50_000, 10, 32, 32, 3)

    def of(run: Run) -> tuple[object, ...]:
        a, o = run.augment, run.optim
        return (
            run.model,
            run.schedule.epochs,
            o.lr,
            o.weight_decay,
            o.eps,
            o.batch_size,
            o.clip_grad,
            a.randaugment,
            a.scale,
            a.mixup,
            a.cutmix,
        )

    fast, best = (of(recipe(goal.recipe, facts)) for goal in gpu_cifar.GOALS.values())
    assert fast == ("convmixer_256_8", 25, 0.05, 0.005, 1e-8, 512, 0.0, "torchvision-n2-m12", (1.0, 1.0), 0.0, 0.0)
    assert best == ("convmixer_256_8_k9_p1", 200, 0.01, 0.01, 1e-3, 64, 1.0, "rand-m9-mstd0.5-inc1", (0.75, 1.0), 0.5, 0.5)
