"""The model card says what convmix.json says, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from tiny_run import hand_made_info, make_run

from convmix.artifacts.card import model_card


@pytest.fixture
def written(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """convmix.json and config.json of a run."""
    run = make_run(tmp_path / "run", fit="letterbox")
    return run.info, json.loads((run.path / "config.json").read_text())


def test_the_front_matter_is_what_the_hub_reads(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, head, _ = model_card(*written).split("---\n", 2)
    values = yaml.safe_load(head)
    assert values["library_name"] == "timm" and values["pipeline_tag"] == "image-classification"
    assert "convmix" in values["tags"] and "license" not in values


def test_every_part_is_there_with_its_numbers(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    card = model_card(*written)
    for text in (
        "| test | 10 | 80.00 % | 49.02 % to 94.33 % | - | 0.7500 |",
        "| val | 10 | 90.00 % | 49.02 % to 94.33 % | - | 0.5000 |",
        "`ant`, `bee`, `cat`",
        "| train | 80 | given |",
        "| val | 10 | made: 0.1 of train |",
        "could not be read: 2 (`bad_images.csv`",
        "`0123456789abcdef`",
        "letterbox: the whole image fitted inside",
        "Recipe `default`, from: a test.",
        "3 epochs, 120 steps and 7,680 images in 1 min 15 s, 512 images/s (early stopping); the weights are those of epoch 2.",
        "| `optim.lr` | `0.001` |",
        "| torch | 2.11.0 |",
        "2 of the 82 train images are broken",
    ):
        assert text in card, text
    assert not re.search(r"\bNone\b|\bnan\b", card.replace("`null`", ""))


def test_the_way_to_load_depends_on_the_model(tmp_path: Path, written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    own = model_card(info, config | {"architecture": "convmlp_s", "model_args": {}})
    theirs = model_card(info, config | {"architecture": "resnet18", "model_args": {}})
    assert "tells timm about convmlp_s" in own
    assert "without convmix" in theirs and "tells timm" not in theirs


def test_the_code_for_timm_works(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    card = model_card(run.info, json.loads((run.path / "config.json").read_text()))
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("path/to/this/folder", str(run.path))
    names: dict[str, Any] = {}
    exec(code, names)
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(names["model"](x), run.model(x))
    assert names["timm"] is timm


def test_an_unfinished_training_says_so(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    assert "not finished" not in model_card(info, config)
    card = model_card(info | {"finished": False, "metrics": {}}, config)
    assert "not finished" in card and "## Results" not in card


def test_what_is_unknown_is_left_out(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    bare = {key: info[key] for key in ("format", "task", "labels", "preprocess")}
    card = model_card(bare, config)
    assert "## Data" not in card and "## Training" not in card and "## Preprocessing" in card


CHOICE = {
    "threshold": 0.7182, "target": "accuracy", "wanted": 0.95, "n": 300, "coverage": 0.6, "accuracy": 0.9533,
    "accuracy_interval": [0.9232, 0.972],
}  # fmt: skip
CALIBRATION = {
    "temperature": 1.6180, "threshold": 0.7182, "split": "val", "n": 500, "ece_before": 0.0812, "ece_after": 0.0123,
    "nll_before": 0.9, "nll_after": 0.8, "choice": CHOICE,
}  # fmt: skip


def test_the_calibration_is_told_with_its_threshold(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    assert "## Calibration" not in model_card(info, config)
    card = model_card(info | {"calibration": CALIBRATION}, config)
    for text in (
        "## Calibration\n\nLogits are divided by the temperature 1.618, fitted on 500 images of the validation split",
        "calibration error is 0.0812 before and 0.0123 after",
        'a probability below 0.7182 is "not sure"',
        "for accuracy 95.00 %: 60.00 % of them are sure, 95.33 % of those right (95 % interval 92.32 % to 97.20 %)",
        "The test split was not used to choose anything.",
    ):
        assert text in card, text
    always = model_card(info | {"calibration": CALIBRATION | {"threshold": None, "choice": None}}, config)
    assert "every answer counts as sure" in always and "0.7182" not in always


def test_a_calibration_on_the_test_split_is_confessed_and_other_data_named(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    card = model_card(info | {"calibration": CALIBRATION | {"split": "test"}}, config)
    assert "The test split was used for the calibration." in card and "not used to choose" not in card
    card = model_card(info | {"calibration": CALIBRATION | {"split": "/home/somebody/photos (all)"}}, config)
    assert "500 images of `photos (all)`" in card and "somebody" not in card


def test_odd_labels_do_not_break_the_page(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    card = model_card(info | {"labels": ["*a*", "b`c", "d\n## e", "<script>"]}, config)
    assert "`*a*`, `b'c`, `d ## e`, `<script>`" in card


def test_many_labels_are_cut_and_counted(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    assert "`c99` and 900 more" in model_card(info | {"labels": [f"c{i}" for i in range(1000)]}, config)


def test_the_place_of_the_data_on_the_machine_is_not_told(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, config = written
    base = written[0]
    card = model_card(base | hand_made_info("/home/somebody/secret/photos"), config)
    assert "trained on `photos`" in card and "somebody" not in card
    assert "trained on `uoft-cs/cifar10`" in model_card(base | hand_made_info("uoft-cs/cifar10"), config)


def test_an_older_directory_has_a_card_too(written: tuple[dict[str, Any], dict[str, Any]]) -> None:
    info, config = written
    info["run"]["schedule"].pop("keep", None)
    assert "The weights were chosen on the validation split." in model_card(info, config)
