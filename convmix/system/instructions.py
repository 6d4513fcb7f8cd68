"""Which processor this is, and which of the instruction sets that decide how fast a convolutional network runs it has."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

INSTRUCTION_SETS = (  # that PyTorch, the other engines and our kernels choose their code by
    "avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "neon", "bf16", "sve",
)  # fmt: skip
_OTHER_NAMES = {"asimd": "neon"}  # what 64-bit Arm calls it


def processor_model(root: Path = Path("/")) -> str:
    """The model as lscpu names it; the architecture where nothing on this system names the model.

    root: where /proc is.
    """
    return _field(root, "model name") or _lscpu_model() or platform.processor() or platform.machine()


def instruction_sets(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Those of `INSTRUCTION_SETS` that the processor has; None where no /proc/cpuinfo lists them (Linux has it)."""
    listed = _field(root, "flags") or _field(root, "Features")
    if listed is None:
        return None
    found = {_OTHER_NAMES.get(name, name) for name in listed.split()}
    return tuple(name for name in INSTRUCTION_SETS if name in found)


def _field(root: Path, name: str) -> str | None:
    """The value of the first line of /proc/cpuinfo with that name."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        field, colon, value = line.partition(":")
        if colon and field.strip() == name and value.strip():
            return value.strip()
    return None


def _lscpu_model() -> str | None:
    """Arm's /proc/cpuinfo has numbers only, which lscpu translates."""
    if shutil.which("lscpu") is None:
        return None
    try:
        said = subprocess.run(["lscpu"], capture_output=True, text=True, timeout=10, env={**os.environ, "LC_ALL": "C"}).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    models = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith("Model name:")]
    return ", ".join(model for model in models if model not in ("", "-")) or None
