"""How the suite runs, and what its tests share: trained runs made once, the command line in this process, the reference data."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.blank_pictures import pictures, save_blank
from tests.command_line import Command, Finished
from tests.made_once import MadeOnce
from tests.order import spread
from tests.two_processes import Pair

REPO = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Side by side, each worker and what it starts has one thread: threads that wait for each other take several times as long."""
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.hookimpl(trylast=True)  # after the choice by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first, since one that begins last is one that everybody waits for."""
    items[:] = spread(items, workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """No call may leave the process with another number of threads: the last bits of what is computed later depend on it."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before, f"the test left torch with {after} threads instead of {before}"


@pytest.fixture
def unpainted() -> Iterator[None]:
    """For tests that look at no picture; what they ask `made_once` for has its pictures."""
    with pictures(save_blank):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden/ and data/; tests that need it are skipped where it is missing."""
    path = Path(os.environ.get("CONVMIX_SHARED", REPO.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared folder at {path}; set CONVMIX_SHARED")
    return path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeOnce]:
    """A folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    once = MadeOnce((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once")
    yield once
    assert not once.changed(), f"a test changed what others read: {once.changed()}"


def make_photos(folder: Path, *, classes: int = 3, per_class: int = 20, side: int = 24) -> Path:
    """A folder per class of small noisy pictures whose class shows in hue and orientation; the same ones every time."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for c in range(classes):
        (folder / f"class_{c}").mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            stripes = np.sin((rows if c % 2 else columns) * (0.5 + 0.4 * c) + rng.uniform(0, 6))
            colour = np.eye(3)[c % 3] * 90
            pixels = 128 + 60 * stripes[..., None] + colour + rng.normal(0, 20, (side, side, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"class_{c}" / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="session")
def photos(made_once: MadeOnce) -> Path:
    """60 pictures of three classes; read only."""
    return made_once("photos", make_photos)


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes that train together what they are told."""
    both = Pair()
    yield both
    both.close()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`convmix ARGUMENTS` in this process, which has imported torch already; 200 columns wide, and never a traceback."""
    from convmix.cli import main

    def run(*arguments: object) -> Finished:
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code: object = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Finished(code if isinstance(code, int) else 0 if code is None else 1, said.out, said.err)

    return run
