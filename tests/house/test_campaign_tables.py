"""What a campaign has found: kept line by line, summed up, and shown as it was."""

import json
import sys
from pathlib import Path

import pytest

from tests.campaign.record import Outcome, Record
from tests.conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import campaign_tables
import tables


def test_a_record_is_gone_on_with_and_a_half_written_line_is_a_case_not_done(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl", seed=1)
    record.add(Outcome("images", 0, "answered", cases=20, seconds=1.0))
    record.add(Outcome("images", 1, "hang", "images 1", seconds=60.0))
    with (tmp_path / "record.jsonl").open("a") as file:
        file.write('{"part": "images", "num')
    again = Record(tmp_path / "record.jsonl", seed=1)
    assert [again.has("images", n) for n in (0, 1, 2)] == [True, True, False]
    with pytest.raises(SystemExit, match="another campaign"):
        Record(tmp_path / "record.jsonl", seed=2)


def test_the_table_says_how_many_ran_of_how_many_and_what_was_wrong(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl", seed=1)
    record.add(Outcome("faults", 0, "answered", memory_mib=7))
    record.add(Outcome("faults", 1, "refused"))
    record.add(Outcome("faults", 2, "lost", "what"))
    record.add(Outcome("server", 0, "answered", "10 requests, p99 3 ms", cases=10, seconds=61.2))
    about = {"date": "2026-11-30", "machine": {"name": "a processor", "cores": 2}, "versions": {"convmix": "1", "torch": "2"}}
    (tmp_path / "summary.json").write_text(json.dumps(record.summary({"faults": 1000}) | about))
    page = campaign_tables.section(tmp_path / "summary.json", tables.table)
    assert "| 3 of 1,000 | 1 answered, 1 refused | 1 lost | 0 s | 7 MiB |" in page
    assert "| 10 | 10 answered | none | 61 s | 0 MiB |" in page and "Server: 10 requests, p99 3 ms." in page
    assert campaign_tables.section(tmp_path / "none.json", tables.table) == ""
