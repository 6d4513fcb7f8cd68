"""ablate(): differences to the base paired by seed, the same splits and few images for all, what cannot be made is said."""

import csv
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import look_at
from rich.console import Console

from convmix.comparison.ablation import ablate
from convmix.comparison.effect import Ablation
from convmix.comparison.grid import TOLERANCE
from convmix.comparison.interval import mean_of
from convmix.comparison.table import ablation_table
from convmix.errors import ConvmixError
from tests.made_once import MadeOnce

SETTINGS: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 16, "batch_size": 12, "workers": 0, "precision": "fp32", "epochs": 1, "seeds": 2,
    "test_fraction": 0.3, "images": 30,
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """An ablation of one axis that was called again with two."""

    first: Ablation
    begun_at: int  # when the base was, ns
    done: Ablation


@pytest.fixture
def experiment(made_once: MadeOnce, photos: Path, trained_here: None) -> Experiment:
    """Read only."""

    def make(folder: Path) -> None:
        folder.mkdir()
        first = ablate(photos, axes=("norm",), out=folder / "out", **SETTINGS)
        begun_at = (folder / "out" / "trials/base-0/state/job.json").stat().st_mtime_ns
        done = ablate(photos, axes=("norm", "patch"), out=folder / "out", **SETTINGS)
        (folder / "experiment.pickle").write_bytes(pickle.dumps(Experiment(first, begun_at, done)))

    return pickle.loads((made_once("ablation", make) / "experiment.pickle").read_bytes())


@pytest.fixture
def done(experiment: Experiment) -> Ablation:
    return experiment.done


def accuracy(place: Path, trial: str) -> float:
    return json.loads((place / "trials" / trial / "record.json").read_text())["test"]["accuracy"]


@pytest.mark.slow
def test_differences_are_paired_by_seed_and_come_from_the_records(done: Ablation) -> None:
    assert done.page is not None
    place = done.page.parent
    names = {"LayerNorm": "LayerNorm", "patch 2": "patch_2", "patch 8": "patch_8"}
    assert [e.variation.contender.name for e in done.effects] == list(names)
    for e in done.effects:
        folder = names[e.variation.contender.name]
        assert e.difference == mean_of([accuracy(place, f"{folder}-{s}") - accuracy(place, f"base-{s}") for s in (0, 1)])
    saved = json.loads((place / "ablation.json").read_text())
    assert [e["difference"]["value"] for e in saved["effects"]] == [e.difference and e.difference.value for e in done.effects]
    assert saved["begun_with"]["equal"] == "macs" and [e["paper"] for e in saved["effects"]] == ["worse", "better", "worse"]


@pytest.mark.slow
def test_everyone_has_the_same_few_training_images_and_all_test_images(done: Ablation) -> None:
    assert done.page is not None
    splits = {path.read_text() for path in done.page.parent.glob("trials/*/splits.csv")}
    assert len(splits) == 1
    rows = list(csv.DictReader(splits.pop().splitlines()))
    count = {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
    assert count == {"train": 30, "val": 6, "test": 18}


@pytest.mark.slow
def test_changes_have_the_macs_of_the_base_or_it_is_said(done: Ablation) -> None:
    assert done.base.macs
    for e in done.effects:
        assert e.score.macs
        far = abs(e.score.macs / done.base.macs - 1) > TOLERANCE
        assert far is any(line.startswith(f"{e.variation.contender.name}:") for line in done.notes)


@pytest.mark.slow
def test_the_page_and_the_terminal_show_differences_and_findings(done: Ablation) -> None:
    assert done.page is not None
    for width, dark in ((1100, False), (390, True)):
        seen = look_at(done.page, width=width, dark=dark)
        assert not seen.errors and not seen.requests and not seen.broken_images and not seen.overflows
        for text in ("LayerNorm", "Of 3 changes", "paired by seed", "arXiv 2201.09792", "30 train, 6 val, 18 test images"):
            assert text in seen.text
    console = Console(width=80)
    with console.capture() as text:
        console.print(ablation_table(done))
    assert "LayerNorm" in text.get() and "base: convmixer_16_2_k3_p4, accuracy" in text.get()


@pytest.mark.slow
def test_further_axes_are_added(experiment: Experiment) -> None:
    """The base and the first change are trained once."""
    first, done = experiment.first, experiment.done
    assert done.page is not None
    assert [e.variation.contender.name for e in first.effects] == ["LayerNorm"]
    assert done.effects[0].difference == first.effects[0].difference
    assert (done.page.parent / "trials/base-0/state/job.json").stat().st_mtime_ns == experiment.begun_at


@pytest.mark.slow
def test_another_equality_is_refused(photos: Path, done: Ablation, tmp_path: Path) -> None:
    assert done.page is not None
    (tmp_path / "ablation.json").write_bytes((done.page.parent / "ablation.json").read_bytes())
    with pytest.raises(ConvmixError, match="begun with equal macs, not epochs"):
        ablate(photos, axes=("norm",), out=tmp_path, **{**SETTINGS, "equal": "epochs"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": ("kernal",)}, "did you mean kernel"),
        ({"axes": ()}, "axes: none given"),
        ({"equal": "tine"}, "did you mean time"),
        ({"equal": "time"}, "give budget with equal=time"),
        ({"budget": "1m"}, "give budget with equal=time"),
        ({"equal": "time", "budget": "1m", "epochs": 2}, "exclude each other"),
        ({"model": "convmlp_s"}, "an ablation varies a ConvMixer"),
        ({"model": "convmixer_256_9"}, "did you mean convmixer_256_8"),
        ({"seeds": 0}, "seeds: 0"),
        ({"images": 0}, "train_images: 0 is too small"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(photos: Path, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvmixError, match=message):
        ablate(photos, out=tmp_path / "out", **{"workers": 0, **arguments})
    assert not (tmp_path / "out" / "trials").exists()
