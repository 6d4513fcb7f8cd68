"""OpenVINO's cores and the stack on which signals are handled."""

import subprocess
import sys
from pathlib import Path

import pytest

from convmix.speed.packages import imported, openvino_core, signal_stack, signal_stack_kept

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signal stacks of Linux")
ENGINES_THAT_END_AS_THEY_BEGAN = """
import faulthandler, signal, subprocess, sys
import torch
from convmix.models.catalog import create_model
from convmix.speed.backends import EnginePlan, build
faulthandler.enable()  # as pytest does: signals are handled on a stack of their own
signal.signal(signal.SIGCHLD, lambda number, frame: print("heard"))  # as torch's data loader does
images = torch.zeros(1, 3, 16, 16)
engines = [build(EnginePlan("openvino", "fp32"), create_model("convmixer_8_1_k3_p4").eval(), images) for _ in range(3)]
while engines:
    del engines[0]
subprocess.run([sys.executable, "-c", ""])
"""


@pytest.mark.slow
def test_a_process_hears_signals_after_its_engines_have_ended() -> None:
    done = subprocess.run([sys.executable, "-c", ENGINES_THAT_END_AS_THEY_BEGAN], cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_one_core_serves_the_whole_process() -> None:
    assert openvino_core() is openvino_core(extra="export")


def test_cores_of_others_leave_the_signal_stack_as_it_was() -> None:
    openvino = imported("openvino")
    before = signal_stack()
    with signal_stack_kept():
        cores = [openvino.Core() for _ in range(3)]
        for core in cores:
            core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
        assert signal_stack() != before
        while cores:
            del cores[0]
    assert signal_stack() == before
