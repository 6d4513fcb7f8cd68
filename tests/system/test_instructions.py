"""The processor and its instruction sets, read from the tables that systems have."""

import subprocess
from types import SimpleNamespace

import pytest

from convmix.system import instructions
from convmix.system.instructions import instruction_sets, processor_model

INTEL = """processor\t: 0
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8 bf16ish

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
LSCPU = "Architecture:        aarch64\nVendor ID:           ARM\nModel name:          Neoverse-V2\nModel:               1\n"


@pytest.fixture
def machine(tmp_path):
    def with_table(text):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text)
        return tmp_path

    return with_table


def test_an_intel_processor(machine):
    root = machine(INTEL)
    assert processor_model(root) == "Intel(R) Xeon(R) Platinum 8481C"
    assert instruction_sets(root) == ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


def test_an_arm_processor_has_neon_under_its_other_name_and_lscpus_model(machine, monkeypatch):
    root = machine(ARM)
    monkeypatch.setattr(instructions.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(instructions.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=LSCPU))
    assert instruction_sets(root) == ("neon", "bf16", "sve")
    assert processor_model(root) == "Neoverse-V2"


def test_an_lscpu_that_fails_leaves_the_architecture(machine, monkeypatch):
    def broken(*_, **__):
        raise subprocess.TimeoutExpired("lscpu", 10)

    monkeypatch.setattr(instructions.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(instructions.subprocess, "run", broken)
    monkeypatch.setattr(instructions.platform, "processor", lambda: "")
    monkeypatch.setattr(instructions.platform, "machine", lambda: "aarch64")
    assert processor_model(machine(ARM)) == "aarch64"


def test_a_processor_without_any_of_them_differs_from_a_system_without_the_table(machine, tmp_path):
    assert instruction_sets(tmp_path) is None
    assert instruction_sets(machine("flags\t: fpu sse2\n")) == ()
