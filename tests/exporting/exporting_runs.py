"""A small run with its data, for the tests of what is exported, and exports of a run that differ in little."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import LABELS, make_run

from convmix.artifacts.artifact import Artifact, load_artifact, save_calibration
from convmix.atomic import write_csv
from convmix.data.scan import digest_of
from convmix.exporting import export as module
from convmix.metrics.calibration import Calibration

CALIBRATION = Calibration(1.7, 0.6, "val", 36, 0.2, 0.1, 0.7, 0.6)


def blotches(path: Path, seed: int) -> None:
    """A picture of soft colours, of a size of its own: what resizing meets in life, unlike noise."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(14, 60, 2)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path)


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
    """`export` for one run of each task: what differs in nothing else than the format is written from one trace."""

    def __init__(self) -> None:
        self.traces: dict[object, Any] = {}

    def __call__(self, run: Path | Artifact, format: str, *, compiled: bool = False, **arguments: Any) -> None:
        """compiled: torch's package too, which takes a minute."""
        real = module.trace

        def traced(graph: Any, preprocess: Any, *, bake: str, dynamic: tuple[str, ...]) -> Any:
            key = (graph.task.name, graph.dtype, bake, dynamic)
            if key not in self.traces:
                self.traces[key] = real(graph, preprocess, bake=bake, dynamic=dynamic)
            return self.traces[key]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "trace", traced)
            if not compiled:
                patch.setattr(module.torch_program, "has_compiler", lambda: False)
            module.export(run, format, **arguments)
