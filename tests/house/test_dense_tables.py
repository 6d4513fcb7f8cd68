"""RESULTS.md's section on detection and segmentation says what its records say."""

import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import dense  # noqa: E402
import dense_tables  # noqa: E402
import tables  # noqa: E402

RECORD: dict[str, Any] = {
    "name": "toy", "command": "convmix train toy --taps authors", "data": {"name": "toy"}, "task": "segment", "model": "convmlp_t",
    "parameters": 2750000, "macs": 1.6e9, "train_elapsed_s": 600.0, "epochs_done": 15.4,
    "settings": {"model": "convmlp_t", "taps": "authors"},
    "test": {"n": 233, "miou": 0.34, "miou_interval": [0.33, 0.35], "pixel_accuracy": 0.8, "pixel_accuracy_interval": [0.79, 0.81]},
    "position_prior": {"miou": 0.17, "miou_interval": [0.16, 0.18]}, "machine": {"name": "a processor", "cores": 1, "precision": "bf16"},
}  # fmt: skip


def test_a_row_says_model_settings_scores_and_what_to_beat() -> None:
    text = dense_tables.section([RECORD], tables.table)
    assert "| toy | segment | `convmlp_t`, taps authors | 2.75 M | 1.60 G | 10 min, 15 epochs | 233 |" in text
    assert "mean IoU 34.0 % (33.0 to 35.0); pixel accuracy 80.0 % (79.0 to 81.0)" in text and "so 2.00 times" in text
    assert "a processor, 1 core, bf16" in text and RECORD["command"] in text


def test_the_headline_is_the_detector_of_the_best_ap() -> None:
    scores = {"n": 72, "ap_interval": [0.5, 0.55], "ap50": 0.8, "ap50_interval": [0.7, 0.9]}
    worse, better = (
        RECORD | {"task": "detect", "model": f"net_{ap}", "settings": {}, "test": scores | {"ap": ap}, "position_prior": None}
        for ap in (0.42, 0.53)
    )
    assert dense_tables.headline([better, worse, RECORD]) == [
        ("objects in toy, 72 test images", "`net_0.53`", "2.75 M parameters, 10 min, 15 epochs",
         "AP 53.0 % (50.0 to 55.0); AP50 80.0 % (70.0 to 90.0)"),
    ]  # fmt: skip
    assert dense_tables.headline([RECORD]) == []


def test_every_experiment_has_its_record() -> None:
    recorded = {path.stem for path in (REPO / "benchmarks/results/dense").glob("*.json")}
    assert recorded == {e.name for e in dense.EXPERIMENTS}
