"""Evaluation scores the right images with the right labels, and none that the run was trained on."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_run import make_run, write_folder, write_image

from convmix.artifacts.artifact import Artifact
from convmix.errors import ConfigError, DataError, RunError
from convmix.evaluation import Evaluation, evaluate, table
from convmix.metrics.classification import wilson_interval

pytestmark = pytest.mark.usefixtures("without_page")


def label_of(run: Artifact, file: Path) -> str:
    """What the model says, without any of the code under test."""
    with torch.inference_mode():
        return run.labels[int(run.model(run.preprocess.load(str(file))[None]).argmax())]


def text_of(evaluation: Evaluation) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(evaluation))
    return captured.get()


def test_the_own_test_split_is_scored(run: Artifact, photos: Path) -> None:
    result = evaluate(run, precision="fp32")
    files = sorted((photos / "test").rglob("*.png"))
    correct = sum(label_of(run, f) == f.parent.name for f in files)
    assert (result.metrics["n"], result.metrics["correct"]) == (9, correct)
    assert result.metrics["accuracy_interval"] == list(wilson_interval(correct, 9))
    assert (result.split, result.left_out, result.bad, result.notes) == ("test", 0, (), ())
    said = {image.name: (image.truth, image.prediction) for image in result.images}
    assert len(said) == 9
    for file in files:
        assert (file.parent.name, label_of(run, file)) in said.values()


def test_scores_are_written_as_json_and_csv(run: Artifact) -> None:
    result = evaluate(run.path)
    assert result.output == run.path / "evaluation-test.json"
    written = json.loads(result.output.read_text())
    assert written == result.to_dict()
    assert written["metrics"]["per_class"]["bee"]["support"] == 3
    with (run.path / "evaluation-test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["truth"], r["prediction"], float(r["probability"])) for r in rows] == [
        (i.name, i.truth, i.prediction, i.probability) for i in result.images
    ]


def test_the_recorded_splits_hold_even_where_the_files_have_moved(run: Artifact, photos: Path) -> None:
    before = evaluate(run).metrics
    everything = photos.parent / "all"
    for split in ("train", "val", "test"):
        for file in (photos / split).rglob("*.png"):
            place = everything / file.parent.name / f"{split}-{file.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    shutil.rmtree(photos)
    everything.rename(photos)  # now one folder per class, without splits
    assert evaluate(run).metrics == before
    assert evaluate(run, split="train").metrics["n"] == 12
    assert evaluate(run, split="val").metrics["n"] == 6


def test_images_that_were_trained_on_are_left_out_of_other_data(run: Artifact, photos: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", {"ant": 3, "bee": 2}, seed=50_000)
    shutil.copy(photos / "train" / "ant" / "0.png", other / "bee" / "renamed.png")
    shutil.copy(photos / "val" / "cat" / "1.png", other / "ant" / "chosen-by.png")
    shutil.copy(photos / "test" / "cat" / "1.png", other / "ant" / "unseen.png")
    result = evaluate(run, other)
    assert (result.metrics["n"], result.left_out, result.split) == (6, 2, "all")
    assert not {"renamed.png", "chosen-by.png"} & {Path(i.name).name for i in result.images}
    assert "2 images of this data were trained on or chosen by: left out" in text_of(result)
    assert result.output.name == "evaluation-other.json"


def test_a_given_test_split_is_scored_whole_and_its_copies_are_noted(tmp_path: Path, photos: Path) -> None:
    shutil.copy(photos / "train" / "ant" / "0.png", photos / "test" / "ant" / "copy.png")
    run = make_run(tmp_path / "run", splits={s: photos / s for s in ("train", "val", "test")}, spec=str(photos))
    result = evaluate(run)
    assert (result.metrics["n"], result.left_out) == (10, 0)
    assert any("1 images of the given test split are also in another split" in note for note in result.notes)


def test_nothing_but_training_images_is_an_error(run: Artifact, photos: Path) -> None:
    with pytest.raises(DataError, match="trained on, or chosen by, all of its 12 images"):
        evaluate(run, photos / "train")


def test_a_folder_of_classes_is_scored_whole(run: Artifact, photos: Path) -> None:
    result = evaluate(run, str(photos / "test"))
    assert (result.metrics["n"], result.split, result.left_out) == (9, "all", 0)
    assert result.output.name == "evaluation-photos-test.json"
    assert result.metrics == evaluate(run).metrics


def test_labels_are_matched_by_name_in_a_subset_of_the_classes(run: Artifact, tmp_path: Path) -> None:
    some = write_folder(tmp_path / "some", {"cat": 3, "bee": 2}, seed=70_000)  # bee and cat are 1 and 2 in the run, 0 and 1 here
    result = evaluate(run, some, precision="fp32")
    assert {n: s["support"] for n, s in result.metrics["per_class"].items()} == {"ant": 0, "bee": 2, "cat": 3}
    assert result.metrics["correct"] == sum(label_of(run, f) == f.parent.name for f in some.rglob("*.png"))
    assert "ant" not in text_of(result)


def test_an_unknown_class_is_named_with_the_nearest(run: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not know its class bees, did you mean bee\? \(it knows ant, bee, cat\)"):
        evaluate(run, write_folder(tmp_path / "some", {"bees": 2, "cat": 1}, seed=70_000))


def test_readable_names_beside_the_split_folders_are_used(run: Artifact, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "wordnet" / "test", {"n01": 2, "n02": 2}, seed=80_000).parent
    (root / "classes.json").write_text('{"n01": "ant", "n02": "cat"}')
    per_class = evaluate(run, root / "test").metrics["per_class"]
    assert {n: s["support"] for n, s in per_class.items()} == {"ant": 2, "bee": 0, "cat": 2}


def test_broken_images_are_listed_and_not_counted(run: Artifact, tmp_path: Path) -> None:
    some = write_folder(tmp_path / "some", {"ant": 2, "bee": 2}, seed=70_000)
    (some / "ant" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = evaluate(run, some)
    assert result.metrics["n"] == 4
    assert [Path(name).name for name, _ in result.bad] == ["broken.jpg"]
    assert json.loads(result.output.read_text())["bad"][0]["reason"] == result.bad[0][1]
    assert "1 images could not be read" in text_of(result)


def test_broken_images_alone_are_an_error(run: Artifact, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "some" / "ant").mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / "ant" / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    with pytest.raises(DataError, match="none of its 2 images can be read"):
        evaluate(run, tmp_path / "some")


def test_images_that_are_gone_are_said(run: Artifact, photos: Path) -> None:
    (photos / "test" / "ant" / "0.png").unlink()
    result = evaluate(run)
    assert result.metrics["n"] == 8
    assert result.notes == ("1 images of the recorded test split are no longer in the data",)


def test_new_images_do_not_enter_the_recorded_split(run: Artifact, photos: Path) -> None:
    write_image(photos / "test" / "ant" / "new.png", 99_999)
    assert evaluate(run).metrics["n"] == 9


def test_other_data_needs_the_split_that_is_asked_for(run: Artifact, tmp_path: Path) -> None:
    write_folder(tmp_path / "more" / "train", {"ant": 2, "bee": 2}, seed=60_000)
    write_folder(tmp_path / "more" / "val", {"ant": 2, "bee": 2}, seed=61_000)
    with pytest.raises(DataError, match="has no test split, it has train, val; give split=train"):
        evaluate(run, tmp_path / "more")
    result = evaluate(run, tmp_path / "more", split="val")
    assert (result.metrics["n"], result.output.name) == (4, "evaluation-more-val.json")


def test_the_output_goes_where_it_is_asked_to(run: Artifact, tmp_path: Path) -> None:
    evaluate(run, output=tmp_path / "scores" / "mine.json")
    assert (tmp_path / "scores" / "mine.json").exists() and (tmp_path / "scores" / "mine.csv").exists()
    with pytest.raises(ConfigError, match=r"must end in \.json"):
        evaluate(run, output=tmp_path / "mine.txt")


def test_a_run_without_its_record_of_splits_is_refused(run: Artifact) -> None:
    (run.path / "splits.csv").unlink()
    with pytest.raises(RunError, match=r"has no splits\.csv"):
        evaluate(run)


def test_data_that_has_moved_is_named(run: Artifact, photos: Path) -> None:
    photos.rename(photos.with_name("elsewhere"))
    with pytest.raises(DataError, match="name the data"):
        evaluate(run)


def test_an_unknown_split_names_the_nearest(run: Artifact) -> None:
    with pytest.raises(ConfigError, match="split: tset is not one of train, val, test, did you mean test"):
        evaluate(run, split="tset")


def test_weights_that_are_not_finite_are_refused(run: Artifact) -> None:
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        evaluate(run)


def test_of_many_classes_the_worst_are_shown_first(tmp_path: Path) -> None:
    per_class = {f"c{i}": {"precision": 1.0, "recall": 1.0, "f1": 1 - i / 100, "support": 1} for i in range(40)}
    numbers = dict.fromkeys(("accuracy", "top5", "loss", "balanced_accuracy", "macro_precision", "macro_f1"), 0.5)
    metrics = {"n": 40, "correct": 20, "accuracy_interval": [0.3, 0.7], "per_class": per_class, **numbers}
    text = text_of(Evaluation("run", "[b]data", "test", metrics, 0, (), (), tmp_path / "e.json", ()))
    assert text.index("c39") < text.index("c38") < text.index("c10")
    assert "c9 " not in text and "10 more classes with a better F1" in text
    assert "[b]data" in text and "50.00 %, 95 % interval 30.00 % to 70.00 %" in text
