"""An evaluation of objects: its numbers are those of the answers, its page opens anywhere and shows the images that matter."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import look_at
from dense_answers import answers, objects, outlines, run_of, selection_of, without_outlines
from PIL import Image
from rich.console import Console

from convmix.evaluation import detection
from convmix.evaluation.dense_plots import MOST_CURVES, precision_recall_picture
from convmix.evaluation.dense_result import Difference, ObjectsEvaluation
from convmix.evaluation.detection import evaluate_objects
from convmix.evaluation.detection_page import table
from convmix.evaluation.prediction_errors import BACKGROUND, BADLY_PLACED, MISSED, RIGHT, TWICE, WRONG_CLASS
from convmix.metrics.detection import detection_metrics

LABELS = ("cat <b>", "dog", "fish")  # no fish anywhere
CAT, DOG = (2, 2, 32, 32, 0), (40, 10, 70, 50, 1)


def evaluated(folder: Path, *, n: int = 12, masks: bool = False, spoiled: int = 3, **more: object) -> ObjectsEvaluation:
    """n images of a cat and a dog: right but for the first `spoiled`, where the cat is said to be a dog and the dog is not found."""
    truths = [objects(CAT, DOG, masks=masks)] * n
    right = answers(LABELS, (*CAT, 0.9), (*DOG, 0.8), masks=masks)
    wrong = answers(LABELS, (2, 2, 32, 32, 1, 0.85), (60, 50, 75, 58, 0, 0.3), masks=masks)
    found = [wrong] * spoiled + [right] * (n - spoiled)
    selection = selection_of(folder / "data", n)
    settings = {"bad": (), "notes": (), "output": folder / "run" / "evaluation-test.json"} | more
    return evaluate_objects(run_of(folder / "run", LABELS), selection, found, truths, **settings)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def without_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second per evaluation; only tests of the page have one."""
    if "page" not in request.node.name:
        monkeypatch.setattr(detection, "write_page", lambda *arguments: [])


@pytest.mark.parametrize("masks", [False, True])
def test_the_files_hold_what_was_found_out(tmp_path: Path, masks: bool) -> None:
    e = evaluated(tmp_path, masks=masks, bad=[("x.png", "empty file")], notes=["look"])
    assert e.by_outline is masks and e.metrics["n"] == 12 and e.metrics["objects"] == 24
    cats, dogs = e.mistakes[LABELS[0]], e.mistakes[LABELS[1]]
    assert (cats[RIGHT], cats[MISSED], dogs[RIGHT], dogs[WRONG_CLASS], dogs[MISSED]) == (9, 0, 9, 3, 3)
    assert sum(n for counts in e.mistakes.values() for kind, n in counts.items() if kind in (TWICE, BADLY_PLACED, BACKGROUND)) == 0
    assert [(s.size, s.objects, s.found) for s in e.sizes] == [("small", 12, 9), ("medium", 12, 9)]  # 30x30 and 30x40
    assert e.sizes[0].interval[0] < e.sizes[0].recall == 0.75 < e.sizes[0].interval[1]
    told = json.loads(e.output.read_text())
    assert told == json.loads(json.dumps(e.to_dict())) and told["bad"] == [{"name": "x.png", "reason": "empty file"}]
    assert told["metrics"]["mask_ap50" if masks else "ap50"] == e.metrics["ap50"]
    rows = list(csv.DictReader(io.StringIO(e.output.with_suffix(".csv").read_text())))
    assert [row["name"] for row in rows] == [f"{i}<b>.png" for i in range(12)]
    assert [rows[0][k] for k in ("objects", "found", "right", "wrong_class", "missed", "mean_iou")] == ["2", "1", "0", "1", "1", ""]
    assert [rows[5][k] for k in ("objects", "found", "right", "wrong_class", "missed", "mean_iou")] == ["2", "2", "2", "0", "0", "1.0"]


def test_the_scores_are_those_of_detection_metrics(tmp_path: Path) -> None:
    e = evaluated(tmp_path, n=4, spoiled=1)
    right, wrong = answers(LABELS, (*CAT, 0.9), (*DOG, 0.8)), answers(LABELS, (2, 2, 32, 32, 1, 0.85), (60, 50, 75, 58, 0, 0.3))
    assert e.metrics == detection_metrics([wrong, right, right, right], [objects(CAT, DOG)] * 4, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize(("masks", "width"), [(False, 1100), (True, 390)])
def test_a_browser_shows_the_page(tmp_path: Path, masks: bool, width: int) -> None:
    e = evaluated(tmp_path, masks=masks, bad=[("x.png", "empty file")], notes=["look here"])
    names = ("precision-recall", "reliability", "typical", "worst")
    assert sorted(f.name for f in e.output.parent.glob("*.png")) == [f"evaluation-test-{name}.png" for name in names]
    seen = look_at(e.page, width=width, dark=masks)
    assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
    for said in (
        "Evaluation of run", "street & <yard>, test split", "cat <b>", "AP50", "wrong class", "Worst images", "Typical images",
        "look here", "x.png: empty file", "small", "24 objects",
        "expected calibration error",
    ):  # fmt: skip
        assert said in seen.text
    assert ("outlines: AP50" in seen.text) is masks
    assert "fish" not in seen.text.split("What goes wrong")[0]  # a class without objects has no scores


def test_the_terminal_says_the_scores_and_where_the_rest_is(tmp_path: Path) -> None:
    e = evaluated(tmp_path)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table(e))
    said = captured.get()
    assert "AP50" in said and "cat <b>" in said and "18 right, 3 wrong class" in said and "3 missed" in said
    assert said.rstrip().endswith(f"page: {e.page}") and said.count("\n") < 40


