"""Two hosts, each with its own torchrun: the same model as one process trains, from any state, through kills."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import convmix
from tests.conftest import make_photos
from tests.dense_scenes import write_coco
from tests.two_hosts import Agents, Host, loopback, namespaces

pytestmark = pytest.mark.slow
LIMIT_S = 240.0
# without batch norm, the gradients of parts of a batch average to those of the whole; 48 training images in steps of 9 or 10
SETTINGS = {
    "model": "test_vit", "size": 32, "batch_size": 10, "drop_last": False, "epochs": 2, "workers": 0, "precision": "fp32",
    "optimizer": "sgd", "lr": 0.01,
}  # fmt: skip


def command(data: Path, out: Path, *more: str, **changed: object) -> list[str]:
    options = [f"--{k.replace('_', '-')}={v}" for k, v in {**SETTINGS, **changed}.items() if not isinstance(v, bool)]
    options += [f"--{'' if v else 'no-'}{k.replace('_', '-')}" for k, v in {**SETTINGS, **changed}.items() if isinstance(v, bool)]
    return ["convmix", "train", str(data), "--out", str(out), "--device", "cpu", *options, *more]


def alone(data: Path, out: Path, **changed: object) -> None:
    convmix.train(data, out=out, quiet=True, device="cpu", **{**SETTINGS, **changed})


def alike(a: Path, b: Path, name: str = "model.safetensors") -> None:
    one, two = load_file(a / name), load_file(b / name)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")


def state_of(out: Path) -> Path:
    return out / "state" / "last.safetensors"


def written_again(agents: Agents, file: Path, times: int) -> None:
    """Wait until the file was replaced so often; fails where the training ends first."""
    seen: set[int] = {file.stat().st_mtime_ns} if file.exists() else set()
    until = time.monotonic() + LIMIT_S
    while len(seen) <= times:
        assert time.monotonic() < until
        assert all(agent.poll() is None for agent in agents.agents), agents.wait(timeout_s=5)
        if file.exists():
            seen.add(file.stat().st_mtime_ns)
        time.sleep(0.01)


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
        with Agents(hosts, (command(photos, tmp_path / "a"), command(photos, tmp_path / "b"))) as agents:
            codes, said = zip(*agents.wait(timeout_s=LIMIT_S), strict=True)
    assert codes == (0, 0), said
    written = [out for out in (tmp_path / "a", tmp_path / "b") if out.exists()]
    assert len(written) == 1  # by the main process alone
    alike(tmp_path / "one", written[0])
    assert sum(text.count("epoch 1/2") for text in said) == 1


def test_a_state_goes_from_one_process_to_two_sharded_ones_and_back(
    photos: Path, tmp_path: Path, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP with everything that it must do in parts: moments, averages, the gradient's norm, accumulation; and a kill."""
    from convmix.training import loop

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
    again = command(photos, out, "--resume", **settings)
    with Agents(hosts, (again, again)) as agents:
        written_again(agents, state_of(out), 2)  # epochs 1 and 2
    convmix.train(photos, out=out, quiet=True, resume=True, device="cpu")
    alike(tmp_path / "one", out)
    alike(tmp_path / "one", out, "state/last.safetensors")


def test_a_killed_process_is_noticed_and_the_restarted_training_ends_with_the_same_bits(
    photos: Path, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    settings = {"epochs": 8, "save_every": 0}
    with Agents(hosts, (command(photos, whole, **settings), command(photos, whole, **settings))) as agents:
        assert [code for code, _ in agents.wait(timeout_s=LIMIT_S)] == [0, 0]
    with Agents(hosts, (command(photos, out, **settings), command(photos, out, **settings)), restarts=3) as agents:
        written_again(agents, state_of(out), 2)
        killed = {0: agents.workers(0), 1: agents.workers(1)}
        os.kill(killed[1][0], signal.SIGKILL)
        killed_at = time.monotonic()
        while not all(set(agents.workers(h)) - set(killed[h]) for h in (0, 1)):  # new processes on both hosts
            assert time.monotonic() - killed_at < 90
            time.sleep(0.05)
        ends = agents.wait(timeout_s=LIMIT_S)
    assert [code for code, _ in ends] == [0, 0], ends
    assert any("resuming at step" in text for _, text in ends)
    for name in ("model.safetensors", "state/last.safetensors"):
        one, two = load_file(whole / name), load_file(out / name)
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_without_restarts_every_host_stops_with_one_line(photos: Path, tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    out = tmp_path / "run"
    endless = command(photos, out, epochs=4000, save_every=0)
    with Agents(hosts, (endless, endless)) as agents:
        written_again(agents, state_of(out), 2)
        os.kill(agents.workers(1)[0], signal.SIGKILL)
        started = time.monotonic()
        ends = agents.wait(timeout_s=90)
    assert time.monotonic() - started < 60
    assert all(code for code, _ in ends)
    assert f"error: another process of this training is gone; the last state saved is in {out}" in ends[0][1].replace("\n", " ")
    assert load_file(state_of(out))


def test_hosts_that_see_other_data_are_told_so(photos: Path, tmp_path: Path) -> None:
    fewer = make_photos(tmp_path / "photos", per_class=19)
    with Agents(loopback(), (command(photos, tmp_path / "run"), command(fewer, tmp_path / "run"))) as agents:
        ends = agents.wait(timeout_s=LIMIT_S)
    assert all(code for code, _ in ends)
    assert any("is not the same data on every machine" in text.replace("\n", " ") for _, text in ends)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_detection_trains_in_two_processes(tmp_path: Path, parallel: str) -> None:
    """Every parameter has to take part in every step, or the processes wait for each other's gradients."""
    data = write_coco(tmp_path / "scenes", {"train": 8, "val": 4}, masks=False)
    settings = {
        "model": "convmlp_s",
        "size": 64,
        "batch_size": 4,
        "epochs": 1,
        "parallel": parallel,
        "test_fraction": 0,
        "pyramid_channels": 16,
    }
    with Agents(loopback(), (command(data, tmp_path / "run", **settings), command(data, tmp_path / "run", **settings))) as agents:
        ends = agents.wait(timeout_s=LIMIT_S)
    assert [code for code, _ in ends] == [0, 0], ends
    assert load_file(tmp_path / "run" / "model.safetensors")


def test_a_restart_that_would_not_find_the_others_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTorch 2.15's shared store keeps the addresses of the first attempt: the second waits for processes that are gone."""
    for name, value in (("TORCHELASTIC_MAX_RESTARTS", "3"), ("GROUP_WORLD_SIZE", "2"), ("TORCHELASTIC_USE_AGENT_STORE", "True")):
        monkeypatch.setenv(name, value)
    with pytest.raises(convmix.ConvmixError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        convmix.train("digits", out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
