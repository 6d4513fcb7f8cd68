"""One server and one browser for the tests that leave them as they were."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.patience import PATIENCE_S
from tests.serving.live import Live, live
from tests.serving.tab import chromium
from tests.tiny_run import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's directory."""
    return make_run(tmp_path_factory.mktemp("serving") / "tiny").path


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[Live]:
    """It serves `run`; who stops a server starts another, and who kills its worker waits for the next one."""
    limits = {"megapixels": 0.05, "image-mb": 0.5, "request-mb": 1, "images": 4, "time-s": PATIENCE_S}
    with live(run, *(f"--{name}={value}" for name, value in limits.items())) as started:
        yield started


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    """With a camera that is none. It ends with these tests: while playwright runs, asyncio does not run in this thread."""
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as started:
        yield started
