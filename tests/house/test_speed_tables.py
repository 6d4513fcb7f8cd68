"""The tables of races say what the records say."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import speed  # noqa: E402
import speed_tables  # noqa: E402
import tables  # noqa: E402


def lane(name: str, role: str, ms: float, **more: Any) -> dict[str, Any]:
    ratio = {"median": 400 / ms, "low": 390 / ms, "high": 410 / ms}
    return {
        "name": name, "role": role, "plan": "native bf16" if role == "ours" else "", "failed": None, "median_ms": ms,
        "quartiles_ms": [ms - 1, ms + 1], "images_per_s": 8000 / ms, "to_official": ratio, "memory_mib": 12.3, "difference": 1e-3,
        "ours_is_faster": {"median": ms / 50, "low": 1, "high": 2}, "share_of_matmul_rate": 0.5, **more,
    }  # fmt: skip


RACE: dict[str, Any] = {
    "kind": "speed",
    "command": "convmix benchmark convmixer_768_32 --output somewhere",
    "date": "2026-11-21",
    "work": {"model": "convmixer_768_32", "kind": "inference", "batch_size": 8, "height": 224, "width": 224, "device": "cpu", "threads": 2,
             "precision": "bf16"},
    "gmacs_per_image": 19.55,
    "lanes": [
        lane("official path", "official", 400.0),
        lane("OpenVINO bf16", "peer", 100.0),
        lane("convmix", "ours", 50.0),
        {"name": "ONNX Runtime", "role": "peer", "plan": "", "failed": "onnxruntime is not installed"},
    ],
    "ours": "convmix",
    "best_peer": "OpenVINO bf16",
    "ours_to_official": {"median": 8.0, "low": 7.8, "high": 8.2},
    "ours_to_best_peer": {"median": 2.0, "low": 1.9, "high": 2.1},
    "machine": {"name": "a processor"},
    "rates": {"matmul_fp32": 150e9, "matmul_bf16": 400e9, "copy": 50e9},
    "versions": {"torch": "2.15.0"},
}  # fmt: skip


def test_a_row_has_three_rates_and_two_ratios():
    assert speed_tables.summary([RACE], tables.table).splitlines()[2] == (
        "| `convmixer_768_32` | inference, bf16, 8 x 224 px, cpu | 20.0 | 80.0 (OpenVINO bf16) | 160 (native bf16) | 8.00 (7.80 to 8.20) "
        "| **2.00 (1.90 to 2.10)** |"
    )


def test_the_headline_is_the_inference_of_the_largest_network():
    training = RACE | {"work": RACE["work"] | {"kind": "training"}, "gmacs_per_image": 90.0}
    larger = RACE | {"work": RACE["work"] | {"model": "convmixer_1536_20"}, "gmacs_per_image": 48.0}
    failed = RACE | {"ours": None, "gmacs_per_image": 99.0}
    assert speed_tables.headline([training, RACE, larger, failed]) == [
        ("inference, bf16, 8 x 224 px, cpu", "`convmixer_1536_20`", "160 images/s",
         "8.00 (7.80 to 8.20) times the official path, 2.00 (1.90 to 2.10) times the best peer (OpenVINO bf16)"),
    ]  # fmt: skip
    assert speed_tables.headline([training]) == []


def test_a_section_has_every_contender_the_fastest_first():
    lines = speed_tables.section(RACE, tables.table).splitlines()
    assert "convmix benchmark convmixer_768_32" in lines  # without the place on the disk
    names = [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:]
    assert names == ["| **convmix** (native bf16)", "| OpenVINO bf16", "| official path", "| ONNX Runtime"]
    assert "onnxruntime is not installed" in "\n".join(lines)
    assert "400 (bf16) GFLOP/s" in "\n".join(lines)


def test_sweeps_show_speed_and_memory_at_every_point():
    swept = {"kind": "sweep", "over": "batch", "records": [RACE | {"point": 1}, RACE | {"point": 2}], "file": "x-batch"}
    text = speed_tables.sweep_section(swept, tables.table)
    assert "| 1 | 20.0 / 12 | 80.0 / 12 | 160 / 12 |  |" in text
    assert "benchmarks/results/speed/x-batch.png" in text


def test_an_incomplete_record_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({k: v for k, v in RACE.items() if k != "rates"}))
    with pytest.raises(SystemExit, match=r"a\.json is no complete record of a race: it lacks rates"):
        speed_tables.read_races(tmp_path)


def test_training_comes_before_inference_and_small_before_large(tmp_path: Path):
    small = RACE | {"work": RACE["work"] | {"model": "convmixer_256_8"}, "gmacs_per_image": 0.1}
    trained = RACE | {"work": RACE["work"] | {"kind": "training"}}
    for name, record in (("a", RACE), ("b", small), ("c", trained)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    races, sweeps = speed_tables.read_races(tmp_path)
    assert [race["file"] for race in races] == ["c", "b", "a"] and not sweeps


def test_every_recorded_race_can_be_run_again():
    races, sweeps = speed_tables.read_races(tables.SPEED)
    raced = {word for command in speed.RACES.values() for word in command.split()}
    for record in races:
        assert record["work"]["model"] in raced
    for sweep in sweeps:  # its points are models of other kernels and depths
        assert shlex.split(speed_tables.command(sweep["records"][0])) in [shlex.split(command) for command in speed.RACES.values()]
