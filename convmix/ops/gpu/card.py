"""Which card computes, with which software, and which kernels a measurement on such a card has confirmed.

    identity(device) -> Card(name, driver, torch, triton, kernels), what a check or a measurement is valid for
    confirmed(card name) -> the kernels that are on by default there, from confirmed.json

confirmed.json is written by `python benchmarks/cards.py` from the records in benchmarks/results/cards, by the rule of `confirms`.
"""

import functools
import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

CONFIRMED = Path(__file__).with_name("confirmed.json")
INTERPRETER = "Triton's interpreter"
OPERATORS = ("depthwise.py", "act_norm.py", "mix_space.py")  # beside this folder: what calls the kernels
log = logging.getLogger("convmix")


@dataclass(frozen=True)
class Card:
    """What an outcome on a card depends on, beside kernel, shape and type."""

    name: str
    driver: str
    torch: str
    triton: str
    kernels: str  # digest of the kernels' source

    @property
    def file_name(self) -> str:
        """Of what is kept for this card: its name, and a digest of everything."""
        plain = "".join(c if c.isalnum() else "-" for c in self.name.lower())
        return f"{plain}-{hashlib.sha256(repr(asdict(self)).encode()).hexdigest()[:16]}"


def identity(device: torch.device) -> Card:
    """The card behind `device`; on the CPU Triton's interpreter takes its place."""
    return _identity(device.type, device.index)


@functools.cache
def _identity(kind: str, index: int | None) -> Card:
    import triton

    name = torch.cuda.get_device_name(index) if kind == "cuda" else INTERPRETER
    return Card(name, driver_version() if kind == "cuda" else "none", torch.__version__, triton.__version__, kernels_digest())


@functools.cache
def driver_version() -> str:
    """As nvidia-smi says it; "unknown" where that is not installed."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "unknown"
    try:
        done = subprocess.run(
            [smi, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(done.stdout.split()), "unknown")


@functools.cache
def kernels_digest() -> str:
    """Of everything that decides what the kernels compute and how they are launched."""
    folder = Path(__file__).parent
    texts = [path.read_bytes() for path in sorted([*folder.glob("*.py"), *(folder.parent / n for n in OPERATORS)])]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


@functools.cache
def confirmed(card_name: str) -> frozenset[str]:
    """The kernels that are on by default on a card of this name: those that a record of such a card and of this source confirms."""
    try:
        rows = json.loads(CONFIRMED.read_text())["cards"]
        found = [row["confirmed"] for row in rows if row["card"] == card_name and row["kernels"] == kernels_digest()]
        return frozenset(name for names in found for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): no GPU kernel is taken for confirmed", CONFIRMED.name, type(error).__name__)
        return frozenset()


def confirms(record: Mapping[str, Any], required: Mapping[str, Sequence[str]]) -> list[str]:
    """The kernels that a record of `convmix benchmark --share` turns on for its card.

    The rule: on every required shape the kernel was checked, was equal to PyTorch within its bound, and was not slower. One required
    check that is missing, wrong or slow leaves the kernel off. required: the keys of the checks, by kernel (`cases.published`).
    """
    checks = {check["key"]: check for check in record["checks"]}
    return [kernel for kernel, keys in required.items() if keys and all(checks.get(key, {}).get("trusted") is True for key in keys)]
