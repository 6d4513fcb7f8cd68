"""Training on shards behind a URL is training on the same shards here: bit by bit, with one process or two, through failures."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from served import Web, serving
from written import encoded

import convmix
from convmix.cli import main
from convmix.config import Augment, Data
from convmix.data.augment.training_transform import training_transform
from convmix.data.examples import Examples
from convmix.data.loaders import train_batches
from convmix.data.preprocessing import Preprocess
from convmix.data.remote import shard_cache
from convmix.data.sources import open_source
from convmix.errors import DataError
from tests import two_processes
from tests.made_once import MadeOnce
from tests.patience import until
from tests.two_processes import Pair

SETTINGS = {
    "model": "test_vit", "size": 32, "batch_size": 8, "epochs": 2, "precision": "fp32", "optimizer": "sgd", "lr": 0.01,
    "shuffle_shards": 1, "drop_last": False, "workers": 1, "cache_gib": 0, "test_fraction": 0.1, "val_fraction": 0.1,
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("cache", "unpainted")
IMAGES = 8 * 16 + 4 * 2  # eight shards of 16 images, every second one with two more


@pytest.fixture(scope="session")
def shards(made_once: MadeOnce) -> Path:
    """Read only."""
    return made_once("remote_shards", write_shards)


def write_shards(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(2)
    for s in range(8):
        with tarfile.open(folder / f"part-{s}.tar", "w") as archive:
            for i in range(16 + 2 * (s % 2)):
                image = encoded(rng.integers(0, 200, (24, 24, 3), np.uint8) + np.uint8(50 * (i % 2)))
                for suffix, value in (("png", image), ("cls", str(i % 2).encode())):
                    info = tarfile.TarInfo(f"{s}-{i:04}.{suffix}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))


def room_for(shards: Path, count: float) -> str:
    return str(count * max(path.stat().st_size for path in shards.iterdir()) / 1e9)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def options(out: Path, **more: object) -> list[str]:
    return ["--out", str(out), "--device", "cpu", *two_processes.options(**{**SETTINGS, **more})]


@pytest.fixture
def web(shards: Path) -> Iterator[Web]:
    with serving(shards) as server:
        yield server


@pytest.fixture(scope="session")
def here(made_once: MadeOnce, shards: Path) -> Callable[[int], Path]:
    """A run on the shards where they lie, by how many are mixed; read only."""

    def trained(window: int) -> Path:
        def train(out: Path) -> None:
            convmix.train(f"{shards}/part-{{0..7}}.tar", out=out, quiet=True, device="cpu", **SETTINGS | {"shuffle_shards": window})

        return made_once(f"run_on_shards_{window}", train)

    return trained


# One process


@pytest.mark.slow
@pytest.mark.parametrize(("room", "window", "ranges"), [(9, 1, False), (3, 1, True), (3, 0, True)])
def test_weights_are_those_of_local_shards_bit_by_bit(
    shards: Path, here: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float, window: int, ranges: bool
) -> None:
    """Room for all shards; for those that are mixed at a time; for fewer than are mixed, so that images are asked for one by one."""
    settings = {**SETTINGS, "shuffle_shards": window, "workers": 2}
    monkeypatch.setenv(shard_cache.LIMIT, room_for(shards, room))
    with serving(shards, ranges=ranges) as web:
        convmix.train(f"{web.url}/part-{{0..7}}.tar", out=tmp_path / "there", quiet=True, device="cpu", **settings)
        sent = web.sent
        if room > 8:
            assert [web.fetched(f"part-{s}.tar") for s in range(8)] == [1] * 8
            convmix.train(f"{web.url}/part-{{0..7}}.tar", out=tmp_path / "again", quiet=True, device="cpu", **settings | {"epochs": 1})
            assert web.sent == sent
    assert weights(tmp_path / "there") == weights(here(window))
    assert (tmp_path / "there" / "splits.csv").read_text() == (here(window) / "splits.csv").read_text()


@pytest.mark.slow
def test_no_file_of_a_run_holds_what_opens_the_door(shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(shards) as web:
        url = f"{web.url}/part-{{0..7}}.tar".replace("http://", "http://ann:s3cret@") + "?signature=hush"
        main(["train", url, *options(tmp_path / "run", epochs=1)])
        assert web.query == "signature=hush"
        shown = f"{web.url}/part-{{0..7}}.tar"
        assert json.loads((tmp_path / "run" / "convmix.json").read_text())["data"]["spec"] == shown
        main(["evaluate", str(tmp_path / "run"), "--device", "cpu"])  # the signature is known to this process
    said = "".join(capfd.readouterr())
    assert shown in said
    for secret in ("s3cret", "hush"):
        assert secret not in said
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_server_that_dies_is_one_line_and_the_training_goes_on_later(
    shards: Path, here: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(shard_cache.LIMIT, room_for(shards, 3))
    with serving(shards) as web:
        spec = f"{web.url}/part-{{0..7}}.tar"
        web.gone_with = tmp_path / "there" / "state" / "last.safetensors"  # written after an epoch
        with pytest.raises(SystemExit) as ended:
            main(["train", spec, *options(tmp_path / "there")])
        assert ended.value.code == 2
        [line] = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
        assert line.startswith(f"error: {web.url}/part-") and "503 Service Unavailable; tried 3 times" in line
        web.gone_with = None
        main(["train", spec, "--out", str(tmp_path / "there"), "--device", "cpu", "--resume"])
    assert weights(tmp_path / "there") == weights(here(1))


@pytest.mark.slow
def test_a_training_killed_while_it_fetches_resumes(
    shards: Path, here: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv(shard_cache.LIMIT, room_for(shards, 3))
    with serving(shards) as web:
        spec = f"{web.url}/part-{{0..7}}.tar"
        command = [sys.executable, "-m", "convmix", "train", spec, *options(tmp_path / "there")]
        web.hold = (tmp_path / "there" / "state" / "last.safetensors").is_file  # the shard after the first epoch is begun and not ended
        process = subprocess.Popen(command, start_new_session=True)
        try:
            until(lambda: web.holds > 0 and bool(list(cache.glob("*.part"))), while_runs=process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            web.hold = None
        main(["train", spec, "--out", str(tmp_path / "there"), "--device", "cpu", "--resume"])
    assert weights(tmp_path / "there") == weights(here(1))
    files = [*cache.glob("*.tar"), *cache.glob("*.part")]
    assert sum(path.stat().st_size for path in files) <= float(room_for(shards, 3)) * 1e9


# Two processes


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_see_each_image_once_per_epoch_and_fetch_each_shard_once(
    shards: Path, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVMIX_CACHE")  # what starts the two processes stays with them

    def train(data: str, out: Path) -> None:
        settings = two_processes.options(**SETTINGS)
        ends = pair("train", data, "--out", out, *settings, environment={"CONVMIX_CACHE": str(tmp_path / "cache")})
        assert [end.code for end in ends] == [0, 0], ends

    train(f"{shards}/part-{{0..7}}.tar", tmp_path / "here")
    with serving(shards) as web:
        train(f"{web.url}/part-{{0..7}}.tar", tmp_path / "there")
        assert [web.fetched(f"part-{s}.tar") for s in range(8)] == [1] * 8
    record = json.loads((tmp_path / "there" / "convmix.json").read_text())
    assert record["training"]["processes"] == 2
    assert record["training"]["images_seen"] == 2 * record["data"]["counts"]["train"]
    assert sum(record["data"]["counts"].values()) == IMAGES
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


# Batches


PREPROCESS = Preprocess(size=(24, 24), fit="crop", interpolation="bicubic", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
AUGMENT = Augment(scale=(0.5, 1.0), hflip=0.5, randaugment="rand-m9-mstd0.5-inc1", color_jitter=0.2, erasing=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_cannot_be_had_is_a_line_from_a_worker_too(shards: Path, cache: Path, workers: int) -> None:
    with serving(shards) as web:
        [examples] = open_source(f"{web.url}/part-{{0..7}}.tar", Data()).splits.values()
        for path in cache.glob("*.tar"):
            path.unlink()
        web.status = 503
        with pytest.raises(DataError) as error:
            list(train_batches(examples, PREPROCESS, batch_size=8, seed=0, epoch=0, workers=workers))
    assert "\n" not in str(error.value)
    assert "503 Service Unavailable; tried 3 times" in str(error.value)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_ranks_together_read_each_image_once(shards: Path, web: Web, world: int) -> None:
    [examples] = open_source(f"{web.url}/part-{{0..7}}.tar", Data()).splits.values()
    how = {"batch_size": 9, "seed": 0, "epoch": 1, "workers": 0, "drop_last": False, "shuffle_shards": 2, "world": world}
    seen = [i for rank in range(world) for batch in train_batches(examples, PREPROCESS, rank=rank, **how) for i in batch.indices.tolist()]
    assert sorted(seen) == list(range(IMAGES))


def test_what_fetching_draws_from_chance_changes_no_batch(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [examples] = open_source(f"{shards}/part-{{0..7}}.tar", Data()).splits.values()

    def epoch() -> list[torch.Tensor]:
        transform = training_transform(PREPROCESS, AUGMENT)
        return [batch.images for batch in train_batches(examples, transform, batch_size=16, seed=0, epoch=0, workers=0)]

    usual = epoch()
    source = type(examples).source

    def drawing(self: Examples, index: int) -> bytes | str:
        random.random(), np.random.rand(), torch.rand(1)  # as clients of object stores do to spread their attempts
        return source(self, index)

    monkeypatch.setattr(type(examples), "source", drawing)
    assert all(torch.equal(a, b) for a, b in zip(usual, epoch(), strict=True))
