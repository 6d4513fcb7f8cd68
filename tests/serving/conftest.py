"""One server for the tests that leave it as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.live import Live, live
from tests.tiny_run import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's directory."""
    return make_run(tmp_path_factory.mktemp("serving") / "tiny").path


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[Live]:
    """It serves `run`; tests that break or stop a server start their own."""
    with live(run, "--megapixels", "0.05", "--image-mb", "0.5", "--request-mb", "1", "--images", "4") as started:
        yield started
