"""A small run with its data, and its exports, each made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from exporting_runs import COMPILED, Writer, run_with_data

from convmix.artifacts.artifact import Artifact, load_artifact
from tests.made_once import MadeOnce

Exports = Callable[..., Path]


@pytest.fixture(scope="session")
def run(made_once: MadeOnce) -> Artifact:
    """Read only."""
    return load_artifact(made_once("exporting", lambda root: run_with_data(root, size=(16, 24), crop_pct=0.9)) / "run")


@pytest.fixture(scope="session")
def exported(run: Artifact, made_once: MadeOnce) -> Exports:
    """format, precision, bake, size -> the folder of such an export of the run; read only."""
    writer = Writer()

    def folder(format: str, precision: str = "fp32", bake: str = "resize", size: str = "auto") -> Path:
        def make(place: Path) -> None:
            compiled = (format, precision, bake, size) == COMPILED
            writer(run, format, precision=precision, bake=bake, size=size, output=place, compiled=compiled)

        return made_once(f"exported_{format}_{precision}_{bake}_{size}", make)

    return folder


@pytest.fixture
def onnx(exported: Exports) -> Path:
    """The run for onnxruntime, everything baked in; read only."""
    return exported("onnx")
