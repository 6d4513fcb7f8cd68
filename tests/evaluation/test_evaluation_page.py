"""The page says what was found, opens in a browser without a network, and stays small; its pictures show their numbers."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import look_at
from PIL import Image
from rich.console import Console
from tiny_run import LABELS, make_run, write_folder

from convmix.artifacts.artifact import Artifact
from convmix.evaluation import evaluate, table
from convmix.evaluation.confusion_plots import MOST_CLASSES, accuracies_picture, confusion_picture, robustness_picture
from convmix.evaluation.gallery import ERRORS, EXTREMES, PAIRS, PER_PAIR, confusions, examples_of, least_sure, surest, worst
from convmix.evaluation.model_outputs import Answers
from convmix.evaluation.robustness import Damage
from convmix.evaluation.slices import Slice
from convmix.metrics.calibration import calibrate_logits, choose_threshold, expected_calibration_error
from convmix.metrics.classification import wilson_interval
from convmix.metrics.resampling import Score
from convmix.results import Classes

ORANGE, BLUE = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)
ALL_PICTURES = 6 * EXTREMES + ERRORS + PAIRS * PER_PAIR


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG" and image.width == 900
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def text_of(result: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(result))  # type: ignore[arg-type]
    return captured.get()


def calibrated(run: Artifact, folder: Path, *, coverage: float) -> Artifact:
    """The run with a temperature and a threshold from the images of a folder."""
    files = sorted(folder.rglob("*.png"))
    with torch.inference_mode():
        logits = run.model(torch.stack([run.preprocess.load(str(f)) for f in files]))
    targets = torch.tensor([run.labels.index(f.parent.name) for f in files])
    fitted = calibrate_logits(logits, targets, split="val")
    confidence, said = fitted.apply(logits).double().max(1)
    choice = choose_threshold(confidence.numpy(), (said == targets).numpy(), coverage=coverage)
    return replace(run, calibration=replace(fitted, threshold=choice.threshold, choice=choice))


@pytest.mark.slow
def test_a_browser_shows_everything_that_was_found(run: Artifact, photos: Path, tmp_path: Path) -> None:
    rival = make_run(tmp_path / "rival<1>", splits={"train": photos / "train"}, spec=str(photos), size=(12, 12))
    names = [i.name for i in evaluate(run).images]
    (tmp_path / "t.csv").write_text("name,camera\n" + "".join(f"{n},{'<b>' if i < 4 else 'B'}\n" for i, n in enumerate(names)))
    run = calibrated(run, photos / "val", coverage=0.5)
    result = evaluate(run, against=rival, slices=tmp_path / "t.csv", robustness=True, workers=0)
    assert result.page == run.path / "evaluation-test.html"
    pictures = {f.name for f in run.path.glob("evaluation-test-*.png")}
    kinds = ("classes", "confusion", "reliability", "coverage", "slices", "robustness")
    assert pictures == {f"evaluation-test-{name}.png" for name in kinds}
    for width, dark in ((1100, False), (390, True)):
        seen = look_at(result.page, width=width, dark=dark)
        assert seen.errors == () and seen.requests == () and seen.broken_images == 0 and not seen.overflows
        for said in (
            "Evaluation of run", "Compared with rival<1>", result.against.sentence if result.against else "-", "taken for",
            "Worst errors", "Most and least certain", "camera", "<b>", "quality 25", "sure answers",
        ):  # fmt: skip
            assert said in seen.text
    shown = text_of(result)
    assert shown.rstrip().endswith(f"page: {result.page}")
    assert "most hurt by" in shown and "calibration error" in shown
    assert shown.count("\n") < 40


@pytest.mark.usefixtures("without_page")
def test_the_calibration_error_is_given_before_and_after(run: Artifact, photos: Path) -> None:
    plain = evaluate(run, precision="fp32").to_dict()
    assert plain["calibration"]["ece_after"] is None and plain["calibration"]["sure"] == 9
    sharp = calibrated(run, photos / "val", coverage=0.5)
    result = evaluate(sharp, precision="fp32")
    found = result.certainty
    assert found is not None and found.fitted == sharp.calibration and sharp.calibration is not None
    correct = np.array([i.truth == i.prediction for i in result.images])
    confidence = np.array([i.probability for i in result.images])
    with torch.inference_mode():
        logits = torch.stack([run.model(run.preprocess.load(str(f))[None])[0] for f in sorted((photos / "test").rglob("*.png"))])
    expected = (logits.double() / sharp.calibration.temperature).softmax(1).amax(1).numpy()
    assert sorted(confidence) == pytest.approx(sorted(expected), abs=1e-5)
    assert found.ece_after == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-6)
    assert found.ece_before == pytest.approx(plain["calibration"]["ece_before"], abs=1e-6) and found.ece_before != found.ece_after
    sure = confidence >= sharp.calibration.threshold  # type: ignore[operator]
    assert (found.sure, found.sure_accuracy) == (int(sure.sum()), correct[sure].mean() if sure.any() else None)
    assert result.metrics["accuracy"] == plain["metrics"]["accuracy"]  # a temperature changes no answer


@pytest.mark.slow
def test_a_page_of_large_noisy_pictures_stays_small(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", dict.fromkeys(LABELS, 1))
    for i in range(120):
        noise = np.random.default_rng(i).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "one" / LABELS[i % 3] / f"large{i}.png", compress_level=0)
    run = make_run(tmp_path / "run", splits={}, size=(224, 224))
    page = evaluate(run, tmp_path / "one", workers=0).page
    html = page.read_text()
    assert 40 < html.count("data:image/jpeg") <= ALL_PICTURES
    assert page.stat().st_size < 5e6


@pytest.mark.slow
def test_other_channels_have_thumbnails_too(tmp_path: Path) -> None:
    for label in LABELS:
        (tmp_path / "some" / label).mkdir(parents=True)
        for i in range(2):
            np.save(tmp_path / "some" / label / f"{i}.npy", np.random.default_rng(i).integers(0, 256, (12, 14, 5), dtype=np.uint8))
    run = make_run(tmp_path / "run", splits={}, in_chans=5, mean=(0.5,) * 5, std=(0.25,) * 5)
    result = evaluate(run, tmp_path / "some", robustness=True, workers=0)
    assert "JPEG" not in {d.kind for d in result.robustness}
    assert result.page.read_text().count("data:image/png") >= 6


def answers(truth: list[int], predicted: list[int], probability: list[float]) -> Answers:
    p = torch.zeros(len(truth), 4)
    for row, said, share in zip(p, predicted, probability, strict=True):
        row[:] = (1 - share) / 3
        row[said] = share
    return Answers(p.log(), Classes(p, ("a", "b", "c", "d")), np.array(truth), np.array(predicted), np.arange(len(truth)))


def test_the_gallery_chooses_what_it_says() -> None:
    a = answers([0, 0, 0, 1, 2, 3], [1, 1, 0, 0, 2, 3], [0.6, 0.9, 0.5, 0.7, 0.95, 0.8])
    assert [(c.truth, c.said, c.n) for c in confusions(a)] == [(0, 1, 2), (1, 0, 1)]
    assert examples_of(confusions(a)[0], a).tolist() == [1, 0]
    assert worst(a).tolist() == [1, 3, 0]
    assert surest(a, most=2).tolist() == [4, 1]
    assert least_sure(a, most=2).tolist() == [2, 0]
    right = answers([0, 1], [0, 1], [0.9, 0.8])
    assert confusions(right) == [] and worst(right).tolist() == []


def test_a_run_without_errors_has_a_page(tmp_path: Path) -> None:
    class Redness(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) * 20

    for c, label in enumerate(LABELS):
        (tmp_path / "some" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (12, 12), tuple(200 - i if k == c else 0 for k in range(3))).save(tmp_path / "some" / label / f"{i}.png")  # type: ignore[arg-type]
    run = replace(make_run(tmp_path / "run", splits={}), model=Redness())
    result = evaluate(run, tmp_path / "some", precision="fp32", optimize="never")
    assert result.metrics["accuracy"] == 1
    html = result.page.read_text()
    assert "Nothing is confused" in html and "There are none." in html


def test_more_classes_than_a_matrix_can_show_are_listed_by_pairs(tmp_path: Path) -> None:
    labels = tuple(f"class{i:02d}" for i in range(40))
    some = write_folder(tmp_path / "some", dict.fromkeys(labels, 2))
    result = evaluate(make_run(tmp_path / "run", labels=labels, splits={}), some, workers=0)
    html = result.page.read_text()
    wrong = {(i.truth, i.prediction) for i in result.images if i.truth != i.prediction}
    assert len(wrong) > 30 and f"The 30 most frequent of {len(wrong)} confusions" in html
    assert "The 30 with the lowest F1 of 40" in html
    shown = len({i.truth for i in result.images} | {i.prediction for i in result.images})
    assert (result.page.with_name("evaluation-some-confusion.png")).exists() is (shown <= MOST_CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 12, 30])
def test_right_answers_are_blue_and_wrong_ones_orange(k: int) -> None:
    right = pixels(confusion_picture(np.eye(k, dtype=int) * 50, [f"a class with a name {i}" for i in range(k)], title="t"))
    red, blue = right[:, 0].astype(int), right[:, 2].astype(int)
    assert (blue - red > 60).mean() > 0.002 and not (red - blue > 60).any()
    if k > 1:
        wrong = pixels(confusion_picture(np.roll(np.eye(k, dtype=int), 1, axis=1) * 50, [str(i) for i in range(k)], title="t"))
        red, blue = wrong[:, 0].astype(int), wrong[:, 2].astype(int)
        assert (red - blue > 60).mean() > 0.002 and not (blue - red > 60).any()


def test_a_matrix_that_nobody_could_read_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 30"):
        confusion_picture(np.eye(31, dtype=int), [str(i) for i in range(31)], title="t")


def some_slices(n: int, *, worse: int = -1) -> list[Slice]:
    return [Slice("camera", f"value {i}", 50, 0.8 - i / 50, wilson_interval(40 - i, 50), i == worse, 40 - i) for i in range(n)]


def test_slices_that_are_worse_are_marked() -> None:
    for worse, marked in ((-1, False), (2, True)):
        found = pixels(accuracies_picture(some_slices(4, worse=worse), overall=0.8, title="t"))
        assert (found == ORANGE).all(1).any() is np.bool_(marked)
        assert (found == BLUE).all(1).any()
    with pytest.raises(ValueError, match="expected 1 to 60"):
        accuracies_picture([], overall=0.5, title="t")


def test_robustness_is_drawn_with_a_line_per_kind() -> None:
    damages = [Damage(kind, s, "", 50, 0.8, wilson_interval(40, 50), 40) for kind in ("blur", "noise") for s in (1, 2, 3)]
    found = pixels(robustness_picture(damages, whole=Score(0.9, (0.8, 0.95))))
    assert (found == BLUE).all(1).any() and (found == ORANGE).all(1).any()
    with pytest.raises(ValueError, match="0 kinds"):
        robustness_picture([], whole=Score(0.9, (0.8, 0.95)))


def test_texts_from_the_user_are_shown_as_they_are(tmp_path: Path) -> None:
    some = write_folder(tmp_path / "some", {"<i>$x$": 3, "[red]b": 3})
    run = make_run(tmp_path / "run", labels=("<i>$x$", "[red]b"), splits={})
    result = evaluate(run, some, workers=0)
    assert "[red]b" in text_of(result)
    html = result.page.read_text()
    assert "<i>$x$" not in html and re.search(r"&lt;i&gt;\$x\$", html)
