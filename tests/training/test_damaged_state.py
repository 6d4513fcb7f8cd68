"""A training's own files, damaged: resuming says so in one sentence and changes nothing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import convmix
from convmix.errors import ConvmixError, RunError
from convmix.training.loop import STATE
from convmix.training.setup import JOB, check_resumable
from convmix.training.state import read_state
from tests.made_once import MadeOnce
from tests.test_damaged_runs import WRONG, change
from tests.trained_runs import classifier


@pytest.fixture
def run(photos: Path, tmp_path: Path, made_once: MadeOnce) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(classifier(made_once, photos), tmp_path / "run")


KEYS = ("spec", "run", "run.data", "run.optim.lr", "run.schedule", "run.recipe", "overrides", "fingerprint", "tuning", "tuning.tuned",
        "tuning.tuned.layout", "tuning.tuned.precision", "launch")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_wrong_values_in_job_json_are_one_sentence(run: Path, key: str) -> None:
    before, refused = (run / JOB).read_bytes(), 0
    for value in WRONG:
        (run / JOB).write_bytes(before)
        change(run / JOB, key, value)
        try:
            check_resumable(run)
        except RunError as error:
            refused += 1
            assert "\n" not in str(error) and "job.json" in str(error) and len(str(error)) < 800
    assert refused >= len(WRONG) // 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", [JOB, Path(STATE)], ids=["job", "state"])
def test_a_pipe_is_not_waited_for(run: Path, place: Path) -> None:
    (run / place).unlink()
    os.mkfifo(run / place)
    with pytest.raises(RunError, match="not a regular file"):
        check_resumable(run) if place == JOB else read_state(run / place)


def rewritten(run: Path, do: Any) -> None:
    """The state file with its tensors and its description as `do` leaves them."""
    file = run / STATE
    with safe_open(file, "pt") as opened:
        meta = json.loads(opened.metadata()["state"])
    tensors = load_file(file)
    do(tensors, meta)
    save_file(tensors, file, {"state": json.dumps(meta)})


def assign(target: dict[str, Any], way: str, value: Any) -> None:
    *names, last = way.split(".")
    for name in names:
        target = target[name]
    if value is ...:
        target.pop(last)
    else:
        target[last] = value


@pytest.mark.slow
@pytest.mark.parametrize("key", ["position", "position.step", "position.plan", "position.plan.steps_per_epoch", "position.history",
                                 "position.images_seen", "optim_scalars", "param_groups"])  # fmt: skip
def test_wrong_values_in_the_state_are_one_sentence(run: Path, key: str) -> None:
    original, refused = (run / STATE).read_bytes(), 0
    for value in WRONG:
        (run / STATE).write_bytes(original)
        rewritten(run, lambda tensors, meta, value=value: assign(meta, key, value))
        try:
            read_state(run / STATE)
        except RunError as error:
            refused += 1
            assert "\n" not in str(error) and "cannot be resumed from" in str(error)
    assert refused >= len(WRONG) // 2


@pytest.mark.parametrize("name", ["epoch", "step", "val_accuracy", "images_seen", "train_loss"])
@pytest.mark.parametrize("value", [{}, [1], "1"])
def test_a_wrong_value_in_a_row_of_the_history_is_one_sentence(run: Path, name: str, value: object) -> None:
    rewritten(run, lambda tensors, meta: meta["position"]["history"][0].update({name: value}))
    with pytest.raises(RunError, match=f"position.history: {name}: .* is not a"):
        read_state(run / STATE)


@pytest.mark.parametrize("how", ["cut", "another shape", "another type", "another name"])
def test_kept_weights_that_are_damaged_are_one_sentence(photos: Path, run: Path, how: str) -> None:
    file = run / "model.safetensors"
    tensors = load_file(file)
    name = first({f"model.{k}": v for k, v in tensors.items()}, "model.").removeprefix("model.")
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "another name":
        save_file(tensors | {"extra": torch.zeros(1)}, file)
    else:
        save_file(tensors | {name: torch.zeros(2) if how == "another shape" else tensors[name].long()}, file)
    with pytest.raises(ConvmixError, match=r"kept weights .* (cannot be read|are another network's)") as error:
        convmix.train(photos, out=run, quiet=True, resume=True)
    assert "\n" not in str(error.value)


def first(tensors: dict[str, torch.Tensor], prefix: str) -> str:
    return next(name for name in tensors if name.startswith(prefix) and name.endswith(("weight", "momentum_buffer", "exp_avg")))


DAMAGE = {
    "weights missing": (lambda t, m: t.pop(first(t, "model.")), "another network"),
    "weights of another shape": (lambda t, m: t.update({first(t, "model."): torch.zeros(2, 2)}), "another network"),
    "weights of whole numbers": (lambda t, m: t.update({first(t, "model."): t[first(t, "model.")].long()}), "expected torch.float32"),
    "an optimiser's index": (lambda t, m: t.update({"optim.9999.exp_avg": torch.zeros(1)}), "does not fit the optimizer"),
    "an optimiser's name": (lambda t, m: t.update({"optim.x.exp_avg": torch.zeros(1)}), "does not fit the optimizer"),
    "an optimiser's shape": (lambda t, m: t.update({first(t, "optim."): torch.zeros(3)}), r"is torch.float32 \[3\], its weights are"),
    "groups of another optimiser": (lambda t, m: m.update({"param_groups": [{"params": [0]}]}), "does not fit the optimizer"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_state_that_does_not_fit_is_one_sentence(photos: Path, run: Path, what: str) -> None:
    do, words = DAMAGE[what]
    rewritten(run, do)
    state = (run / STATE).read_bytes()
    with pytest.raises(ConvmixError, match=words) as error:
        convmix.train(photos, out=run, quiet=True, resume=True)
    assert "\n" not in str(error.value)
    assert (run / STATE).read_bytes() == state
