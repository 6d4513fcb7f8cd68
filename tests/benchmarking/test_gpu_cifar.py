"""CIFAR-10 as a card is to train it, rehearsed on a few of its images."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from convmix.config import Run
from convmix.data.facts import DataFacts
from convmix.recipes import recipe

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_cifar  # noqa: E402


@pytest.fixture
def few(shared: Path, tmp_path: Path) -> Path:
    """The first 50 rows of every file."""
    (tmp_path / "few").mkdir()
    for path in (shared / "data/cifar10").glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 50), tmp_path / "few" / path.name)
    return tmp_path / "few"


@pytest.mark.slow
def test_a_run_is_recorded_with_its_goal(few: Path, tmp_path: Path) -> None:
    words = ["fast", "--data", str(few), "--device", "cpu", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    tiny = ["--set", "model=convmixer_8_1_k5_p2", "epochs=1", "batch_size=50", "workers=0", "precision=fp32"]
    assert gpu_cifar.main([*words, "--seeds", "3", *tiny]) == 1  # one epoch of a tiny model reaches nothing
    record = json.loads((tmp_path / "results/fast-3.json").read_text())
    assert record["goal"] == {"accuracy": 0.926, "train_s": 60.0, "reached": False}
    assert record["data"]["train"] == 100 and record["data"].get("val") is None and record["test"]["n"] == 50
    assert record["recipe"] == "convmixer_cifar10" and record["settings"]["seed"] == "3"
    assert "resident" not in record and (tmp_path / "results/fast-3.log").read_text()


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
