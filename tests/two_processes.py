"""Two processes on one machine, through torchrun and gloo."""

import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

REPO = Path(__file__).resolve().parents[1]


def options(**settings: object) -> list[str]:
    """As the command line takes them."""
    said = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        said.append(f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}")
    return said


def torchrun(*command: str, code: int = 0) -> str:
    """What both print who run this module with these arguments on the CPU, one thread each; `code`: how torchrun ends."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run([*launch, *command, "--device", "cpu"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def weights(run: Path) -> dict[str, Tensor]:
    """And statistics, as they were written."""
    return load_file(run / "model.safetensors")
