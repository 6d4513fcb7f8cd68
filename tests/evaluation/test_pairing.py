"""Two runs are told apart where the images suffice, and only there."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import LABELS, make_run, write_folder

from convmix.artifacts.artifact import Artifact
from convmix.errors import ConfigError, DataError, RunError
from convmix.evaluation import evaluate
from convmix.evaluation.pairing import Pairing, pair

pytestmark = pytest.mark.usefixtures("without_page")


def paired(both: int, only_run: int, only_rival: int, neither: int) -> Pairing:
    rows = [(True, True)] * both + [(True, False)] * only_run + [(False, True)] * only_rival + [(False, False)] * neither
    correct, rival = np.array(rows, dtype=bool).T
    return pair(correct, rival, rival="runs/other", left_out=0)


@pytest.mark.parametrize(
    ("only_run", "only_rival", "p"),
    [
        (8, 0, 2 / 2**8),  # all of 8 fall to one side, or all to the other
        (9, 1, 2 * (1 + 10) / 2**10),
        (5, 5, 1.0),
        (0, 0, 1.0),
        (121, 59, 2 * sum(math.comb(180, i) for i in range(60)) / 2**180),
    ],
)
def test_p_is_the_exact_mcnemar_test(only_run: int, only_rival: int, p: float) -> None:
    assert paired(101, only_run, only_rival, 33).p_value == pytest.approx(p, rel=1e-3)


def test_a_real_difference_is_called_convincing_in_its_direction() -> None:
    better, worse = paired(50, 20, 3, 10), paired(50, 3, 20, 10)
    assert better.convincing and worse.convincing
    assert "A convincing difference: on the same 83 images this run is better than runs/other by 20.48" in better.sentence
    assert "this run is worse than runs/other by 20.48" in worse.sentence
    assert better.difference == -worse.difference == pytest.approx(better.accuracy - better.rival_accuracy)


def test_a_difference_that_may_be_chance_is_not_told_apart() -> None:
    close = paired(50, 6, 3, 10)
    assert not close.convincing
    assert close.sentence.startswith("Not distinguishable on 69 images: the difference of 4.35")


def test_the_interval_of_the_difference_is_the_paired_bootstraps() -> None:
    found = paired(60, 25, 10, 25)
    rng = np.random.default_rng(0)
    signs = np.array([0] * 85 + [1] * 25 + [-1] * 10)
    drawn = signs[rng.integers(0, len(signs), (4000, len(signs)))].mean(1)
    assert found.difference_interval == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.01)


def test_unequal_or_no_images_cannot_be_paired() -> None:
    for ours, theirs in ((3, 2), (0, 0)):
        with pytest.raises(ValueError, match="expected the same number"):
            pair(np.ones(ours, bool), np.ones(theirs, bool), rival="x", left_out=0)


def rival_of(run: Artifact, photos: Path, path: Path, *, labels: tuple[str, ...] = LABELS, train: Path | None = None) -> Artifact:
    """Another run on the same data with other weights; `train` is what it was trained on."""
    splits = {"train": train or photos / "train", "val": photos / "val", "test": photos / "test"}
    rival = make_run(path, splits=splits, spec=str(photos), labels=labels, size=(12, 12))
    with torch.no_grad():
        rival.model.head.weight.mul_(-1)  # type: ignore[union-attr, operator]
    return rival


def test_the_same_weights_with_labels_in_another_order_are_equally_good(run: Artifact, photos: Path, tmp_path: Path) -> None:
    order = [2, 0, 1]
    rival = make_run(tmp_path / "rival", splits={"train": photos / "train"}, spec=str(photos), labels=tuple(LABELS[i] for i in order))
    weights = run.model.state_dict()
    rival.model.load_state_dict({k: v[order] if k.startswith("head.") else v for k, v in weights.items()})
    found = evaluate(run, against=rival, precision="fp32").against
    assert found is not None
    assert (found.n, found.left_out, found.only_run, found.only_rival) == (9, 0, 0, 0)
    assert found.accuracy == found.rival_accuracy


def test_a_rival_with_other_preprocessing_is_scored_on_the_same_images(run: Artifact, photos: Path, tmp_path: Path) -> None:
    rival = rival_of(run, photos, tmp_path / "rival")
    result = evaluate(run, against=rival, precision="fp32")
    assert result.against is not None
    right = {i.name: i.truth == i.prediction for i in result.images}
    theirs = {i.name: i.truth == i.prediction for i in evaluate(rival, precision="fp32").images}
    assert result.against.only_run == sum(right[name] and not theirs[name] for name in right)
    assert result.against.only_rival == sum(theirs[name] and not right[name] for name in right)
    assert result.against.only_run + result.against.only_rival > 0
    assert result.to_dict()["against"]["sentence"] == result.against.sentence


def test_images_that_the_rival_was_trained_on_are_left_out_for_both(run: Artifact, photos: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen" / "ant"
    seen.mkdir(parents=True)
    shutil.copy(photos / "test" / "ant" / "0.png", seen / "0.png")
    result = evaluate(run, against=rival_of(run, photos, tmp_path / "rival", train=tmp_path / "seen"))
    assert result.against is not None
    assert (result.metrics["n"], result.against.n, result.against.left_out) == (9, 8, 1)
    assert any("1 images are left out of the comparison" in note for note in result.against.notes)


def test_a_rival_that_has_seen_everything_is_an_error(run: Artifact, photos: Path, tmp_path: Path) -> None:
    rival = rival_of(run, photos, tmp_path / "rival", train=photos / "test")
    with pytest.raises(DataError, match="was trained on, or chosen by, all of these 9 images"):
        evaluate(run, against=rival)


def test_images_that_only_one_run_can_read_are_left_out(run: Artifact, tmp_path: Path) -> None:
    some = write_folder(tmp_path / "some", {"ant": 2, "bee": 2}, seed=70_000)
    rival = make_run(tmp_path / "rival", splits={}, max_pixels=100)  # the images have 144
    with pytest.raises(DataError, match="can read none of the images"):
        evaluate(run, some, against=rival)


def test_other_classes_are_an_error_where_images_have_them_and_a_note_where_not(run: Artifact, photos: Path, tmp_path: Path) -> None:
    other = rival_of(run, photos, tmp_path / "other", labels=("ant", "bees", "cat"))
    with pytest.raises(DataError, match=r"other cannot be compared: .* does not know its class bee, did you mean bees"):
        evaluate(run, against=other)
    more = rival_of(run, photos, tmp_path / "more", labels=("ant", "bee", "cat", "dog"))
    found = evaluate(run, against=more).against
    assert found is not None and any("different classes, 3 here and 4 in" in note for note in found.notes)


def test_a_run_is_not_its_own_rival_and_needs_its_record(run: Artifact, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the run itself"):
        evaluate(run, against=run.path)
    rival = rival_of(run, photos, tmp_path / "rival")
    (rival.path / "splits.csv").unlink()
    with pytest.raises(RunError, match=r"has no splits\.csv"):
        evaluate(run, against=rival)
    with pytest.raises(RunError, match="there is no such folder"):
        evaluate(run, against=tmp_path / "nowhere")
