"""compare(): the same splits for all, nothing trained twice, a failure is a row, the table says what the records say."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
import torch
from browser import look_at
from rich.console import Console
from safetensors.torch import load_file

from convmix.comparison.compare import compare
from convmix.comparison.pareto import Comparison, Speed
from convmix.comparison.table import comparison_table, contender_rows
from convmix.comparison.trainer import Order, Trainer
from convmix.errors import ConvmixError
from convmix.training.signals import Interrupted, StopRequests
from tests.made_once import MadeOnce
from tests.patience import until

TINY, RELU = "convmixer_8_1_k3_p4", "convmixer_8_1_k5_p4_relu"
MODELS = (TINY, RELU, "convmlp_s")  # the last one refuses images of 16 pixels
SETTINGS: dict[str, Any] = {"size": 16, "batch_size": 12, "workers": 0, "precision": "fp32", "epochs": 2, "hflip": 0.5}


@dataclass(frozen=True)
class Experiment:
    comparison: Comparison
    out: Path
    said: str


def run(data: Path, out: Path, **changed: Any) -> Experiment:
    console = Console(record=True, quiet=False, width=200, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  # os.devnull is a name
    with console.file:
        comparison = compare(data, out=out, console=console, **{"models": MODELS, "seeds": 2, **SETTINGS, **changed})
        return Experiment(comparison, out, console.export_text())


@pytest.fixture
def whole(made_once: MadeOnce, photos: Path, trained_here: None, measured_here: None) -> Experiment:
    """An experiment that nobody interrupted; read only."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "experiment.pickle").write_bytes(pickle.dumps(run(photos, folder / "out")))

    return pickle.loads((made_once("comparison", make) / "experiment.pickle").read_bytes())


@pytest.fixture
def copied(whole: Experiment, tmp_path: Path) -> Path:
    """The folder of the experiment, to be changed."""
    return shutil.copytree(whole.out, tmp_path / "copied")


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("trials/*/record.json"))}


def begun(out: Path) -> dict[str, int]:
    """Trial -> when it was begun: state/job.json is written once, by a training that is new."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.glob("trials/*/state/job.json")}


@pytest.mark.slow
def test_the_table_says_what_the_records_say(whole: Experiment) -> None:
    found = records(whole.out)
    assert sorted(found) == [f"{name}-{seed}" for name in (TINY, RELU) for seed in (0, 1)]
    by_name = {s.contender.name: s for s in whole.comparison.scores}
    for name in (TINY, RELU):
        mine = [found[f"{name}-{seed}"] for seed in (0, 1)]
        s = by_name[name]
        assert s.accuracies == {seed: r["test"]["accuracy"] for seed, r in enumerate(mine)}
        assert (s.parameters, s.macs, s.test_images) == (mine[0]["parameters"], mine[0]["macs"], 6)
        assert s.train_s == pytest.approx(sum(r["train_elapsed_s"] for r in mine) / 2)
        assert s.speed.images_per_s and s.speed.images_per_s > 0 and s.speed.memory_mib is not None
        (row,) = [r for r in contender_rows(whole.comparison) if r[0] == name]
        assert row[1] == f"{50 * sum(r['test']['accuracy'] for r in mine):.1f}"
    saved = json.loads((whole.out / "comparison.json").read_text())
    assert [s["accuracies"] for s in saved["scores"][:2]] == [{str(k): v for k, v in by_name[n].accuracies.items()} for n in (TINY, RELU)]
    assert saved["speed"][TINY]["images_per_s"] == by_name[TINY].speed.images_per_s
    assert saved["data"]["test"] == 6 and saved["seeds"] == [0, 1]


@pytest.mark.slow
def test_a_model_that_refuses_the_size_is_a_row_and_stops_nobody(whole: Experiment) -> None:
    failed = whole.comparison.scores[2]
    assert failed.contender.name == "convmlp_s" and failed.accuracy is None
    assert set(failed.failures) == {0, 1} and "at least 32x32" in failed.failures[0]
    console = Console(width=80)
    with console.capture() as text:
        console.print(comparison_table(whole.comparison))
    assert "convmlp_s, seed 0, 1: ConvMLP needs images of at least 32x32 pixels" in text.get().replace("\n", " ")


@pytest.mark.slow
def test_splits_are_the_same_for_every_contender_and_seed_and_the_weights_are_not(whole: Experiment) -> None:
    splits = {path.read_bytes() for path in whole.out.glob("trials/*/splits.csv")}
    assert len(splits) == 1 and b"test," in splits.pop()
    weights = [load_file(path) for path in sorted(whole.out.glob(f"trials/{TINY}-*/model.safetensors"))]
    assert len(weights) == 2 and not torch.equal(weights[0]["stem.0.weight"], weights[1]["stem.0.weight"])


@pytest.mark.slow
def test_called_again_it_trains_nothing_and_says_the_same(photos: Path, whole: Experiment, copied: Path) -> None:
    before, table = begun(copied), contender_rows(whole.comparison)
    again = run(photos, copied, size="16", hflip="0.5")  # as a command line gives them
    assert begun(copied) == before and "measuring" not in again.said
    assert not re.search(r"^\d+ trainings|^\d+/\d+ ", again.said, re.MULTILINE)
    assert contender_rows(again.comparison) == table
    assert not list(copied.glob("trials/*/state/last.safetensors"))  # nobody resumes what is done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 3}, "begun with epochs 2, not 3"),
        ({"recipe": "classic"}, "begun with recipe default, not classic"),
        ({"mixup": 0.5}, "begun with mixup left out, not 0.5"),
        ({"size": 20}, "begun with size 16x16, not 20x20"),
    ],
)
def test_other_settings_are_refused_by_name(photos: Path, copied: Path, changed: dict[str, Any], message: str) -> None:
    before = (copied / "comparison.json").read_bytes()
    with pytest.raises(ConvmixError, match=message):
        run(photos, copied, **changed)
    assert (copied / "comparison.json").read_bytes() == before


HELD_UP = """
import threading
from convmix.comparison import trainer