def test_a_run_is_told_from_a_worse_one_and_not_from_itself(tmp_path: Path) -> None:
    right = answers(LABELS, (*CAT, 0.9), (*DOG, 0.8))
    worse = evaluated(tmp_path, against=("other/run", [right] * 12)).against
    assert worse is not None and worse.convincing and worse.difference < 0 and worse.rival_value == 1.0
    assert worse.interval[0] <= worse.difference <= worse.interval[1] < 0 and "worse than other/run" in worse.sentence
    wrong = answers(LABELS, (2, 2, 32, 32, 1, 0.85), (60, 50, 75, 58, 0, 0.3))
    same = evaluated(tmp_path, against=("other/run", [wrong] * 3 + [right] * 9)).against
    assert same is not None and not same.convincing and same.difference == 0 and same.interval == (0.0, 0.0)
    assert "may be chance" in same.sentence
    assert "may be chance" in evaluated(tmp_path, against=("other/run", [right] + [wrong] * 2 + [right] * 9)).against.sentence  # type: ignore[union-attr]


def test_images_without_objects_or_answers_are_scored_and_have_a_page(tmp_path: Path) -> None:
    selection, nothing = selection_of(tmp_path / "data", 3), answers(LABELS)
    truths = [objects(), objects(CAT), objects(CAT, crowd=(0,))]
    e = evaluate_objects(
        run_of(tmp_path / "run", LABELS), selection, [nothing] * 3, truths, bad=(), notes=(), output=tmp_path / "run" / "e.json"
    )
    assert [i.f1 for i in e.images] == [1.0, 0.0, 1.0] and e.mistakes[LABELS[0]][MISSED] == 1
    assert e.metrics["ap50"] == 0.0 and e.page.is_file()


def test_only_the_chosen_images_of_a_selection_are_named(tmp_path: Path) -> None:
    selection, right = selection_of(tmp_path / "data", 5), answers(LABELS, (*CAT, 0.9))
    e = evaluate_objects(
        run_of(tmp_path / "run", LABELS), selection, [right] * 2, [objects(CAT)] * 2, indices=np.array([1, 4]), bad=(), notes=(),
        output=tmp_path / "e.json",
    )  # fmt: skip
    assert [i.name for i in e.images] == ["1<b>.png", "4<b>.png"]


def test_outlines_without_true_ones_are_scored_by_their_boxes(tmp_path: Path) -> None:
    right = answers(LABELS, (*CAT, 0.9), masks=True)
    truth = without_outlines(objects(CAT, masks=True))
    e = evaluate_objects(
        run_of(tmp_path / "run", LABELS), selection_of(tmp_path / "data", 1), [right], [truth], bad=(), notes=(), output=tmp_path / "e.json"
    )
    assert not e.by_outline and e.metrics["ap50"] == 1.0


def test_outlines_have_thresholds_of_their_own(tmp_path: Path) -> None:
    """A box may be right whose outline is not: the unsure answer counts for boxes, and is left out where outlines are scored."""
    sure, unsure = answers(LABELS, (*CAT, 0.9), masks=True), answers(LABELS, (2, 2, 32, 32, 0, 0.3), masks=True)
    hollow = replace(unsure, masks=outlines(np.array([[2, 2, 4, 4]])))
    e = evaluate_objects(
        run_of(tmp_path / "run", LABELS), selection_of(tmp_path / "data", 2), [sure, hollow], [objects(CAT, masks=True)] * 2,
        bad=(), notes=(), output=tmp_path / "e.json",
    )  # fmt: skip
    of_cat = e.metrics["per_class"][LABELS[0]]
    assert (of_cat["threshold"], of_cat["mask_threshold"]) == (pytest.approx(0.3), pytest.approx(0.9))
    assert [i.found for i in e.images] == [1, 0]


def test_a_picture_that_cannot_be_read_any_more_is_grey_on_the_page(tmp_path: Path) -> None:
    selection = selection_of(tmp_path / "data", 1)
    Path(str(selection.examples.source(0))).unlink()
    e = evaluate_objects(
        run_of(tmp_path / "run", LABELS), selection, [answers(LABELS)], [objects()], bad=(), notes=(), output=tmp_path / "e.json"
    )
    assert e.page.is_file()


def test_a_curve_per_class_with_its_mark() -> None:
    recall = np.linspace(0, 1, 101).tolist()
    curves = {f"$class_{i}$": {"recall": recall, "precision": np.linspace(1, 0.5, 101).tolist()} for i in range(MOST_CURVES)}
    bare, marked = (precision_recall_picture(curves, marks, title="$x$") for marks in ({}, {"$class_0$": (0.2, 0.3)}))
    bare, marked = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int) for png in (bare, marked))
    assert bare.shape == marked.shape == (520, 900, 3)
    where = np.argwhere(np.abs(bare - marked).sum(2) > 100)
    assert 20 < len(where) < 200  # one mark, low on the left
    assert where[:, 0].mean() > 300 and where[:, 1].mean() < 300
    with pytest.raises(ValueError, match="9 curves, expected 1 to 8"):
        precision_recall_picture({**curves, "more": curves["$class_0$"]}, {}, title="")


def test_a_handful_of_images_convinces_nobody() -> None:
    """All of five lie on one side once in sixteen times, of six once in thirty-two."""
    five, six = (Difference("runs/other", "AP", n, 0.5, 0.4, (0.05, 0.2)) for n in (5, 6))
    assert not five.convincing and "may be chance" in five.sentence
    assert six.convincing and "better than runs/other" in six.sentence
