"""Detectors and segmenters leave as those of classification do: exported, verified, and answering as the run that they come from."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_scenes import write_coco, write_maps

import convmix
from convmix.artifact import load_artifact
from convmix.data import rle
from convmix.exporting.export import export
from convmix.predictor import Predictor
from convmix.results import Boxes, Masks, SemanticMap

TINY: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 64, "pyramid_channels": 16, "batch_size": 4, "workers": 0, "tune": "never",
    "precision": "fp32", "epochs": 8, "lr": 3e-3,
}  # fmt: skip
COUNTS = {"train": 32, "val": 4, "test": 3}
SIDE = 128  # of the images: halved without any rounding of weights, so that the graph's pixels are the pipeline's
TASKS = ("detect", "instances", "segment")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),  # the exporters' own
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained run of each task, in a folder with its `scenes`; read only."""
    made = {}
    for task in TASKS:
        root = tmp_path_factory.mktemp(task)
        data = root / "scenes"
        write_maps(data, COUNTS, side=SIDE) if task == "segment" else write_coco(data, COUNTS, masks=task == "instances", side=SIDE)
        made[task] = convmix.train(data, out=root / "run", quiet=True, **TINY).path
    return made


def answers(path: Path, images: list[Path]) -> list[Any]:
    """In float32, the exact computation, of a run and of an export alike."""
    predictor = Predictor(load_artifact(path), images=len(images), batch_size=2, device="cpu", precision="fp32", optimize="never")
    found = [predictor.answers([predictor.prepare(image)], threshold=0.0)[0] for image in images]
    assert [answer.error for answer in found] == [None] * len(images)
    return [answer.result for answer in found]


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs) and isinstance(ours, (Boxes, SemanticMap))
    if isinstance(ours, SemanticMap):
        assert float((ours.classes == theirs.classes).float().mean()) > 0.9999
        torch.testing.assert_close(ours.certainty, theirs.certainty, rtol=0, atol=1e-4)
        return
    assert len(ours) == len(theirs) > 0 and torch.equal(ours.columns, theirs.columns)
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)
    if isinstance(ours, Masks):
        inside = [rle.decode(list(found.masks), found.size) for found in (ours, theirs)]
        assert float((inside[0] == inside[1]).mean()) > 0.999


@pytest.mark.parametrize("bake", ["resize", "none"])
@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
@pytest.mark.parametrize("task", TASKS)
def test_an_exported_model_answers_as_its_run(task: str, format: str, bake: str, runs: dict[str, Path], tmp_path: Path) -> None:
    written = export(runs[task], format, bake=bake, size="fixed" if bake == "none" else "auto", output=tmp_path / "out")
    assert "batch" in written.description.dynamic
    images = sorted((runs[task].parent / "scenes" / "test").glob("*.png"))
    assert len(images) == COUNTS["test"]
    for ours, theirs in zip(answers(written.path, images), answers(runs[task], images), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("task", TASKS)
def test_the_script_needs_no_convmix(task: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """What it prints of an image: an object per line from a score of one half, or the share of every class."""
    written = export(runs[task], "onnx", output=tmp_path / "out")
    image = runs[task].parent / "scenes" / "test" / "0.png"
    found = answers(runs[task], [image])[0]
    ran = subprocess.run(
        [sys.executable, "-S", "-c", _ALONE, str(written.path / "predict.py"), str(image)], capture_output=True, text=True, check=True
    )
    lines = [line.split("\t")[1:] for line in ran.stdout.splitlines()]
    if isinstance(found, SemanticMap):
        shares = dict(lines)
        assert {name: pytest.approx(float(share), abs=0.005) for name, share in shares.items()} == dict(
            zip(found.labels, found.shares.tolist(), strict=True)
        )
        return
    assert isinstance(found, Boxes)
    found = found.above(0.5)
    assert [line[0] for line in lines] == [found.labels[c] for c in found.columns.tolist()]
    printed = torch.tensor([[float(v) for v in line[2:]] for line in lines]).reshape(-1, 4)
    torch.testing.assert_close(printed, found.boxes, rtol=0, atol=0.1)


_ALONE = """
import runpy, site, sys
site.main()
sys.modules["convmix"] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
