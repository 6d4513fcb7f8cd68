"""The tests of tests/ops/gpu through Triton's interpreter, in processes of their own, where there is no card to run them on.

Every size and type is for a card, or for CONVMIX_TEST_KERNELS=all; see tests/ops/gpu/gpu_images.py.

The interpreter is chosen by the environment before Triton is first imported, and would break whatever else compiles in this process.
"""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent / "gpu"
REPO = FOLDER.parents[2]
QUICK = "test_gpu_norm.py"  # by itself, so that the quick suite, and a rehearsal of benchmarks/gpu.py, have some kernels
OTHERS = sorted(path.name for path in FOLDER.glob("test_*.py") if path.name != QUICK)

NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # of those that are installed, some take longer to import than torch
TIMEOUT = ("-p", "pytest_timeout") if importlib.util.find_spec("pytest_timeout") else ()  # which pyproject.toml sets up


def numbers(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


@pytest.mark.skipif(torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="the files run by themselves here")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("files", [pytest.param([QUICK], id="norm"), pytest.param(OTHERS, id="others", marks=pytest.mark.slow)])
def test_through_the_interpreter(files: list[str]) -> None:
    if numbers("triton") < (3, 7) and numbers("numpy") >= (2, 5):
        pytest.skip("the interpreter of this Triton cannot loop with this NumPy")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CONVMIX_KERNELS": "triton", **NO_PLUGINS}
    command = [sys.executable, "-m", "pytest", *(str(FOLDER / file) for file in files), "-q", "-x", "-p", "no:cacheprovider", *TIMEOUT]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}", pytrace=False)
