"""An evaluation of class maps: its numbers are those of the pixels, its page opens anywhere and shows the images that matter."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import look_at
from dense_answers import SIZE, run_of, selection_of
from PIL import Image
from rich.console import Console

from convmix.data.targets import IGNORE
from convmix.errors import DataError
from convmix.evaluation import segmentation
from convmix.evaluation.confusion_plots import confusion_picture
from convmix.evaluation.dense_page import worst_and_typical
from convmix.evaluation.dense_plots import scores_picture
from convmix.evaluation.dense_result import MapsEvaluation
from convmix.evaluation.segmentation import evaluate_maps
from convmix.evaluation.segmentation_page import Example, errors_drawn, table
from convmix.results import SemanticMap

LABELS = ("sky <b>", "road", "car", "boat")  # no boat anywhere
LEFT_OUT = 10  # rows at the bottom that are not scored


def truth_map() -> np.ndarray:
    """Sky above road, a car on the right of both."""
    classes = np.zeros(SIZE, np.uint8)
    classes[30:] = 1
    classes[20:40, 60:] = 2
    classes[-LEFT_OUT:] = IGNORE
    return classes


def answer(share: float) -> np.ndarray:
    """The truth, but a share of the columns is road from top to bottom."""
    said = truth_map()
    said[:, : round(share * SIZE[1])] = 1
    said[said == IGNORE] = 0
    return said


SHARES = [0.05 * i for i in range(12)]


def maps_of(shares: list[float]) -> list[SemanticMap]:
    return [SemanticMap(torch.from_numpy(answer(s)), torch.full(SIZE, 0.9), LABELS) for s in shares]


def evaluated(folder: Path, shares: list[float] = SHARES, **more: object) -> MapsEvaluation:
    """An image per share of spoiled columns."""
    settings = {"bad": (), "notes": (), "output": folder / "run" / "evaluation-test.json"} | more
    return evaluate_maps(
        run_of(folder / "run", LABELS), selection_of(folder / "data", len(shares)), maps_of(shares), [truth_map()] * len(shares), **settings
    )  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def without_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second per evaluation; only tests of the page have one."""
    if "page" not in request.node.name:
        monkeypatch.setattr(segmentation, "write_page", lambda *arguments: [])


def test_the_files_hold_what_was_found_out(tmp_path: Path) -> None:
    e = evaluated(tmp_path, bad=[("x.png", "empty file")])
    scored = truth_map() != IGNORE
    right = [((answer(s) == truth_map()) & scored).sum() for s in SHARES]
    assert e.metrics["pixels"] == 12 * scored.sum() == 12 * 50 * 80
    assert e.metrics["pixel_accuracy"] == pytest.approx(sum(right) / (12 * 4000))
    assert [i.pixel_accuracy for i in e.images] == pytest.approx([r / 4000 for r in right])
    ious = []
    for c in range(3):  # of the last image, by hand
        true, said = truth_map() == c, (answer(SHARES[-1]) == c) & scored
        ious.append((true & said).sum() / (true | said).sum())
    assert e.images[-1].miou == pytest.approx(np.mean(ious))
    assert e.metrics["per_class"]["boat"]["iou"] is None
    told = json.loads(e.output.read_text())
    assert told == json.loads(json.dumps(e.to_dict())) and told["bad"][0]["name"] == "x.png"
    rows = list(csv.DictReader(io.StringIO(e.output.with_suffix(".csv").read_text())))
    assert rows[0] == {"name": "0<b>.png", "pixels": "4000", "pixel_accuracy": "1.0", "miou": "1.0"}


@pytest.mark.slow
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    e = evaluated(tmp_path, bad=[("x.png", "empty file")], notes=["look here"])
    names = ("classes", "confusion", "typical", "worst")
    assert sorted(f.name for f in e.output.parent.glob("*.png")) == [f"evaluation-test-{name}.png" for name in names]
    for width, dark in ((1100, False), (390, True)):
        seen = look_at(e.page, width=width, dark=dark)
        assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
        for said in (
            "Evaluation of run", "street & <yard>, test split", "sky <b>", "mIoU", "pixel accuracy", "Worst images", "Typical images",
            "look here", "x.png: empty file", "taken for", "48,000 pixels",
        ):  # fmt: skip
            assert said in seen.text
        assert "boat" not in seen.text  # neither there nor said


def test_the_terminal_says_the_scores_and_where_the_rest_is(tmp_path: Path) -> None:
    e = evaluated(tmp_path)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table(e))
    said = captured.get()
    assert "mIoU" in said and "sky <b>" in said and "boat" not in said
    assert said.rstrip().endswith(f"page: {e.page}") and said.count("\n") < 30


