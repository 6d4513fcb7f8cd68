"""`calibrate` fits on the right images, chooses what was asked for, and writes all of it or nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from browser import look_at
from PIL import Image
from rich.console import Console
from tiny_run import LABELS, make_run, write_folder, write_image

from convmix.artifacts.artifact import Artifact, load_artifact
from convmix.errors import ConfigError, DataError
from convmix.evaluation import calibration_page
from convmix.evaluation.calibrate import calibrate
from convmix.evaluation.calibration_page import Calibrated, table
from convmix.inference.prediction import predict
from convmix.metrics.calibration import fit_temperature

N = {"train": 12, "val": 60, "test": 30}


def logits_of(run: Artifact, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says about a folder of class folders, and the truth, without any of the code under test."""
    files = sorted(folder.rglob("*.png"))
    with torch.inference_mode():
        logits = run.model(torch.stack([run.preprocess.load(str(file)) for file in files]))
    return logits, torch.tensor([run.labels.index(file.parent.name) for file in files])


@pytest.fixture
def run(tmp_path: Path) -> Artifact:
    """An untrained run on tmp_path/photos/{train,val,test}, whose classes are what the model says, but for the least certain fifth."""
    model = make_run(tmp_path / "first")
    write_folder(tmp_path / "photos" / "train", dict.fromkeys(LABELS, N["train"] // 3))
    for seed, (split, n) in enumerate([("val", N["val"]), ("test", N["test"])], start=5):
        files = [write_image(tmp_path / "new" / f"{i}.png", 1000 * seed + i) for i in range(n)]
        rows = sorted(predict(model, files, precision="fp32"), key=lambda row: row.probability or 0)
        for i, row in enumerate(rows):
            column = (LABELS.index(row.label or "") + (i < n // 5)) % len(LABELS)
            to = tmp_path / "photos" / split / LABELS[column] / Path(row.name).name
            to.parent.mkdir(parents=True, exist_ok=True)
            Path(row.name).rename(to)
    return make_run(tmp_path / "run", splits={split: tmp_path / "photos" / split for split in N}, spec=str(tmp_path / "photos"))


@pytest.fixture(autouse=True)
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a calibration; only tests of the page and of what is written have pictures."""
    if not any(word in request.node.name for word in ("page", "written")):
        for picture in ("reliability_picture", "coverage_picture"):
            monkeypatch.setattr(calibration_page, picture, lambda *arguments, **settings: b"")


def text_of(result: Calibrated) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(result))
    return captured.get()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_temperature_is_that_of_the_validation_split(run: Artifact, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos" / "test")  # not needed, so not looked at
    result = calibrate(run.path, precision="fp32")
    expected = fit_temperature(*logits_of(run, tmp_path / "photos" / "val"))
    assert result.calibration.temperature == pytest.approx(expected, rel=1e-4) != 1.0
    assert (result.calibration.n, result.calibration.split, result.calibration.threshold) == (60, "val", None)
    assert load_artifact(run.path).calibration == result.calibration
    assert f"temperature {expected:.3f}, fitted on 60 images of the validation split" in (run.path / "README.md").read_text()


@pytest.mark.slow
def test_an_accuracy_asked_for_is_that_of_the_answers_that_predict_is_sure_of(run: Artifact, tmp_path: Path) -> None:
    result = calibrate(run, accuracy=0.9)
    choice = result.calibration.choice
    assert choice is not None and choice.accuracy >= 0.9 and choice.coverage < 1
    rows = predict(run, [tmp_path / "photos" / "val"])  # the loaded run has learned of it
    sure = [row for row in rows if row.sure]
    assert len(sure) == choice.n
    assert sum(Path(row.name).parent.name == row.label for row in sure) / choice.n == choice.accuracy
    assert predict(run.path, [tmp_path / "photos" / "val"]) == rows


def test_a_coverage_asked_for_is_the_share_that_predict_is_sure_of(run: Artifact, tmp_path: Path) -> None:
    calibrate(run, coverage=0.5)
    assert sum(bool(row.sure) for row in predict(run, [tmp_path / "photos" / "val"])) == 30


@pytest.mark.slow
def test_what_is_found_is_written_for_machines_and_people(run: Artifact) -> None:
    result = calibrate(run, accuracy=0.9)
    assert json.loads((run.path / "calibration.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    written = json.loads(result.output.read_text())
    assert written["curve"][-1]["coverage"] == 1.0 and written["curve"][-1]["accuracy"] == 0.8
    assert sum(b["n"] for b in written["bins_after"]) == 60
    for name in ("reliability", "coverage"):
        with Image.open(run.path / f"calibration-{name}.png") as picture:
            assert picture.width == 900
    text = text_of(result)
    assert f"{result.calibration.threshold:.4f}, not sure below it" in text
    assert text.rstrip().endswith(str(run.path / "calibration.html"))
    assert "ask for more, or bring more images" in text


@pytest.mark.slow
def test_the_page_opens(run: Artifact) -> None:
    seen = look_at(calibrate(run, accuracy=0.9).page, width=390)
    assert (seen.errors, seen.requests, seen.broken_images, seen.overflows) == ((), (), 0, False)
    assert "When to say: not sure" in seen.text and "not reached" in seen.text


def test_without_a_wish_every_answer_is_sure_again(run: Artifact) -> None:
    first = calibrate(run, coverage=0.5)
    again = calibrate(run)
    assert again.previous == first.calibration
    assert again.calibration.threshold is None and again.calibration.temperature == first.calibration.temperature
    assert any("is gone" in note for note in again.notes)
    assert "every answer is sure" in text_of(again)


# Which images


def test_the_test_split_is_used_only_by_its_name_and_confessed(run: Artifact) -> None:
    assert not any("blind" in note for note in calibrate(run).notes)
    result = calibrate(run, split="test")
    assert (result.calibration.n, result.calibration.split) == (30, "test")
    assert any("no longer blind" in note for note in result.notes)
    assert "The test split was used for the calibration." in (run.path / "README.md").read_text()


def test_of_other_data_only_what_the_run_has_never_seen_is_used(run: Artifact, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", dict.fromkeys(LABELS, 8), seed=9000)
    for split, n in N.items():
        for i, file in enumerate(sorted((tmp_path / "photos" / split).rglob("*.png"))[: n // 3]):
            shutil.copy(file, other / "ant" / f"{split}{i}.png")
    result = calibrate(run, other)
    assert result.calibration.n == 24
    assert result.left_out == sum(n // 3 for n in N.values())
    assert any("10 images of this data are in the run's test split: left out" in note for note in result.notes)
    assert result.calibration.split == f"{other} (all)"
    expected = fit_temperature(*logits_of(run, write_folder(tmp_path / "same", dict.fromkeys(LABELS, 8), seed=9000)))
    assert result.calibration.temperature == pytest.approx(expected, rel=1e-2)


def test_a_copy_of_the_test_split_is_refused(run: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all its images are in the run's test split"):
        calibrate(run, shutil.copytree(tmp_path / "photos" / "test", tmp_path / "copy"))


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "train"}, "what the run learned from"),
        ({"split": "vla"}, "split: vla is not one of train, val, test, did you mean val"),
        ({"accuracy": 0.9, "coverage": 0.9}, "either an accuracy or a coverage"),
        ({"accuracy": 95}, "accuracy: 95 is outside 0..1"),
        ({"coverage": 0}, "coverage: 0 is outside 0..1"),
        ({"accuracy": 0.9, "split": "test", "batch_size": 0}, "batch_size: 0 is too small"),
        ({"precision": "int8"}, "int8"),
    ],
)
def test_mistakes_are_named_and_change_nothing(run: Artifact, settings: dict[str, object], message: str) -> None:
    before = contents(run.path)
    with pytest.raises(ConfigError) as caught:
        calibrate(run, **settings)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert contents(run.path) == before and run.calibration is None


def test_an_accuracy_out_of_reach_changes_nothing(run: Artifact, tmp_path: Path) -> None:
    noise = write_folder(tmp_path / "noise", dict.fromkeys(LABELS, 20), seed=50_000)
    before = contents(run.path)
    with pytest.raises(ConfigError, match=r"accuracy: 0\.999 is not reached on these 60 images at any threshold; the best is 0\."):
        calibrate(run, noise, accuracy=0.999)
    assert contents(run.path) == before


def test_too_few_images_are_counted(run: Artifact, tmp_path: Path) -> None:
    few = write_folder(tmp_path / "few", dict.fromkeys(LABELS, 3), seed=7000)
    with pytest.raises(DataError, match="9 images that can be read are too few to calibrate on, expected at least 10"):
        calibrate(run, few)


def test_words_that_somebody_wrote_into_the_card_are_kept(run: Artifact) -> None:
    calibrate(run)
    card = run.path / "README.md"
    card.write_text(card.read_text() + "\nAsk Ann before you use it.\n")
    mine = card.read_text()
    result = calibrate(run, coverage=0.5)
    assert card.read_text() == mine
    assert any("README.md" in note for note in result.notes)
    assert load_artifact(run.path).calibration == result.calibration
