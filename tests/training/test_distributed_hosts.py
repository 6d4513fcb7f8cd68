"""Two hosts, each with its own torchrun: the same model as one process trains, from any state, through kills."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import convmix
from convmix.training import loop
from tests.conftest import make_photos
from tests.made_once import MadeOnce
from tests.trained_runs import scenes
from tests.two_hosts import Agents, Host, loopback, namespaces
from tests.two_processes import Pair, options

pytestmark = [pytest.mark.slow, pytest.mark.alone]
LIMIT_S = 300.0  # less than what a process waits for one that is silent, so that this is not how it notices
# without batch norm, the gradients of parts of a batch average to those of the whole; 48 training images in steps of 9 or 10
SETTINGS: dict[str, Any] = {
    "model": "test_vit", "size": 32, "batch_size": 10, "drop_last": False, "epochs": 2, "workers": 0, "precision": "fp32",
    "optimizer": "sgd", "lr": 0.01,
}  # fmt: skip
STEPS = 5  # an epoch


def command(data: Path, out: Path, *more: str, **changed: object) -> list[object]:
    return ["train", data, "--out", out, *options(**{**SETTINGS, **changed}), *more]


def on_host(arguments: list[object], *, kills: tuple[int, ...] = ()) -> list[str]:
    """What torchrun is to run; `kills`: the process that is killed, and before which step of each of its lives."""
    module = ["tests.training.witness", "die", f"{kills[0]}", ",".join(map(str, kills[1:]))] if kills else ["convmix"]
    return [*module, *map(str, arguments), "--device", "cpu"]


def alone(data: Path, out: Path, **changed: object) -> None:
    convmix.train(data, out=out, quiet=True, device="cpu", **{**SETTINGS, **changed})


def alike(a: Path, b: Path, name: str = "model.safetensors") -> None:
    one, two = load_file(a / name), load_file(b / name)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Network namespaces where there can be any, else the loopback."""
    with namespaces() as found:
        yield loopback() if isinstance(found, str) else found


def test_two_hosts_with_nothing_in_common_but_a_network_train_the_model_of_one_process(photos: Path, tmp_path: Path) -> None:
    """Steps whose parts are unequal, and a disk of its own for each host."""
    alone(photos, tmp_path / "one")
    with namespaces() as hosts:
        if isinstance(hosts, str):
            pytest.skip(hosts)
        commands = [on_host(command(photos, tmp_path / name)) for name in ("a", "b")]
        with Agents(hosts, (commands[0], commands[1])) as agents:
            codes, said = zip(*agents.wait(timeout_s=LIMIT_S), strict=True)
    assert codes == (0, 0), said
    written = [out for out in (tmp_path / "a", tmp_path / "b") if out.exists()]
    assert len(written) == 1  # by the main process alone
    alike(tmp_path / "one", written[0])
    assert sum(text.count("epoch 1/2") for text in said) == 1


def test_a_state_goes_from_one_process_to_two_sharded_ones_and_back(
    photos: Path, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP with everything that it must do in parts: moments, averages, the gradient's norm, accumulation."""
    settings = {
        "parallel": "fsdp", "optimizer": "adamw", "eps": 1e-3, "ema_decay": 0.9, "clip_grad": 0.5, "accumulate": 2, "epochs": 4,
        "batch_size": 16, "save_every": 0,
    }  # fmt: skip
    alone(photos, tmp_path / "one", **settings)
    real = loop.train_step

    def step_then_signal(t: loop.Training, batch: object) -> None:
        real(t, batch)  # type: ignore[arg-type]
        if t.position.step == 2:
            signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_then_signal)
        with pytest.raises(convmix.ConvmixError, match="stopped after step 2 of 12"):
            alone(photos, out, **settings)
    ends = pair(*command(photos, out, "--resume", **settings), stop=10)
    assert [end.code for end in ends] == [128 + signal.SIGTERM] * 2, ends
    assert "stopped after step 10 of 12" in ends[0].err
    convmix.train(photos, out=out, quiet=True, resume=True, device="cpu")
    alike(tmp_path / "one", out)
    alike(tmp_path / "one", out, "state/last.safetensors")


def test_a_killed_process_ends_all_until_the_training_goes_on_and_it_ends_with_the_same_bits(
    photos: Path, tmp_path: Path, pair: Pair, hosts: tuple[Host, Host]
) -> None:
    """Killed, restarted by torchrun, killed again with no restart left, and resumed by hand."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    settings = {"epochs": 4, "save_every": 0}
    ends = pair(*command(photos, whole, **settings))
    assert [end.code for end in ends] == [0, 0], ends
    mortal = on_host(command(photos, out, **settings), kills=(1, STEPS + 2, 2 * STEPS + 2))
    with Agents(hosts, (mortal, mortal), restarts=1) as agents:
        found = agents.wait(timeout_s=LIMIT_S)
    assert all(code for code, _ in found), found
    said = " ".join(text.replace("\n", " ") for _, text in found)  # of both, for restarted processes may change their numbers
    assert said.count(f"error: another process of this training is gone; the last state saved is in {out}") == 2, said
    assert said.count(f"resuming at step {STEPS} of {4 * STEPS}") == 1, said
    ends = pair(*command(photos, out, "--resume", **settings))
    assert [end.code for end in ends] == [0, 0], ends
    assert f"resuming at step {2 * STEPS} of {4 * STEPS}" in ends[0].out
    for name in ("model.safetensors", "state/last.safetensors"):
        one, two = load_file(whole / name), load_file(out / name)
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_hosts_that_see_other_data_are_told_so(photos: Path, tmp_path: Path, pair: Pair) -> None:
    fewer = make_photos(tmp_path / "photos", per_class=19)
    ends = pair(*command(photos, tmp_path / "run"), second=command(fewer, tmp_path / "run"))
    assert [end.code for end in ends] == [2, 2]
    assert any("is not the same data on every machine" in end.err for end in ends)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_detection_trains_in_two_processes(tmp_path: Path, made_once: MadeOnce, pair: Pair, parallel: str) -> None:
    """Every parameter has to take part in every step, or the processes wait for each other's gradients."""
    settings = {
        "model": "convmlp_s",
        "size": 64,
        "batch_size": 4,
        "epochs": 1,
        "parallel": parallel,
        "pyramid_channels": 16,
    }
    ends = pair(*command(scenes(made_once, "detect"), tmp_path / "run", **settings))
    assert [end.code for end in ends] == [0, 0], ends
    assert load_file(tmp_path / "run" / "model.safetensors")


def test_a_restart_that_would_not_find_the_others_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTorch 2.15's shared store keeps the addresses of the first attempt: the second waits for processes that are gone."""
    for name, value in (("TORCHELASTIC_MAX_RESTARTS", "3"), ("GROUP_WORLD_SIZE", "2"), ("TORCHELASTIC_USE_AGENT_STORE", "True")):
        monkeypatch.setenv(name, value)
    with pytest.raises(convmix.ConvmixError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        convmix.train("digits", out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
