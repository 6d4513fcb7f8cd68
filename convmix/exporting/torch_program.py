"""PyTorch: the trace itself as model.pt2, and compiled ahead of time where there is a C++ compiler.

model.pt2        torch.export program: operations and weights; needs torch alone
model.aoti.pt2   AOTInductor package: machine code for processors like the one that it was made on
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from convmix.artifacts.runtime.description import FILE as DESCRIPTION
from convmix.artifacts.runtime.description import ExportDescription
from convmix.artifacts.runtime.sessions import PACKAGE
from convmix.speed.packages import quiet

FILE = "model.pt2"


class ProgramDraft:
    """A program in memory, to be written once it has its description."""

    file = FILE

    def __init__(self, program: ExportedProgram, *, outputs: tuple[str, ...], precision: str, calibration: list[np.ndarray]) -> None:
        self.program = program

    def write(self, folder: Path, description: ExportDescription) -> None:
        """model.pt2, with the description as an extra file."""
        torch.export.save(self.program, str(folder / FILE), extra_files={DESCRIPTION: description.to_json()})


def has_compiler() -> bool:
    """Whether AOTInductor can compile here."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def write_package(folder: Path, program: ExportedProgram) -> None:
    """model.aoti.pt2; takes about a minute."""
    from torch._inductor import aoti_compile_and_package

    with quiet():
        aoti_compile_and_package(program, package_path=str(folder / PACKAGE))
