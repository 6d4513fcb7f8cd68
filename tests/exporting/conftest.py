"""A small run with its data, and its export, made once."""

from pathlib import Path

import pytest
from exporting_runs import run_with_data

from convmix.artifact import Artifact


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Read only."""
    return run_with_data(tmp_path_factory.mktemp("exporting"), size=(16, 24), crop_pct=0.9)


@pytest.fixture(scope="session")
def onnx(run: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run for onnxruntime, everything baked in; read only."""
    from convmix.exporting.export import export

    return export(run, "onnx", output=tmp_path_factory.mktemp("exported") / "onnx").path
