"""docs/gpu_floors.md says what the code counts."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_floors  # noqa: E402


def test_the_page_is_what_the_code_says() -> None:
    assert gpu_floors.PAGE.read_text() == gpu_floors.page(), "run `python benchmarks/gpu_floors.py`"
