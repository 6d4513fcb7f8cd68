"""What `make demo` shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo_learns_the_digits_and_labels_files(tmp_path: Path) -> None:
    env = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, "-m", "convmix.demo"], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"test accuracy \d+\.\d+%, 95 % interval", done.stdout)
    run = tmp_path / "runs" / "digits"
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["train"] + record["data"]["val"] + record["data"]["test"] == 1797
    assert record["test"]["accuracy"] >= 0.985
    assert (run / "curves.png").stat().st_size > 10_000
    assert (run / "predictions.png").stat().st_size > 10_000
    truths = [p.stem.split("_a_")[1] for p in sorted((run / "samples").glob("*.png"))]
    rows = [line.split() for line in done.stdout.splitlines() if "samples/" in line and ".png" in line and "*" not in line]
    assert len(rows) == len(truths) == 8
    assert sum(truth in row for truth, row in zip(truths, rows, strict=True)) >= 7