def test_a_run_is_told_from_a_worse_one_and_not_from_itself(tmp_path: Path) -> None:
    ours, theirs = [0.1, 0.2] * 8, [0.5, 0.6] * 8
    better, worse = evaluated(tmp_path, ours), evaluated(tmp_path, theirs)
    e = evaluated(tmp_path, ours, against=("other/run", maps_of(theirs))).against
    assert e is not None and e.convincing and e.value == better.metrics["miou"] and e.rival_value == worse.metrics["miou"]
    assert 0 < e.interval[0] <= e.difference <= e.interval[1] and "better than other/run" in e.sentence
    same = evaluated(tmp_path, ours, against=("other/run", maps_of(ours))).against
    assert same is not None and not same.convincing and same.interval == (0.0, 0.0)
    mixed = evaluated(tmp_path, ours, against=("other/run", iter(maps_of(ours[::-1])))).against
    assert mixed is not None and not mixed.convincing and mixed.interval[0] < 0 < mixed.interval[1]


def test_maps_are_taken_one_by_one_in_step_with_their_positions(tmp_path: Path) -> None:
    alive: list[int] = []

    def maps() -> Iterator[SemanticMap]:
        for i in range(3):
            alive.append(i)
            yield SemanticMap(torch.from_numpy(answer(0.1 * i)), torch.ones(SIZE), LABELS)

    def truths() -> Iterator[np.ndarray]:
        for i in range(3):
            assert alive[-1] == i
            yield truth_map()

    bad: list[tuple[str, str]] = []
    e = evaluate_maps(
        run_of(tmp_path / "run", LABELS), selection_of(tmp_path / "data", 6), maps(), truths(), indices=iter([5, 0, 2]), bad=bad, notes=(),
        output=tmp_path / "e.json",
    )  # fmt: skip
    assert [i.name for i in e.images] == ["5<b>.png", "0<b>.png", "2<b>.png"] and e.images[0].miou == 1.0


def test_an_image_without_scored_pixels_has_no_score_and_is_not_shown(tmp_path: Path) -> None:
    said = SemanticMap(torch.from_numpy(answer(0.3)), torch.ones(SIZE), LABELS)
    e = evaluate_maps(
        run_of(tmp_path / "run", LABELS), selection_of(tmp_path / "data", 2), [said] * 2, [np.full(SIZE, IGNORE, np.uint8), truth_map()],
        bad=(), notes=(), output=tmp_path / "e.json",
    )  # fmt: skip
    assert (e.images[0].miou, e.images[0].pixels) == (None, 0) and e.images[1].miou is not None
    assert worst_and_typical([i.miou for i in e.images]) == ([1], [])
    with pytest.raises(DataError, match="street & <yard>: there is no pixel to score in its 1 images"):
        evaluate_maps(
            run_of(tmp_path / "run", LABELS), selection_of(tmp_path / "data", 1), [said], [np.full(SIZE, IGNORE, np.uint8)],
            bad=(), notes=(), output=tmp_path / "e.json",
        )  # fmt: skip


def test_the_worst_images_come_first_and_typical_ones_are_near_the_median() -> None:
    scores = [0.9, 0.1, 0.5, 0.52, None, 0.2, 0.48, 0.3, 0.6, 0.55, 0.7, 0.8, 0.95, 0.96, 0.97, 0.98]
    worst, typical = worst_and_typical(scores)
    assert worst == [1, 5, 7, 6, 2, 3] and typical == [8, 9, 10]  # the median is 0.6
    assert worst_and_typical([None]) == ([], []) and worst_and_typical([0.5]) == ([0], [])


def test_errors_are_orange_and_what_is_not_scored_is_grey() -> None:
    drawn = errors_drawn(Example(np.full((*SIZE, 3), 200, np.uint8), truth_map(), answer(0.25)))
    assert (drawn[0, 0] == (213, 94, 0)).all() and (drawn[-1] == 128).all()  # sky taken for road; the bottom rows
    assert (drawn[45, 5] == drawn[5, 70]).all() and drawn[45, 5].min() > 200  # road that is road, sky that is sky


def test_a_bar_ends_at_its_score_and_its_interval_is_drawn() -> None:
    drawn = []
    for ends in (None, [0.4, 0.6]):
        png = scores_picture({"$a": 0.5}, {"$a": ends}, overall=0.5, name="IoU", title="")
        drawn.append(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int))
    bare, marked = drawn
    bars = (np.abs(bare - (0x9C, 0xC4, 0xE0)).sum(2) < 6).any(0).nonzero()[0]
    whisker = (np.abs(marked - (0x00, 0x72, 0xB2)).sum(2) < 6).any(0).nonzero()[0]
    length = bars[-1] - bars[0]
    assert 0.36 < (whisker[0] - bars[0]) / (2 * length) < 0.42 and 0.58 < (whisker[-1] - bars[0]) / (2 * length) < 0.64
    with pytest.raises(ValueError, match="0 classes"):
        scores_picture({}, {}, overall=0, name="", title="")


def test_a_confusion_of_pixels_is_written_in_per_cent() -> None:
    counts = np.array([[9_900_000, 100_000], [0, 4]])
    shares, plain = (confusion_picture(counts, ("a", "b"), title="", in_percent=is_share) for is_share in (True, False))
    assert shares != plain and confusion_picture(counts * 10, ("a", "b"), title="", in_percent=True) == shares
    hidden, empty = (confusion_picture(np.array([[9999, n], [0, 4]]), ("a", "b"), title="", in_percent=True) for n in (1, 0))
    assert hidden == empty  # a share that rounds to 0
