"""Instances and class maps learned by two processes: the images of one, its model, its scores, and its states."""

import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import convmix
from convmix.data.loaders import Batch
from convmix.tasks import semanticfpn
from convmix.training import loop
from tests.trained_runs import write_scenes
from tests.two_processes import Pair, options, weights

pytestmark = [pytest.mark.slow, pytest.mark.alone]
SPLITS = {"train": 13, "val": 5, "test": 3}
STEPS = 3  # an epoch: of 4, 4 and 5 images, which two processes have to share unequally
SETTINGS: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 64, "pyramid_channels": 16, "batch_size": 5, "drop_last": False, "epochs": 2, "workers": 0,
    "tune": "never", "precision": "fp32", "optimizer": "sgd", "sync_batch_norm": True, "save_every": 0, "keep": "last",
    "zoom": "1,1", "hflip": 0, "color_jitter": 0,
}  # fmt: skip
LR = {"instances": 0.02, "segment": 0.2}
# Of the way that the training went; Mask R-CNN's processes draw the regions that they learn from, each its own.
APART = {"instances": 0.02, "segment": 1e-5}


class Trained(NamedTuple):
    """By one process."""

    task: str
    data: Path
    out: Path
    start: Path  # the same weights before they have moved


@pytest.fixture(scope="module", params=["instances", "segment"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Read only."""
    root, task = tmp_path_factory.mktemp(request.param), str(request.param)
    data = write_scenes(task, root / "scenes", SPLITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semanticfpn, "DROPOUT", 0.0)
        convmix.train(data, out=root / "one", quiet=True, device="cpu", lr=LR[task], **SETTINGS)
        convmix.train(data, out=root / "start", quiet=True, device="cpu", lr=1e-12, **SETTINGS | {"epochs": 1})
    return Trained(task, data, root / "one", root / "start")


def two_processes(one: Trained, pair: Pair, out: Path, *more: str, stop: int = 0) -> list[list[tuple[int, list[int]]]]:
    """Of each process the steps that it took and the images that it had in them."""
    notes = out.parent / f"notes-{stop}"
    notes.mkdir()
    ends = pair("train", one.data, "--out", out, *(more or options(**SETTINGS, lr=LR[one.task])), notes=notes, stop=stop)
    assert [end.code for end in ends] == [128 + signal.SIGTERM if stop else 0] * 2, ends
    assert (f"stopped after step {stop} of" in ends[0].err) is bool(stop), ends
    return [[json.loads(line) for line in (notes / f"{rank}.jsonl").read_text().splitlines()] for rank in (0, 1)]


def apart(one: Trained, out: Path) -> float:
    """How far the weights and statistics are from those of one process, in lengths of the way that these went."""
    ends = [weights(path) for path in (one.out, out, one.start)]
    learned = [name for name, value in ends[0].items() if value.is_floating_point()]
    alone, together, start = (torch.cat([end[name].flatten().double() for name in learned]) for end in ends)
    way = (alone - start).norm()
    assert way > 0.1
    return float((alone - together).norm() / way)


def described(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "convmix.json").read_text())
    return values


def test_two_processes_share_the_images_and_learn_and_score_as_one(one: Trained, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "two"
    noted = two_processes(one, pair, out)
    for epoch in range(SETTINGS["epochs"]):
        here = [[(s, images) for s, images in notes if s // STEPS == epoch] for notes in noted]
        assert [[s for s, _ in steps] for steps in here] == [list(range(epoch * STEPS, (epoch + 1) * STEPS))] * 2
        assert sorted(i for steps in here for _, images in steps for i in images) == list(range(SPLITS["train"]))
        assert [[len(images) for _, images in steps] for steps in here] == [[2, 2, 2], [2, 2, 3]]
    assert apart(one, out) < APART[one.task]
    recorded = described(out)
    assert recorded["training"]["processes"] == 2
    assert recorded["training"]["images_seen"] == SETTINGS["epochs"] * SPLITS["train"]
    for split in ("val", "test"):  # 5 and 3 images, of which one process has one more
        scores, alone = recorded["metrics"][split], convmix.evaluate(out, split=split, precision="fp32", device="cpu").metrics
        numbers = [name for name, value in scores.items() if isinstance(value, (int, float)) and name in alone]
        assert len(numbers) >= 5 and scores["n"] == SPLITS[split]
        assert {name: alone[name] for name in numbers} == pytest.approx({name: scores[name] for name in numbers}, rel=1e-5)


def test_a_state_goes_from_one_process_to_two_and_back(one: Trained, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time inside an epoch."""
    out = tmp_path / "run"
    monkeypatch.setattr(semanticfpn, "DROPOUT", 0.0)
    real = loop.train_step

    def until_the_second(t: loop.Training, batch: Batch) -> None:
        real(t, batch)
        if t.position.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", until_the_second)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 2 of 6"):
            convmix.train(one.data, out=out, quiet=True, device="cpu", lr=LR[one.task], **SETTINGS)
    noted = two_processes(one, pair, out, "--resume", stop=5)
    assert [[step for step, _ in notes] for notes in noted] == [list(range(2, 5))] * 2
    convmix.train(one.data, out=out, quiet=True, resume=True, device="cpu")
    assert described(out)["training"]["steps"] == 6
    assert apart(one, out) < APART[one.task]
