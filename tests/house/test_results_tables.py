"""RESULTS.md and the README's table say what the run records say, to the digit."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benchmarks"))

import show  # noqa: E402
import tables  # noqa: E402

RECORD: dict[str, Any] = {
    "name": "toy-convmixer",
    "command": "convmix train toy --budget 10m",
    "date": "2026-11-21",
    "data": {"name": "toy", "fingerprint": "0123456789abcdef", "train": 45000, "val": 5000, "test": 10000},
    "model": "convmixer_256_8",
    "parameters": 594186,
    "macs": 147883520,
    "recipe": "convmixer_cifar10",
    "settings": {"budget": "10m"},
    "budget_s": 600.0,
    "epochs_done": 22.96,
    "images_seen": 1035000,
    "elapsed_s": 655.0,
    "train_elapsed_s": 560.4,
    "images_per_s": 1846.9,
    "test": {"n": 10000, "accuracy": 0.7654, "accuracy_interval": [0.75699, 0.77361], "top5": 0.985, "loss": 0.7012},
    "val": {"n": 5000, "accuracy": 0.77, "accuracy_interval": [0.758, 0.781], "top5": 0.986, "loss": 0.69},
    "machine": {"device": "cpu", "name": "a processor", "cores": 2, "precision": "fp32"},
    "versions": {"convmix": "0.1.0", "torch": "2.15.0"},
    "curve": [
        {"epoch": e, "step": 351 * e, "train_loss": 2 / e, "val_loss": 1.8 / e, "val_accuracy": e / 30, "lr": 0.01, "elapsed_s": 25.0 * e}
        for e in range(1, 24)
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one record and pages that are not written yet."""
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/results/toy-convmixer.json").write_text(json.dumps(RECORD))
    (tmp_path / "docs/how_to").mkdir(parents=True)
    (tmp_path / "docs/how_to/plan.md").write_text(f"{tables.plan_tables.BEGIN}\n{tables.plan_tables.END}\n")
    (tmp_path / "README.md").write_text(f"above\n\n{tables.BEGIN}\nold\n{tables.END}\n\nbelow\n")
    return tmp_path


def test_the_pages_say_what_the_records_say() -> None:
    assert tables.main(["--check"]) == 0, "run `make results`"


def test_every_experiment_has_its_record() -> None:
    recorded = {path.stem for path in (REPO / "benchmarks/results").glob("*.json")}
    assert recorded == {e.name for e in show.EXPERIMENTS}


def test_a_record_keeps_the_command_of_its_experiment() -> None:
    for experiment in show.EXPERIMENTS:
        record = json.loads((REPO / "benchmarks/results" / f"{experiment.name}.json").read_text())
        assert (record["name"], record["command"]) == (experiment.name, experiment.command)


def test_a_row_shows_accuracy_interval_and_count() -> None:
    row = tables.summary([RECORD]).splitlines()[2]
    assert row == ("| toy | `convmixer_256_8` | 0.594 M | budget 10 min: 23 epochs | 1847 | 76.5 % (75.7 to 77.4) | 10,000 |")


def test_the_headline_is_the_best_accuracy_on_the_largest_test_set() -> None:
    small = RECORD | {"model": "small", "test": RECORD["test"] | {"n": 100, "accuracy": 0.99}}
    worse = RECORD | {"model": "worse", "test": RECORD["test"] | {"accuracy": 0.70}}
    [row] = tables.headlines([small, RECORD, worse]).splitlines()[2:]
    assert row.startswith("| classes of toy, 10,000 test images | `convmixer_256_8` | 0.594 M parameters, budget 10 min: 23 epochs |")
    assert row.endswith("| accuracy 76.5 % (75.7 to 77.4) |")
    assert "`make show`" in tables.headlines([])


def test_the_readme_shows_three_headlines_and_the_results_page_the_rest() -> None:
    generated = (REPO / "README.md").read_text().split(tables.BEGIN)[1].split(tables.END)[0]
    assert len([line for line in generated.splitlines() if line.startswith("|")]) == 2 + 3


def test_the_results_page_carries_command_machine_and_a_short_curve() -> None:
    page = tables.results_page([RECORD])
    assert "\nconvmix train toy --budget 10m\n" in page
    assert "594,186 parameters, 0.148 G multiply-adds per image" in page
    assert "a processor, 2 cores, cpu, fp32; torch 2.15.0, convmix 0.1.0; 2026-11-21" in page
    points = tables.curve(RECORD["curve"]).splitlines()[2:]
    assert len(points) == tables.CURVE_ROWS
    assert points[0].startswith("| 1 | 351 |")
    assert points[-1] == "| 23 | 8073 | 0.087 | 0.078 | 76.7 | 0.01 | 9.6 min |"


def test_the_readme_changes_between_its_markers_only(root: Path) -> None:
    assert tables.main([], root=root) == 0
    text = (root / "README.md").read_text()
    assert text.startswith("above\n\n" + tables.BEGIN) and text.endswith(tables.END + "\n\nbelow\n")
    assert "old" not in text and "76.5 %" in text


def test_check_fails_on_a_number_typed_by_hand(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"], root=root) == 1
    tables.main([], root=root)
    assert tables.main(["--check"], root=root) == 0
    readme = root / "README.md"
    readme.write_text(readme.read_text().replace("76.5 %", "86.5 %"))
    capsys.readouterr()
    assert tables.main(["--check"], root=root) == 1
    assert "README.md is not what the records say" in capsys.readouterr().err


def test_an_incomplete_record_is_named_with_its_missing_key(root: Path) -> None:
    record = copy.deepcopy(RECORD)
    del record["test"]["accuracy_interval"]
    (root / "benchmarks/results/toy-convmixer.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match=r"toy-convmixer\.json.*test\.accuracy_interval"):
        tables.main([], root=root)


def test_few_classes_have_no_top5(root: Path) -> None:
    record = RECORD | {"test": RECORD["test"] | {"top5": None}, "budget_s": None}
    page = tables.results_page([record])
    assert "top-5" not in page and "(75.7 to 77.4), loss 0.701" in page
    assert "- training: 23 epochs," in page


def test_collecting_keeps_the_numbers_and_leaves_out_the_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = show.Experiment("toy", "convmix train toy", "")
    (root / "runs/toy").mkdir(parents=True)
    (root / "runs/toy/record.json").write_text(json.dumps(RECORD | {"command": "/somewhere/python -m convmix train toy"}))
    monkeypatch.setattr(show, "PLACE", root)
    monkeypatch.setattr(show, "RESULTS", root / "benchmarks/results")
    record = json.loads(show.collect(experiment).read_text())
    assert record == RECORD | {"name": "toy", "command": "convmix train toy"}


def test_an_archive_gets_its_name_only_when_unpacked_whole(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "PLACE", tmp_path)
    monkeypatch.setattr(show, "SHARED", shared)
    show.prepare("hymenoptera160.tar.gz")
    assert {p.name for p in tmp_path.iterdir()} == {"hymenoptera160"}
    assert {p.name for p in (tmp_path / "hymenoptera160").iterdir() if p.is_dir()} == {"train", "val"}
