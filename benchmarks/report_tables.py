"""What benchmarks/reports.py found out about the trained models, as a section of RESULTS.md; `tables.py` puts it into the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
HEAD = """## Beyond accuracy

`python benchmarks/reports.py` evaluates the models above on their test images. ECE: expected calibration error (15 bins) of the raw
probabilities, and with the temperature that was fitted on validation images. "Sure": the share of the test images that the threshold
calls sure, which was chosen on validation images so that {target:.0%} of the sure answers are right; then how many of them are. "Damaged
most": the worst of five kinds of damage at its middle strength. "Slices that are worse": groups of test images (by class, size, aspect,
brightness) whose accuracy is below that of all by more than chance; of a hundred such groups two or three are by chance.
"""


def read_reports(folder: Path) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def section(reports: Sequence[Record], table: Any) -> str:
    """A row per model; nothing where there is no report."""
    if not reports:
        return ""
    header = (
        "model directory", "accuracy", "macro F1", "ECE before, after", "sure", "right of these", "damaged most", "slices that are worse",
    )  # fmt: skip
    rows = []
    for r in reports:
        m, c = r["metrics"], r["calibration"]
        middle = [d for d in r["robustness"] if d["strength"] == 2]
        worst = min(middle, key=lambda d: d["accuracy"], default=None)
        has_threshold = c["fitted"]["threshold"] is not None
        rows.append(
            (
                r["name"],
                interval(m["accuracy"], m["accuracy_interval"]),
                interval(m["macro_f1"], m["macro_f1_interval"]),
                f"{c['ece_before']:.4f}, {c['ece_after']:.4f}",
                f"{100 * c['sure'] / m['n']:.1f} %" if has_threshold else "not reached",
                interval(c["sure_accuracy"], c["sure_interval"]) if has_threshold else "",
                f"{worst['kind']}: {100 * worst['accuracy']:.1f} %" if worst else "not measured",
                ", ".join(f"{s['by']} {s['value']} ({100 * s['accuracy']:.1f} %)" for s in r["worse_slices"]) or "none",
            )
        )
    return f"{HEAD.format(target=reports[0]['target'])}\n{table(header, rows)}\n"


def interval(share: float, ends: Sequence[float] | None) -> str:
    return f"{100 * share:.1f} %" + (f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else "")
