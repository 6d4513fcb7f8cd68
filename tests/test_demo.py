"""What `make demo` shows."""

import json
import re

import pytest

from tests.made_once import MadeOnce
from tests.trained_runs import demo


@pytest.mark.slow
def test_demo_learns_the_digits_and_labels_files(made_once: MadeOnce) -> None:
    said, run = (demo(made_once) / "said.txt").read_text(), demo(made_once) / "runs" / "digits"
    assert re.search(r"test accuracy \d+\.\d+%, 95 % interval", said)
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["train"] + record["data"]["val"] + record["data"]["test"] == 1797
    assert record["test"]["accuracy"] >= 0.985
    assert (run / "curves.png").stat().st_size > 10_000
    assert (run / "predictions.png").stat().st_size > 10_000
    truths = [p.stem.split("_a_")[1] for p in sorted((run / "samples").glob("*.png"))]
    rows = [line.split() for line in said.splitlines() if "samples/" in line and ".png" in line and "*" not in line]
    assert len(rows) == len(truths) == 8
    assert sum(truth in row for truth, row in zip(truths, rows, strict=True)) >= 7
