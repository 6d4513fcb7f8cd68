"""The table on few images says what the records say."""

import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import few  # noqa: E402
import few_tables  # noqa: E402
import tables  # noqa: E402


def record(way: str, accuracies: list[float], *, per_class: int = 5) -> dict[str, Any]:
    draws = {str(i): {"n": 400, "accuracy": a, "elapsed_s": 10.0 + i} for i, a in enumerate(accuracies)}
    machine = {"name": "a processor", "cores": 2, "threads": 1}
    return {"data": "toy", "per_class": per_class, "way": way, "draws": draws, "machine": machine}


def test_a_row_holds_mean_interval_draws_and_time() -> None:
    text = few_tables.section([record("head", [0.8, 0.9, 0.85]), record("scratch", [0.3])], tables.table)
    head, scratch = text.splitlines()[-2:]
    assert head == "| toy | classifier on frozen features | 85.0, 72.6 to 97.4 (3 x 11 s) |"
    assert scratch == "| toy | from scratch | 30.0 (1 x 10 s) |"
    assert "on 400 images" in text


def test_what_was_not_measured_is_said_and_nothing_is_no_section() -> None:
    text = few_tables.section([record("head", [0.8], per_class=5), record("tuned", [0.8], per_class=10)], tables.table)
    assert text.splitlines()[-1] == "| toy | fine-tuned after it | not measured | 80.0 (1 x 10 s) |"
    assert few_tables.section([], tables.table) == ""


def test_what_is_unlike_is_told_by_kind() -> None:
    noise = {"n": 120, "auroc": 0.9876, "auroc_probability": 0.8, "told": 0.95}
    record = {"classes": 7, "per_class": 50, "own": {"n": 280, "false_alarms": 0.025}, "others": {"noise": noise}}
    text = few_tables.unlike_section([record], tables.table)
    assert text.splitlines()[-1] == "| noise | 120 | 0.988 | 0.800 | 95.0 % |"
    assert "2.5 % are called" in text
    assert few_tables.unlike_section([], tables.table) == ""


def test_a_draw_has_the_images_it_says_and_never_the_same_twice(tmp_path: Path) -> None:
    pool = {label: [(f"{label}{i}.png", f"{label}{i}".encode()) for i in range(120)] for label in ("a", "b")}
    everything = {"train": pool, "test": {label: [(f"t{i}.png", b"t") for i in range(60)] for label in pool}}
    few.write_draw(everything, per_class=100, draw=0, folder=tmp_path / "one")
    few.write_draw(everything, per_class=100, draw=1, folder=tmp_path / "two")
    names = {split: {p.name for p in (tmp_path / "one" / split / "a").iterdir()} for split in ("train", "val", "test")}
    assert {split: len(some) for split, some in names.items()} == {"train": 100, "val": few.VAL, "test": few.TEST}
    assert not names["train"] & names["val"]
    assert names["train"] != {p.name for p in (tmp_path / "two/train/a").iterdir()}


def test_records_are_of_ways_and_numbers_that_the_script_has() -> None:
    for r in few_tables.read_few(few.RESULTS):
        assert r["data"] in few.DATA
        assert r["way"] in few.WAYS
        assert r["per_class"] in few.PER_CLASS
