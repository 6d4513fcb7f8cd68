"""Detectors and segmenters leave as those of classification do: exported, verified, and answering as the run that they come from."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_scenes import write_coco, write_maps
from exporting_runs import Writer

import convmix
from convmix import cli
from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.runtime.exported import read_description
from convmix.data import rle
from convmix.inference.predictor import Predictor
from convmix.results import Boxes, Masks, SemanticMap
from convmix.tasks import create_task
from tests.blank_pictures import pictures, save_blank
from tests.made_once import MadeOnce

TINY: dict[str, Any] = {
    "model": "convmixer_16_2_k3_p4", "size": 64, "pyramid_channels": 16, "workers": 0, "tune": "never", "precision": "fp32", "epochs": 4,
    "lr": 5e-3,
}  # fmt: skip
# Batches with which a run finds something in few epochs: boxes get more than 0.03 of the score for each of five seeds, maps more than 0.3.
BATCH = {"detect": 1, "instances": 2, "segment": 2}
BAKE = {"detect": "none", "instances": "resize", "segment": "resize"}  # where one export of a task is enough
COUNTS = {"train": 16, "val": 4, "test": 3}
SIDE = 128  # of the images: halved without any rounding of weights, so that the graph's pixels are the pipeline's
TASKS = ("detect", "instances", "segment")
BOXES_AND_MAPS, OUTLINES_AND_MAPS = ("detect", "segment"), ("instances", "segment")  # where what has outlines goes the way of boxes
# Every task in every runtime, every format, and boxes and maps with resizing inside and outside, from as few traces as that takes. torch's
# own program is run with loops (detect) and with resizing (segment). What is compiled of a program is in test_export.py, of the loop in
# tests/tasks/test_deployed.py.
EXPORTS = (
    ("detect", "onnx", "none"), ("detect", "openvino", "none"), ("detect", "torch", "none"),
    ("instances", "onnx", "resize"), ("instances", "openvino", "resize"),
    ("segment", "onnx", "resize"), ("segment", "openvino", "none"), ("segment", "torch", "resize"),
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),  # the exporters' own
]


@pytest.fixture(scope="module")
def trained(made_once: MadeOnce) -> Callable[[str], Path]:
    """task -> its trained run, in a folder with its `scenes`; read only."""

    def make(task: str, root: Path) -> None:
        data = root / "scenes"
        write_maps(data, COUNTS, side=SIDE) if task == "segment" else write_coco(data, COUNTS, masks=task == "instances", side=SIDE)
        with pictures(save_blank):
            convmix.train(data, out=root / "run", quiet=True, batch_size=BATCH[task], **TINY)

    return lambda task: made_once(f"exported_{task}", functools.partial(make, task)) / "run"


@pytest.fixture(scope="module")
def exported(trained: Callable[[str], Path], made_once: MadeOnce) -> Callable[[str, str, str], Path]:
    """task, format, bake -> an export, within a copy of its run; read only. Those that share a trace are made at once."""

    def make(task: str, bake: str, root: Path) -> None:
        run, writer = shutil.copytree(trained(task), root / "run"), Writer()
        for one in EXPORTS:
            if (one[0], one[2]) == (task, bake):
                writer(run, one[1], bake=bake, size="fixed" if bake == "none" else "auto")

    def folder(task: str, format: str, bake: str) -> Path:
        root = made_once(f"exported_{task}_{bake}", functools.partial(make, task, bake))
        return root / "run" / "export" / f"{format}-fp32"

    return folder


def answers(path: Path, images: list[Path]) -> list[Any]:
    """In float32, the exact computation, of a run and of an export alike."""
    predictor = Predictor(load_artifact(path), images=len(images), batch_size=2, device="cpu", precision="fp32", optimize="never")
    found = predictor.answers([predictor.prepare(image) for image in images], threshold=0.0)
    assert [answer.error for answer in found] == [None] * len(images)
    return [answer.result for answer in found]


def images_of(run: Path) -> list[Path]:
    """Those of the test split."""
    images = sorted((run.parent / "scenes" / "test").glob("*.png"))
    assert len(images) == COUNTS["test"]
    return images


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


@pytest.mark.parametrize(("task", "format", "bake"), EXPORTS)
def test_an_exported_model_answers_as_its_run(
    task: str, format: str, bake: str, trained: Callable[[str], Path], exported: Callable[..., Path]
) -> None:
    path, run = exported(task, format, bake), trained(task)
    assert "batch" in read_description(path)[0].dynamic
    assert load_artifact(path).batch_size == (1 if bake == "resize" else None)
    images = images_of(run)
    for ours, theirs in zip(answers(path, images), answers(run, images), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("task", TASKS)
def test_an_exported_model_predicts_files(task: str, trained: Callable[[str], Path], exported: Callable[..., Path], tmp_path: Path) -> None:
    """Broken ones too, as `convmix predict`."""
    run, path = trained(task), exported(task, "onnx", BAKE[task])
    folder = run.parent / "scenes" / "test"
    (tmp_path / "no_image.png").write_text("no image")
    files = [str(folder), str(tmp_path / "no_image.png")]
    found = answers(run, images_of(run))
    threshold = 0.9 * min([float(one.scores.max()) for one in found if isinstance(one, Boxes)], default=1.0)  # some in every image
    cli.main(["predict", str(path), *files, "--output", str(tmp_path / "rows.jsonl"), "--threshold", str(threshold)])
    said = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ours = convmix.load(path).predict(files, threshold=threshold)
    theirs = convmix.predict(run, files, threshold=threshold, precision="fp32", optimize="never", device="cpu")
    assert [row["name"] for row in said] == [row.name for row in ours] == [row.name for row in theirs]
    for row, mine, other in zip(said[:-1], ours[:-1], theirs[:-1], strict=True):
        assert row["error"] is None
        assert_same(mine.result, other.result)  # type: ignore[union-attr]
        if "objects" in row:
            assert [found["label"] for found in row["objects"]] == [mine.result.labels[c] for c in mine.result.columns]  # type: ignore[union-attr]
    assert said[-1]["error"] == ours[-1].error == theirs[-1].error == "not an image of a known format"


@pytest.mark.parametrize("task", OUTLINES_AND_MAPS)
@pytest.mark.usefixtures("unpainted")
def test_an_exported_model_is_evaluated_as_its_run(
    task: str, exported: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(exported(task, "onnx", BAKE[task]).parents[1], tmp_path / "run")  # evaluations are written there
    path = run / "export" / "onnx-fp32"
    score = create_task(task, ("any",)).score_name
    original = convmix.evaluate(run, split="test", precision="fp32", optimize="never", device="cpu")
    assert original.metrics["n"] == COUNTS["test"] and original.metrics[score] > 0.02  # else nothing is compared
    evaluation = convmix.load(path).evaluate(split="test")
    numbers = {name: value for name, value in original.metrics.items() if isinstance(value, (int, float))}
    assert {name: evaluation.metrics[name] for name in numbers} == pytest.approx(numbers, abs=2e-3)
    assert evaluation.page.is_file() and evaluation.page.parent == path
    cli.main(["evaluate", str(path), "--against", str(run)])
    said = re.search(r"(\d+\.\d\d) points of .* \(95 % interval of the difference", " ".join(capsys.readouterr().out.split()))
    assert said and float(said[1]) < 5  # the run is compared as it computes by itself, in bf16 where that is fast


@pytest.mark.parametrize("task", BOXES_AND_MAPS)
def test_an_exported_model_is_measured_beside_its_run(task: str, exported: Callable[..., Path], tmp_path: Path) -> None:
    path = exported(task, "onnx", BAKE[task])
    cli.main(["benchmark", str(path), "--batch-size", "3", "--rounds", "2", "--output", str(tmp_path)])
    record = json.loads((tmp_path / f"{path.name}-b3.json").read_text())
    assert [lane["name"] for lane in record["lanes"]] == ["model.onnx (onnx, fp32)", "the run (PyTorch, fp32)"]
    assert all(len(lane["ms"]) == 2 and min(lane["ms"]) > 0 for lane in record["lanes"])


@pytest.mark.parametrize("task", OUTLINES_AND_MAPS)
def test_the_script_needs_no_convmix(task: str, trained: Callable[[str], Path], exported: Callable[..., Path], tmp_path: Path) -> None:
    """What it prints of an image: an object per line from a score of one half, here of what these runs give, or every class's share."""
    path, run = shutil.copytree(exported(task, "onnx", BAKE[task]), tmp_path / "export"), trained(task)
    image = images_of(run)[0]
    found = answers(run, [image])[0]
    script = path / "predict.py"
    if isinstance(found, Boxes):
        least = 0.9 * float(found.scores.max())
        found, text = found.above(least), script.read_text()
        assert len(found) and text.count("score >= 0.5") == 1
        script.write_text(text.replace("score >= 0.5", f"score >= {least}"))
    ran = subprocess.run([sys.executable, "-S", "-c", _ALONE, str(script), str(image)], capture_output=True, text=True, check=True)
    lines = [line.split("\t")[1:] for line in ran.stdout.splitlines()]
    if isinstance(found, SemanticMap):
        shares = dict(lines)
        assert {name: pytest.approx(float(share), abs=0.005) for name, share in shares.items()} == dict(
            zip(found.labels, found.shares.tolist(), strict=True)
        )
        return
    assert isinstance(found, Boxes)
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
