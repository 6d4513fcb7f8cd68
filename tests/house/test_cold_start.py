"""A short command imports what it needs: torch, and neither its compiler nor the large libraries that other commands need.

No clock is read: what is imported is the same on every machine.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convmix.ops.gpu import routes
from tests.made_once import MadeOnce
from tests.trained_runs import classifier

COMPILER = ("torch._dynamo", "torch._inductor", "sympy")
LIBRARIES = (
    "timm", "torchvision", "scipy", "sklearn", "pandas", "matplotlib", "datasets", "pyarrow", "accelerate", "huggingface_hub", "onnx",
    "onnxruntime", "openvino", "ray", "fastapi", "captum",
)  # fmt: skip
STEPS = """
import gc, json, sys
from convmix.cli import main

first, *others = json.loads(sys.stdin.read())
found = []
for commands in (first, *others):
    for command in commands:
        main(command)
    found.append(sorted(sys.modules))
from torch.utils.flop_counter import flop_registry
names = [str(target) for target in flop_registry]
print("\\n" + json.dumps({"modules": found, "counted": names, "collects": gc.isenabled(), "frozen": gc.get_freeze_count()}))
"""


TRAINING = """
import json, sys
from convmix.cli import main

main(["train", "digits", "--budget", "1s", "--workers", "0", "--quiet", "--out", sys.argv[1]])
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def steps(made_once: MadeOnce, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one process has imported after listing, after predicting, after describing one model of each family, and after evaluating."""
    run, picture = classifier(made_once, photos), photos / "class_0" / "000.png"
    report = tmp_path_factory.mktemp("cold") / "evaluation.json"
    commands = [
        [["models"], ["models", "convmixer_*"], ["recipes"]],
        [["predict", str(run), str(picture)]],
        [["describe", name] for name in ("convmixer_768_32", "convmlp_s", "multiscale_convmixer_s")],
        [["evaluate", str(run), "--output", str(report)]],
    ]
    done = subprocess.run([sys.executable, "-c", STEPS], input=json.dumps(commands), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def imported(steps: dict[str, object], step: int, names: tuple[str, ...]) -> list[str]:
    modules = steps["modules"]
    assert isinstance(modules, list)
    return [name for name in names if name in modules[step]]


def dependencies() -> tuple[str, ...]:
    """What convmix and its extras ask for, as it is imported."""
    names = {re.split(r"[^\w-]", required)[0] for required in importlib.metadata.requires("convmix") or []} - {"convmix"}
    return tuple(sorted({"pillow": "PIL", "scikit-learn": "sklearn"}.get(name, name.replace("-", "_")) for name in names))


@pytest.mark.slow
def test_lists_do_without_torch(steps: dict[str, object]) -> None:
    assert imported(steps, 0, ("torch", "numpy", "triton", *COMPILER, *LIBRARIES)) == []


@pytest.mark.slow
def test_a_prediction_imports_torch_alone(steps: dict[str, object]) -> None:
    assert imported(steps, 1, ("torch", "triton", *COMPILER, *LIBRARIES)) == ["torch"]


def test_of_all_that_convmix_needs_a_prediction_and_a_description_import_little(steps: dict[str, object]) -> None:
    found = {"PIL", "cyclopts", "faster_coco_eval", "filelock", "numpy", "rich", "safetensors", "torch"}
    for step in (1, 2):
        assert set(imported(steps, step, dependencies())) == found


def test_a_description_imports_no_compiler(steps: dict[str, object]) -> None:
    assert imported(steps, 2, (*COMPILER, *LIBRARIES)) == []


def test_an_evaluation_imports_what_scores_and_draws_and_no_compiler(steps: dict[str, object]) -> None:
    assert imported(steps, 3, ("timm", "torchvision", "accelerate", "onnx", "onnxruntime", "openvino", *COMPILER)) == []


def test_what_was_imported_is_no_garbage_and_collecting_goes_on(steps: dict[str, object]) -> None:
    assert steps["collects"] is True
    frozen = steps["frozen"]
    assert isinstance(frozen, int) and frozen > 100_000


def test_the_operators_are_counted_by_whoever_imports_the_counter_later(steps: dict[str, object]) -> None:
    counted = steps["counted"]
    assert isinstance(counted, list)
    operators = ("depthwise_conv2d", "depthwise_conv2d_weight", "mix_space", "mix_space_backward")
    assert [name for name in operators if f"convmix.{name}" not in counted] == []


def test_a_route_is_marked_for_the_compiler_as_the_compiler_would() -> None:
    def plain() -> None: ...

    before = vars(plain).copy()
    marks = {name: value for name, value in vars(torch.compiler.assume_constant_result(plain)).items() if name not in before}
    assert marks and marks.items() <= vars(routes.route_for).items()


@pytest.mark.slow
def test_a_training_imports_what_learns_and_draws(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path / "digits")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    assert "timm" in modules
    assert {"sklearn", "scipy.stats", "onnx", "onnxruntime", "openvino", "ray", "fastapi", "captum"}.isdisjoint(modules)
