"""RESULTS.md's section on ablations says what the record says; the benchmark runs the command that it records."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import ablation  # noqa: E402
import ablation_tables  # noqa: E402
import tables  # noqa: E402


def training(name: str, **more: object) -> dict[str, Any]:
    mean = {"value": 0.512, "n": 3, "low": 0.498, "high": 0.526}
    values = {"name": name, "note": "convmixer_64_4_k5_p4", "accuracy": mean, "macs": 1_655_424, "parameters": 26_000, "failures": {}}
    values |= {"paper": "worse", "paper_is_sure": True}
    return {**values, **more}


RECORD: dict[str, Any] = {
    "name": "toy", "command": "convmix ablate toy", "date": "2026-11-21", "seeds": [0, 1, 2], "begun_with": {"equal": "macs"},
    "data": {"name": "toy", "fingerprint": "0123456789abcdef", "train": 6000, "test": 10000},
    "base": training("base"),
    "effects": [
        training("kernel 3", difference={"value": -0.0312, "n": 3, "low": -0.04, "high": -0.02}, verdict="holds"),
        training("no RandAugment", difference={"value": 0.02, "low": -0.01, "high": 0.05}, verdict="fails in sign", paper_is_sure=False),
        training("no residual", difference=None, verdict="", paper="", macs=None, parameters=None, failures={"0": "it broke"}),
    ],
    "notes": ["kernel 9: 1.20 times the multiply-adds of the base, the nearest that the width allows"],
    "machine": {"name": "a processor", "cores": 2, "device": "cpu"},
    "versions": {"convmix": "0.1.0", "torch": "2.15.0"},
}  # fmt: skip


def test_the_section_says_what_the_record_says() -> None:
    text = ablation_tables.section(RECORD, tables.table)
    assert "| kernel 3 | -3.1 | -4.0 to -2.0 | worse | holds | 1.66 M | 26,000 |" in text
    assert "| no RandAugment | +2.0 | -1.0 to +5.0 | worse? | fails in sign |" in text
    assert "Of 2 changes with a finding of the paper: holds: 1; fails in sign: 1." in text
    assert "test accuracy 51.2 % (49.8 to 52.6 over 3 seeds)" in text
    assert "- no residual failed: it broke" in text and "- kernel 9: 1.20 times" in text


def test_the_page_has_the_section_where_there_is_a_record() -> None:
    assert ablation_tables.HEAD not in tables.results_page([])
    assert ablation_tables.HEAD in tables.results_page([], ablations=[RECORD])


def test_an_incomplete_record_is_named_with_its_missing_key(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps({k: v for k, v in RECORD.items() if k != "effects"}))
    with pytest.raises(SystemExit, match=r"toy\.json.*lacks effects"):
        ablation_tables.read_ablations(tmp_path)


def test_a_record_keeps_the_command_of_the_benchmark() -> None:
    for record in ablation_tables.read_ablations(ablation_tables.PLACE):
        assert record["command"] == ablation.COMMAND
