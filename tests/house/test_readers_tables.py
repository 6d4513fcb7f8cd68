"""The table of who reads what says what the record says."""

import json
import sys
from pathlib import Path

from tests.conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import readers
import readers_tables
import tables


def test_every_outcome_has_its_words(tmp_path: Path) -> None:
    wrong = {"outcome": "wrong", "task": "classify", "classes": ["a", "b", "c", "d"], "images": 7}
    one = {"outcome": "wrong", "task": "classify", "classes": ["data"], "images": 24}
    none, refused = {"outcome": "no reader", "said": ""}, {"outcome": "refused", "said": "no"}
    cases = [
        {"name": "x", "expected": {}, "read": {"convmix": {"outcome": "right"}, "peer": wrong}},
        {
            "name": "y",
            "expected": {},
            "read": {"convmix": refused, "peer": none},
        },
        {"name": "z", "expected": {}, "read": {"convmix": {"outcome": "right"}, "peer": one}},
    ]
    (tmp_path / "cases.json").write_text(json.dumps({"date": "2026-11-30", "versions": {"convmix": "1", "peer": "2.0"}, "cases": cases}))
    page = readers_tables.section(tmp_path / "cases.json", tables.table)
    assert "| `x` | right | wrong (classify, 4 classes: a, b, c, ...; 7 images) |" in page
    assert "| `y` | refused | - |" in page and "wrong (classify, 1 class: data; 24 images)" in page
    assert "| right, of all | 2 of 3 | 0 of 3 |" in page and "peer 2.0" in page
    assert readers_tables.section(tmp_path / "none.json", tables.table) == ""


def test_a_case_is_read_right_where_task_classes_and_images_are() -> None:
    expected = {"task": "detect", "classes": ["nut", "bolt"], "splits": {"train": 8, "val": 4}}
    assert readers._is_right(readers.Read("detect", ["bolt", "nut"], 12), expected)
    for other in (("classify", ["bolt", "nut"], 12), ("detect", ["nut"], 12), ("detect", ["bolt", "nut"], 8)):
        assert not readers._is_right(readers.Read(*other), expected)
    assert not readers._is_right(readers.Read("classify", ["cat"], 12), {"error": "one class"})


def test_the_record_holds_every_reader_for_every_case() -> None:
    record = json.loads(readers.RECORD.read_text())
    assert len(record["cases"]) >= 20
    assert all(case["read"].keys() == record["versions"].keys() for case in record["cases"])
    assert not [c["name"] for c in record["cases"] for r in c["read"].values() if "No module named" in r.get("said", "")]
