"""The tests of tests/ops/gpu through Triton's interpreter, each file in a process of its own, where there is no card to run them on.

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


def numbers(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


@pytest.mark.skipif(torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="the files run by themselves here")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize(
    ("file", "marks"),
    [
        pytest.param(file.name, marks, marks=[pytest.mark.slow] if marks == "slow" else [])
        for file in sorted(FOLDER.glob("test_*.py"))
        for marks in ("not slow", "slow")
    ],
)
def test_through_the_interpreter(file: str, marks: str) -> None:
    if numbers("triton") < (3, 7) and numbers("numpy") >= (2, 5):
        pytest.skip("the interpreter of this Triton cannot loop with this NumPy")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CONVMIX_KERNELS": "triton"}
    command = [sys.executable, "-m", "pytest", str(FOLDER / file), "-q", "-x", "-m", marks, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 5):  # 5: no test of that kind in the file
        pytest.fail(f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}", pytrace=False)
