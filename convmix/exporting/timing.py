"""An exported model beside the run that it came from: decoded images to answers, in turns, so that a slow minute of the machine hits both.

What the graph does inside the run's side does outside: none: the network; normalise: and mean and std; resize: and Pillow, image by image.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from convmix.artifacts.artifact import load_artifact
from convmix.artifacts.runtime.description import ExportDescription
from convmix.artifacts.runtime.exported import read_description
from convmix.artifacts.runtime.sessions import PACKAGE, Session, open_session
from convmix.data.decode import Image
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError
from convmix.exporting.probe_images import generated

Turn = Callable[[], object]  # one batch


@dataclass(frozen=True)
class TimedEngine:
    """One contender's turns."""

    name: str
    ms: tuple[float, ...]  # per batch, one a round

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """25 %, median and 75 %, ms."""
        low, middle, high = np.percentile(self.ms, (25, 50, 75))
        return float(low), float(middle), float(high)


def race(path: Path, *, batch_size: int = 8, rounds: int = 9, size: tuple[int, int] | None = None) -> tuple[TimedEngine, ...]:
    """The exported model, its compiled package where there is one, and the run where it is still where it was; two rounds warm up.

    size: of the images, where the graph resizes; None: twice the input. Raises ConfigError for a size that the graph does not take.
    """
    for name, value in (("batch_size", batch_size), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"{name}: {value} is too small, expected at least 1")
    description, file = read_description(path)
    images = _images(description, batch_size, size)
    turns: dict[str, Turn] = {
        f"{file.name} ({description.engine}, {description.precision})": _exported(open_session(file, description), description, images)
    }
    package = file.parent / PACKAGE
    if description.engine == "torch" and package.is_file() and file != package:
        turns[f"{PACKAGE} ({description.precision})"] = _exported(open_session(package, description), description, images)
    source = None if description.source is None else file.parent / description.source
    if source is not None and (source / "convmix.json").is_file():
        turns["the run (PyTorch, fp32)"] = _original(source, description, images)
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 2):
        for name, run in turns.items():
            started = time.perf_counter()
            run()
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - started))
    return tuple(TimedEngine(name, tuple(ms)) for name, ms in times.items())


def _images(description: ExportDescription, batch_size: int, size: tuple[int, int] | None) -> list[Image]:
    """Decoded, all of one size."""
    h, w = description.preprocess.size
    if size is not None and description.bake != "resize" and size != (h, w):
        raise ConfigError(f"size: {size[0]}x{size[1]}, but the run's images are {h}x{w} where the graph does not resize; leave size out")
    height, width = (h, w) if description.bake != "resize" else size or (2 * h, 2 * w)
    some = generated(description.preprocess).resized((height, width))
    return [some.decoded(i % len(some)) for i in range(batch_size)]


def _exported(session: Session, description: ExportDescription, images: Sequence[Image]) -> Turn:
    if description.bake == "none":
        array = _placed(description.preprocess, images).numpy()
    else:
        array = np.stack([np.asarray(image).reshape(*_shape(image), description.preprocess.in_chans) for image in images])
    return lambda: session(array)


def _original(source: Path, description: ExportDescription, images: Sequence[Image]) -> Turn:
    model, preprocess = load_artifact(source).model, description.preprocess
    if description.bake == "resize":
        inputs: Callable[[], Tensor] = lambda: _placed(preprocess, images)  # noqa: E731
    else:
        ready = _placed(preprocess, images)
        pixels = torch.from_numpy(np.stack([np.asarray(image).reshape(*_shape(image), preprocess.in_chans) for image in images]))
        inputs = (lambda: preprocess.normalise_batch(pixels)) if description.bake == "normalise" else (lambda: ready)

    def turn() -> object:
        with torch.inference_mode():
            return model(inputs())

    return turn


def _placed(preprocess: Preprocess, images: Sequence[Image]) -> Tensor:
    return torch.stack([preprocess(image) for image in images])


def _shape(image: Image) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, PIL.Image.Image) else (image.shape[0], image.shape[1])
