"""Where tests find the reference tensors and the real data sets."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """No call may leave the process with another number of threads: the last bits of what is computed later depend on it."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before, f"the test left torch with {after} threads instead of {before}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden/ and data/; tests that need it are skipped where it is missing."""
    path = Path(os.environ.get("CONVMIX_SHARED", REPO.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared folder at {path}; set CONVMIX_SHARED")
    return path


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
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of three classes; read only."""
    return make_photos(tmp_path_factory.mktemp("data") / "photos")
