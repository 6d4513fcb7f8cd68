"""docs/how_to/plan.md multiplies as it says, and its rates are those of the records."""

import json
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import plan_tables  # noqa: E402
import tables  # noqa: E402
from plan_tables import Rates  # noqa: E402

RATES = Rates(
    inference={"convmixer_768_32": 5.0}, training={"convmixer_768_32": 2.0}, memory_mib={"convmixer_768_32": 450.0}, prepared=20.0,
    augmented=10.0, image_bytes=20_000.0, machine="a processor, 2 cores",
)  # fmt: skip


def cells(text: str, *words: str) -> list[str]:
    [line] = [line for line in text.splitlines() if all(word in line for word in words)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_preparing_and_computing_add_up() -> None:
    assert plan_tables.together(5.0, 20.0) == pytest.approx(4.0)
    assert plan_tables.hours(7200, 2) == 1.0


def test_a_billion_predictions_on_a_node() -> None:
    row = cells(plan_tables.prediction_table(RATES, tables.table), "convmixer_768_32", "64 cores")
    # 4 images/s x 64 = 256; 1e9 / 256 / 3600 = 1085.07 h; 1e6 / 256 / 3600 x 64 x $0.05 = $3.47; 256 x 115.44 kB = 29.6 MB/s
    assert row[2:] == ["256", "1,085", "$3.47", "10.9", "30"]


def test_imagenet_on_a_card_and_on_nodes() -> None:
    text = plan_tables.training_table(RATES, tables.table)
    # 300 x 1,281,167 / 187.2 / 3600 = 570.3 h; / 8 / 0.9 / 24 = 3.3 days; x $2.50; 187.2 / 10 = 19 cores
    assert cells(text, "convmixer_768_32", "3090")[3:] == ["187", "570", "3.3", "$1,426", "19"]
    assert cells(text, "convmixer_768_32", "64 cores")[3:] == ["128", "834", "4.8", "$2,669", "13"]


def test_the_rates_are_those_of_the_records(tmp_path: Path) -> None:
    (tmp_path / "speed").mkdir()
    (tmp_path / "plan").mkdir()
    work = {"kind": "inference", "model": "convmlp_s", "height": 224, "precision": "bf16", "threads": 2}
    lanes = [
        {"name": "channels_last", "images_per_s": 99.0, "memory_mib": 1.0},
        {"name": "convmix", "images_per_s": 30.0, "memory_mib": 300.0},
    ]
    race = {"kind": "speed", "work": work, "lanes": lanes, "machine": {"name": "a processor", "cores": 2}}
    (tmp_path / "speed/a.json").write_text(json.dumps(race))
    assert plan_tables.read_rates(tmp_path) is None
    assert "Nothing is recorded" in plan_tables.tables(tmp_path, tables.table)
    images = {"images": {"bytes": 1000.0}, "images_per_core_second": {"evaluation": [40.0, 50.0, 90.0], "training": [30.0]}}
    (tmp_path / "plan/images.json").write_text(json.dumps(images))
    rates = plan_tables.read_rates(tmp_path)
    assert rates is not None
    assert (rates.inference, rates.prepared, rates.augmented) == ({"convmlp_s": 15.0}, 50.0, 30.0)
    assert rates.memory_mib == {"convmlp_s": 300.0}


def test_the_page_changes_between_its_markers_only(tmp_path: Path) -> None:
    text = f"above\n{plan_tables.BEGIN}\nold\n{plan_tables.END}\nbelow\n"
    written = plan_tables.page(text, tmp_path, tables.table)
    assert written.startswith("above\n") and written.endswith("\nbelow\n") and "old" not in written
    with pytest.raises(SystemExit, match="once each"):
        plan_tables.page("no markers", tmp_path, tables.table)
