"""A small run with its data, for the tests of what is exported, and exports of a run that differ in little."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import LABELS, make_run

from convmix.artifacts.artifact import Artifact, load_artifact, save_calibration
from convmix.atomic import write_csv
from convmix.data.scan import digest_of
from convmix.exporting import export as module
from convmix.metrics.calibration import Calibration
from convmix.speed.packages import imported

SIZES = ((14, 37), (59, 21), (33, 58), (48, 44), (25, 16))  # few, for engines prepare themselves for each
COMPILED = ("torch", "fp32", "none", "fixed")  # the one export with torch's package: format, precision, bake, size
CALIBRATION = Calibration(1.7, 0.6, "val", 36, 0.2, 0.1, 0.7, 0.6)


def blotches(path: Path, seed: int) -> None:
    """A picture of soft colours, of one of several sizes: what resizing meets in life, unlike noise."""
    rng = np.random.default_rng(seed)
    height, width = SIZES[seed % len(SIZES)]
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)


def run_with_data(root: Path, **preprocess: object) -> Artifact:
    """root/run and root/photos; a temperature and a threshold that leaves some answers unsure."""
    photos = root / "photos"
    for k, (split, n) in enumerate({"train": 2, "val": 12}.items()):
        for c, label in enumerate(LABELS):
            for i in range(n):
                blotches(photos / split / label / f"{i}.png", 1000 * k + 100 * c + i)
    made = make_run(root / "run", spec=str(photos), **preprocess)  # type: ignore[arg-type]
    rows = [
        (split, str(file.relative_to(photos)), digest_of(str(file)), file.parent.name)
        for split in ("train", "val")
        for file in sorted((photos / split).rglob("*.png"))
    ]
    write_csv(made.path / "splits.csv", ("split", "name", "digest", "label"), rows)
    save_calibration(made.path, CALIBRATION)
    return load_artifact(made.path)


class Writer:
    """`export` for one run of each task: what differs in nothing else than the format is written from one trace, and what differs in the
    precision from one conversion too."""

    def __init__(self) -> None:
        self.made: dict[object, Any] = {}

    def __call__(self, run: Path | Artifact, format: str, *, compiled: bool = False, **arguments: Any) -> module.Export:
        """compiled: torch's package too, which takes a minute."""
        trace, to_onnx = module.trace, torch.onnx.export

        def traced(graph: Any, preprocess: Any, *, bake: str, dynamic: tuple[str, ...]) -> Any:
            key = (graph.task.name, graph.dtype, bake, dynamic)
            return self._once(key, lambda: trace(graph, preprocess, bake=bake, dynamic=dynamic))

        def onnx(program: Any, **settings: Any) -> Any:
            return self._once(("onnx", id(program)), lambda: to_onnx(program, **settings))  # its `model_proto` is a new one every time

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "trace", traced)
            patch.setattr(torch.onnx, "export", onnx)
            if format == "openvino":
                openvino = imported("openvino", extra="export")
                convert = openvino.convert_model
                patch.setattr(
                    openvino, "convert_model", lambda program: self._once(("openvino", id(program)), lambda: convert(program)).clone()
                )
            if not compiled:
                patch.setattr(module.torch_program, "has_compiler", lambda: False)
            return module.export(run, format, **arguments)

    def _once(self, key: object, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]
