"""Two processes on one machine, through torchrun and gloo."""

import json
from pathlib import Path

import pytest
import torch

import convmix
from tests.two_processes import Pair, options, weights

SETTINGS = {"size": 32, "batch_size": 16, "epochs": 2, "workers": 0, "precision": "fp32", "optimizer": "sgd", "lr": 0.01}
CONVMIXER = "convmixer_16_2_k3_p4"
pytestmark = [pytest.mark.slow, pytest.mark.alone]


def train_twice(pair: Pair, data: Path, out: Path, **settings: object) -> str:
    """What two processes print while they train one model."""
    ends = pair("train", data, "--out", out, *options(**SETTINGS | settings))
    assert [end.code for end in ends] == [0, 0], ends
    return "".join(end.out + end.err for end in ends)


def test_two_processes_train_the_model_that_one_does(photos: Path, tmp_path: Path, pair: Pair) -> None:
    """Without batch norm the gradients of two halves of a batch average to those of the whole."""
    settings = {"model": "test_vit", "val_fraction": 0.25}
    convmix.train(photos, out=tmp_path / "one", quiet=True, device="cpu", **SETTINGS | settings)
    said = train_twice(pair, photos, tmp_path / "two", **settings)
    assert said.count("epoch 1/2") == 1  # one process speaks
    assert said.count("test accuracy") == 1
    one, two = (json.loads((tmp_path / n / "convmix.json").read_text()) for n in ("one", "two"))
    assert two["training"]["processes"] == 2
    for split in ("val", "test"):
        assert two["metrics"][split]["n"] == one["metrics"][split]["n"]
        assert two["metrics"][split]["loss"] == pytest.approx(one["metrics"][split]["loss"], rel=1e-3)
    assert two["calibration"]["n"] == one["calibration"]["n"] == 15
    assert two["calibration"]["temperature"] == pytest.approx(one["calibration"]["temperature"], rel=1e-2)
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_metrics_are_those_of_the_model_that_is_written(photos: Path, tmp_path: Path, pair: Pair) -> None:
    """Each process's batch norms see their own part of the batch; what is judged and written is the main process's model."""
    train_twice(pair, photos, tmp_path / "run", model=CONVMIXER)
    recorded = json.loads((tmp_path / "run" / "convmix.json").read_text())["metrics"]
    for split in ("val", "test"):
        again = convmix.evaluate(tmp_path / "run", split=split, precision="fp32", device="cpu").metrics
        assert (again["n"], again["correct"]) == (recorded[split]["n"], recorded[split]["correct"])
        assert again["loss"] == pytest.approx(recorded[split]["loss"], rel=1e-5)


def test_only_synchronised_batch_norms_see_the_batch_that_one_process_sees(photos: Path, tmp_path: Path, pair: Pair) -> None:
    """48 images in batches of 9 or 10, so that the parts are unequal: apart by rounding, and without the setting by far more."""
    settings = {"model": CONVMIXER, "batch_size": 10, "drop_last": False, "val_fraction": 0}
    convmix.train(photos, out=tmp_path / "one", quiet=True, device="cpu", **SETTINGS | settings)
    one = weights(tmp_path / "one")
    apart = {}
    for synchronised in (True, False):
        out = tmp_path / str(synchronised)
        train_twice(pair, photos, out, **settings, sync_batch_norm=synchronised)
        two = weights(out)
        assert one.keys() == two.keys()
        for kind in ("running_mean", "running_var", "weight", "bias"):
            some = [(one[name], two[name]) for name in one if name.endswith(kind)]
            assert len(some) >= 5
            apart[kind, synchronised] = max(float((a - b).abs().max() / a.abs().mean()) for a, b in some)
    for kind in ("running_mean", "running_var", "weight", "bias"):
        assert apart[kind, True] < 1e-4 and apart[kind, False] > 1e-2, apart
