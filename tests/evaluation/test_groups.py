"""Slices and robustness of the tasks whose score is no share of images: objects, class maps, several labels."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from convmix.artifacts.artifact import load_artifact
from convmix.data.dense import DensePreprocess
from convmix.data.placement import Placement
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import Objects
from convmix.evaluation import evaluate
from convmix.evaluation.corruption import CORRUPTIONS, STRENGTHS, Damaged
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.evaluation.slices import FEWEST, by_value, slices
from convmix.metrics.resampling import Sampled
from convmix.tasks import task_class
from tests.dense_scenes import scene
from tests.made_once import MadeOnce
from tests.trained_runs import DENSE_TASKS, dense_run, multilabel

pytestmark = pytest.mark.usefixtures("unpainted")
STAYING = [c.name for c in CORRUPTIONS if not c.moves]


def mean_of(values: np.ndarray) -> Sampled:
    """A score that is no share: the mean of n values."""
    return Sampled(len(values), lambda weights: weights @ values / weights.sum(1))


def test_the_interval_of_a_mean_holds_it_and_shrinks_with_the_images() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.8, 400)
    few, many = mean_of(values[:25]).score, mean_of(values).score
    assert few is not None and few.interval is not None and many is not None and many.interval is not None
    assert few.interval[0] < few.value < few.interval[1] and few.value == pytest.approx(values[:25].mean())
    assert many.interval[1] - many.interval[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.2)
    assert mean_of(np.full(5, 0.5)).score == (0.5, None)  # nothing that a resample could change
    assert mean_of(np.full(5, np.nan)).score is None
    assert mean_of(np.empty(0)).score is None


def test_a_biased_score_has_its_interval_moved_down() -> None:
    values = np.random.default_rng(0).uniform(0.3, 0.7, 50)

    def raised(weights: np.ndarray) -> np.ndarray:
        """Higher for whatever is drawn with images twice."""
        return weights @ values / weights.sum(1) + 0.01 * (weights > 1).any(1)

    plain, moved = (Sampled(50, raised, is_biased=biased).score for biased in (False, True))
    assert plain is not None and plain.interval is not None and moved is not None and moved.interval is not None
    assert moved.interval[0] == pytest.approx(plain.interval[0] - 0.02, abs=0.006)


def test_a_slice_of_another_score_is_worse_by_its_interval_and_not_of_a_few_images() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0.9, 0.02, 60), np.random.default_rng(1).normal(0.5, 0.02, 30), [0.1, 0.11]])
    grouping = by_value("light", ["day"] * 60 + ["night"] * 30 + ["dusk"] * 2)
    found = {s.value: s for s in slices([grouping], lambda at: mean_of(values[at]), overall=float(values.mean()))}
    assert {name for name, s in found.items() if s.worse} == {"night"}
    assert found["dusk"].n < FEWEST and found["dusk"].score < found["night"].score
    assert found["night"].correct is None and "accuracy" not in found["night"].to_dict()


def test_damage_leaves_boxes_where_they_are() -> None:
    """The input of a damaged image shows the same place of it, at the size at which it would be shown undamaged."""
    preprocess = Preprocess((32, 48), "letterbox", "bilinear", 1.0, (0.5,) * 3, (0.25,) * 3)
    pixels, _ = scene(1, side=100)
    image = PIL.Image.fromarray(pixels).resize((120, 100))
    known = Objects((100, 120), np.array([[10, 20, 60, 70]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    plain_image, plain = DensePreprocess(preprocess).change(image, known)
    for name in STAYING:
        np.random.seed(0)
        damaged_image, damaged = DensePreprocess(Damaged.of(preprocess, name, 1)).change(image, known)
        assert isinstance(damaged.placement, Placement) and damaged == plain, name
        difference = np.abs(np.asarray(damaged_image, float) - np.asarray(plain_image, float)).mean()
        assert 0.5 < difference < 40, name


@pytest.mark.slow
@pytest.mark.parametrize("task", [*DENSE_TASKS, "multilabel"])
def test_slices_and_robustness_of_every_task(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    run = load_artifact(multilabel(made_once) if task == "multilabel" else dense_run(made_once, task))
    plain = evaluate(run, output=tmp_path / "plain.json", workers=0)
    assert isinstance(plain, DenseEvaluation)
    rows = list(csv.DictReader((tmp_path / "plain.csv").read_text().splitlines()))
    (tmp_path / "rooms.csv").write_text("file,room\n" + "".join(f"{row['name']},{'ab'[i % 2]}\n" for i, row in enumerate(rows)))
    result = evaluate(run, output=tmp_path / "all.json", workers=0, slices=tmp_path / "rooms.csv", robustness=True)
    assert isinstance(result, DenseEvaluation)
    assert {s.value: s.n for s in result.groups.slices if s.by == "room"} == {"a": -(-len(rows) // 2), "b": len(rows) // 2}
    kinds = [c.name for c in CORRUPTIONS] if task == "multilabel" else STAYING
    assert [(d.kind, d.strength) for d in result.groups.robustness] == [(kind, s) for kind in kinds for s in STRENGTHS]
    assert any("rotation left out" in note for note in result.notes) == (task != "multilabel")
    assert result.groups.whole is not None
    assert result.groups.whole.value == pytest.approx(result.metrics[task_class(task).score_name])
    assert result.metrics == plain.metrics
    kept = json.loads((tmp_path / "all.json").read_text())
    assert [row["score"] for row in kept["robustness"]] == [d.score for d in result.groups.robustness]
    page = (tmp_path / "all.html").read_text()
    assert "Robustness" in page and f"The {task_class(task).score_title} over images" in page
    assert any("most hurt by" in remark for remark in result.remarks())
