"""compare() and ablate() of what is no classification: by the task's own score, and with what the task does not have said."""

import json
from pathlib import Path
from typing import Any

import pytest

from convmix.comparison.ablation import ablate
from convmix.comparison.compare import compare
from convmix.comparison.table import change_rows, contender_header
from convmix.tasks import task_class
from tests.made_once import MadeOnce
from tests.trained_runs import CLASSIFIER, DENSE, labelled, scenes

pytestmark = pytest.mark.usefixtures("trained_here", "unpainted")
TINY, RELU = "convmixer_16_2_k3_p4", "convmixer_16_2_k3_p4_relu"


def data_and_settings(made_once: MadeOnce, task: str) -> tuple[Path, dict[str, Any]]:
    chosen = {**CLASSIFIER, "tune": "never"} if task == "multilabel" else DENSE
    settings = {name: value for name, value in chosen.items() if name != "model"} | {"epochs": 1, "seeds": 1}
    return (labelled(made_once) if task == "multilabel" else scenes(made_once, task)), settings


@pytest.mark.slow
@pytest.mark.usefixtures("measured_here")
@pytest.mark.parametrize("task", ["instances", "segment"])
def test_models_are_compared_by_the_score_of_the_task(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    data, settings = data_and_settings(made_once, task)
    found = compare(data, models=[TINY, RELU], out=tmp_path / "out", **settings)
    kind = task_class(task)
    assert found.title == kind.score_title
    assert contender_header(found)[1] == f"{kind.score_title} %"
    for s in found.scores:
        assert not s.failures and not s.speed.failed, (s.failures, s.speed)
        record = json.loads((tmp_path / "out" / "trials" / f"{s.contender.folder}-0" / "record.json").read_text())
        assert s.accuracies == {0: record["test"][kind.score_name]}
        assert s.speed.images_per_s and s.macs and s.macs == record["macs"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "multilabel"])
def test_changes_are_judged_by_the_score_of_the_task(task: str, made_once: MadeOnce, tmp_path: Path) -> None:
    data, settings = data_and_settings(made_once, task)
    found = ablate(data, model=TINY, axes=("act", "augment"), equal="epochs", out=tmp_path / "out", **settings)
    assert found.title == task_class(task).score_title
    done = [e.variation.contender.name for e in found.effects]
    assert "ReLU" in done
    mixing = next(name for name in ("no mixup and CutMix", "with mixup and CutMix") if name in done or any(name in n for n in found.notes))
    assert (mixing in done) == (task == "multilabel")
    assert any(f"{mixing}: left out, augment.mixup" in note for note in found.notes) == (task != "multilabel")
    assert all(not e.score.failures for e in found.effects), [e.score.failures for e in found.effects]
    assert len(change_rows(found)) == 1 + len(done)
