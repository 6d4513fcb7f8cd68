"""The section on the trained models says what the reports say."""

import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import report_tables  # noqa: E402
import reports  # noqa: E402
import show  # noqa: E402
import tables  # noqa: E402


def report(**changed: Any) -> dict[str, Any]:
    damage = [{"kind": kind, "strength": s, "accuracy": a - 0.1 * s} for kind, a in (("blur", 0.9), ("noise", 0.8)) for s in (1, 2, 3)]
    return {
        "name": "toy",
        "target": 0.95,
        "metrics": {"n": 200, "accuracy": 0.915, "accuracy_interval": [0.87, 0.95], "macro_f1": 0.9, "macro_f1_interval": None},
        "calibration": {
            "fitted": {"threshold": 0.7}, "ece_before": 0.1234, "ece_after": 0.0123, "sure": 150, "sure_accuracy": 0.96,
            "sure_interval": [0.92, 0.98],
        },
        "robustness": damage,
        "worse_slices": [{"by": "brightness", "value": "dark", "accuracy": 0.5}],
    } | changed  # fmt: skip


def test_a_row_says_what_was_found() -> None:
    row = report_tables.section([report()], tables.table).splitlines()[-1]
    cells = ["toy", "91.5 % (87.0 to 95.0)", "90.0 %", "0.1234, 0.0123", "75.0 %", "96.0 % (92.0 to 98.0)", "noise: 60.0 %"]
    assert row == "| " + " | ".join([*cells, "brightness dark (50.0 %)"]) + " |"


def test_what_was_not_measured_or_reached_is_said() -> None:
    unreached = report()["calibration"] | {"fitted": {"threshold": None}}
    row = report_tables.section([report(calibration=unreached, robustness=[], worse_slices=[])], tables.table).splitlines()[-1]
    assert "| not reached |  | not measured | none |" in row


def test_reports_are_of_recorded_runs_and_pictures_are_there() -> None:
    assert {path.stem for path in reports.RESULTS.glob("*.json")} <= {e.name for e in show.EXPERIMENTS}
    used = [line for page in (REPO / "docs/how_to").glob("*.md") for line in page.read_text().splitlines() if "../images/" in line]
    assert all(any(name in line for line in used) for name in reports.PICTURES.values()), "every picture stands in a how-to page"
