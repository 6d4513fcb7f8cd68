"""The tables on teachers and on dense tasks from weights say what the records say."""

import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import dense_weights  # noqa: E402
import dense_weights_tables  # noqa: E402
import distill  # noqa: E402
import distill_tables  # noqa: E402
import tables  # noqa: E402

MACHINE = {"name": "a processor", "cores": 2}


def taught(accuracy: float) -> dict[str, Any]:
    return {"model": "net", "accuracy": accuracy, "epochs_done": 10.0, "n": 400, "elapsed_s": 30.0}


def distilled(with_teacher: list[float], without: list[float]) -> dict[str, Any]:
    seeds = {
        way: {str(i): taught(a) for i, a in enumerate(some)} for way, some in (("with", with_teacher), ("without", without))
    }  # fmt: skip
    return {"data": "toy", "student": "small", "budget": "10m", "seeds": seeds, "teacher": taught(0.95), "machine": MACHINE}


def test_a_teachers_difference_is_paired_by_seed() -> None:
    text = distill_tables.section([distilled([0.70, 0.80, 0.75], [0.60, 0.70, 0.65])], tables.table)
    without, with_teacher, difference = text.splitlines()[-3:]
    assert without == "| labels alone | 3 | 10.0 | 65.0 (52.6 to 77.4) |"
    assert with_teacher == "| labels and the teacher's answers | 3 | 10.0 | 75.0 (62.6 to 87.4) |"
    assert difference == "| difference | 3 |  | 10.0 (10.0 to 10.0) |"  # every seed gained ten points
    assert "has 95.0 % itself and took 30 s" in text


def test_without_both_ways_there_is_no_section() -> None:
    assert distill_tables.section([distilled([0.7], [])], tables.table) == ""
    assert dense_weights_tables.section([], tables.table) == ""


def test_a_minute_shows_the_best_that_had_ended_by_then() -> None:
    points = [{"elapsed_s": 61.0, "value": 0.2}, {"elapsed_s": 110.0, "value": 0.1}, {"elapsed_s": 130.0, "value": 0.4}]
    test = {"ap": 0.3, "ap_interval": [0.2, 0.4], "ap50": 0.5, "ap50_interval": [0.4, 0.6], "n": 10}
    record = {"data": "cells", "way": "weights", "budget_s": 180.0, "points": points, "test": test, "model": "net", "machine": MACHINE}
    assert dense_weights_tables.at_minutes(record) == [None, 0.2, 0.4]
    row = dense_weights_tables.section([record], tables.table).splitlines()[-1]
    assert row == "| cells | from weights | - | 20.0 | 40.0 | AP 30.0 % (20.0 to 40.0); AP50 50.0 % (40.0 to 60.0) |"


def test_records_are_of_what_the_scripts_know() -> None:
    for r in distill_tables.read_distill(distill.RESULTS):
        assert r["student"] == distill.STUDENT
        assert set(r["seeds"]) == set(distill.WAYS)
    for r in dense_weights_tables.read_dense_weights(dense_weights.RESULTS):
        assert r["data"] in dense_weights.DATA
        assert r["way"] in dense_weights.WAYS