SERVE = trainer.serve

def serve(pipe):
    # In the process that trains: once the second training has saved its first epoch, nothing goes on until the process is ended.
    from convmix.training import loop
    write_state = loop.write_state

    def hold_up(path, state):
        write_state(path, state)
        if {relu!r} in str(path):
            threading.Event().wait()

    loop.write_state = hold_up
    SERVE(pipe)
"""
COMPARES = """
import sys
import held_up
from convmix.comparison import trainer
from convmix.comparison.compare import compare

if __name__ == "__main__":
    trainer.serve = held_up.serve  # which processes that are started import by its name
    compare(sys.argv[1], out=sys.argv[2], models=({tiny!r}, {relu!r}), seeds=1, **{settings!r})
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_called_again_equals_the_uninterrupted_one(
    photos: Path, whole: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with one training done and one begun, and called again with one more model and seed than it was begun with."""
    monkeypatch.setattr("convmix.comparison.compare.measure", lambda study, runs: {name: Speed(failed="left out") for name in runs})
    script, out = tmp_path / "compares.py", tmp_path / "out"
    (tmp_path / "held_up.py").write_text(HELD_UP.format(relu=RELU))
    script.write_text(COMPARES.format(tiny=TINY, relu=RELU, settings=SETTINGS))
    process = subprocess.Popen([sys.executable, str(script), str(photos), str(out)])
    children: list[psutil.Process] = []
    try:
        until((out / "trials" / f"{RELU}-0" / "state" / "last.safetensors").exists, while_runs=process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
        process.wait()
        until(lambda: not any(is_alive(child) for child in children))  # else two processes would write one training
    finally:
        for left in (process, *children):
            if left.poll() is None if isinstance(left, subprocess.Popen) else is_alive(left):
                left.kill()
    before, done = begun(out), records(out)
    assert list(done) == [f"{TINY}-0"] and sorted(before) == sorted([f"{TINY}-0", f"{RELU}-0"])
    again = run(photos, out)
    after = begun(out)
    assert len(after) == 4 and before.items() <= after.items()  # what was begun is resumed, never begun anew
    assert f"1/6 {TINY}, seed 0" not in again.said and f"2/6 {RELU}, seed 0, resumed" in again.said
    assert [s.accuracies for s in again.comparison.scores] == [s.accuracies for s in whole.comparison.scores]
    for path in whole.out.glob("trials/*/model.safetensors"):
        a, b = load_file(path), load_file(out / path.relative_to(whole.out))
        assert all(torch.equal(a[name], b[name]) for name in a)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does anything: who has lost its parent may wait for ever to be asked how it ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_signal_keeps_what_is_done_and_says_so(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stray(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the signal reached nobody who waits for it")

    def ask_to_stop() -> None:
        until((out / "trials" / f"{TINY}-0" / "curves.csv").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, stray)
    asker = threading.Thread(target=ask_to_stop)
    asker.start()
    try:
        with pytest.raises(Interrupted) as stopped:
            run(photos, out, epochs=4000)
    finally:
        asker.join()
        signal.signal(signal.SIGTERM, previous)
    assert stopped.value.number == signal.SIGTERM and stopped.value.out == out
    assert str(stopped.value) == f"stopped with 0 of 6 trainings done; they are kept in {out}, and the same command resumes"
    assert load_file(out / "trials" / f"{TINY}-0" / "state" / "last.safetensors")


@pytest.mark.slow
def test_a_training_whose_process_dies_fails_alone(photos: Path, tmp_path: Path) -> None:
    order = Order(str(photos), None, {**SETTINGS, "model": TINY}, tmp_path / "a", False, "cpu")
    with StopRequests() as requests, Trainer() as trainer:
        trainer._start()
        first = trainer._process
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        answer = trainer.train(order, requests)
        assert (answer.kind, answer.reason) == ("failed", "its process ended with exit code -9 (out of memory?)")
        assert trainer.train(order, requests).kind == "done"
        second = trainer._process
    assert not second.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)])
def test_the_page_opens_without_a_network(whole: Experiment, width: int, dark: bool) -> None:
    seen = look_at(whole.out / "comparison.html", width=width, dark=dark)
    assert not seen.errors and not seen.requests and not seen.broken_images and not seen.overflows
    for text in (TINY, "Pareto front", "at least 32x32", "Student's 95 % interval", "48 train, 6 val, 6 test images"):
        assert text in seen.text
    assert (whole.out / "comparison-accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "seeds: 0, expected"),
        ({"budget": "1m", "epochs": 2}, "budget and epochs exclude each other"),
        ({"models": ("resnet_18",)}, "did you mean resnet18"),
        ({"models": (TINY, TINY)}, "given twice"),
        ({"recipe": "defualt"}, "did you mean default"),
        ({"batch_sise": 3}, "did you mean batch_size"),
        ({"model": TINY}, "give models"),
        ({"model_args": {"norm": "layer"}}, "model_args: a comparison has several models"),
        ({"device": "gpu"}, "device: gpu"),
        ({"test_fraction": 0}, "no test images"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(photos: Path, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvmixError, match=message):
        compare(photos, out=tmp_path / "out", **{"workers": 0, **arguments})
    assert not (tmp_path / "out" / "trials").exists()


def test_a_folder_of_something_else_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConvmixError, match="exists already and holds no comparison"):
        compare(photos, out=tmp_path, models=(TINY,), workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
