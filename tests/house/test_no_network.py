"""Nothing leaves the machine: an import, a training from local files and what follows it open no socket to anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_run import write_folder

_PROGRAM = """
import json, socket, sys
seen = []

def hook(event, args):
    if event.startswith("socket.") and getattr(args[0], "family", None) == socket.AF_UNIX:  # between processes of this training
        return
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto", "socket.bind", "urllib.Request"):
        seen.append([event, repr(args)[:200]])

sys.addaudithook(hook)
import convmix
after_import = list(seen)
data, out, image = sys.argv[1:]
settings = dict(model="convmixer_8_1_k3_p4", epochs=1, size=12, batch_size=8, workers=0, tune="never", precision="fp32")
convmix.train(data, out=out, quiet=True, **settings)
after_training = list(seen)
run = convmix.load(out)
run.predict([image])
run.evaluate()
convmix.doctor(data, output=out + "-doctor", workers=0)
print(json.dumps({"import": after_import, "training": after_training, "all": seen}))
"""


def seen(folder: Path) -> dict[str, list[list[str]]]:
    """What a process of its own asked of the network, as Python's audit events tell."""
    data = write_folder(folder / "photos", {"ant": 12, "bee": 12})
    command = [sys.executable, "-c", _PROGRAM, str(data), str(folder / "run"), str(data / "ant/0.png")]
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_import_training_prediction_evaluation_and_doctor_open_no_socket(tmp_path: Path) -> None:
    assert seen(tmp_path) == {"import": [], "training": [], "all": []}
