"""The images that an exported model is compared on: the run's validation images, or generated ones where those are gone.

ProbeImages -> the loaders, with annotations as they are known; resized, without, for the comparison at another size
"""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import PIL.Image

from convmix.artifacts.artifact import Artifact
from convmix.artifacts.provenance import validation_examples
from convmix.artifacts.renumbering import Renumbered, columns
from convmix.config import Size
from convmix.data import geometry
from convmix.data.decode import MODES, Image, decode
from convmix.data.preprocessing import Preprocess
from convmix.errors import DataError, RunError

COMPARED = 100  # images at most
GENERATED = 16


@dataclass(frozen=True)
class ProbeImages:
    """n images, encoded."""

    sources: tuple[bytes | str, ...]
    annotations: tuple[Any, ...]  # in the run's columns; None where nothing is known
    preprocess: Preprocess  # whose channels and limits they are decoded with
    are_generated: bool = False

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self), np.int64)

    @property
    def shards(self) -> np.ndarray:
        return np.zeros(len(self), np.int64)

    def __len__(self) -> int:
        return len(self.sources)

    def source(self, i: int, /) -> bytes | str:
        return self.sources[i]

    def annotation(self, i: int, /) -> Any:
        return self.annotations[i]

    def few(self, n: int) -> "ProbeImages":
        """At most n of them, evenly over all."""
        at = range(len(self)) if len(self) <= n else [i * len(self) // n for i in range(n)]
        return ProbeImages(tuple(self.sources[i] for i in at), tuple(self.annotations[i] for i in at), self.preprocess, self.are_generated)

    def unknown(self) -> "ProbeImages":
        """Without what is known of them."""
        return ProbeImages(self.sources, (None,) * len(self), self.preprocess, self.are_generated)

    @cached_property
    def typical_size(self) -> Size:
        """Of the first one: height and width."""
        return geometry.size_of(self.decoded(0))

    def decoded(self, i: int) -> Image:
        return decode(
            self.sources[i],
            in_chans=self.preprocess.in_chans,
            max_pixels=self.preprocess.max_pixels,
            value_range=self.preprocess.value_range,
        )

    def resized(self, size: Size) -> "ProbeImages":
        """All at one size; what was known of them is known of other pixels, so it is left out."""
        sources = tuple(_encoded(geometry.resize(self.decoded(i), size, "bicubic")) for i in range(len(self)))
        return ProbeImages(sources, self.annotations, self.preprocess, self.are_generated).unknown()


def specimens(artifact: Artifact) -> tuple[ProbeImages, str | None]:
    """The run's validation images, evenly over the split; or generated ones and the reason why."""
    try:
        parts = validation_examples(artifact, at_most=COMPARED)
    except (DataError, RunError) as error:
        return generated(artifact.preprocess), str(error)
    sources, annotations = [], []
    for part in parts:
        known = Renumbered(part, columns(part.classes, artifact.labels, "the validation images"), len(artifact.labels))
        sources += [known.source(i) for i in range(len(known))]
        annotations += [known.annotation(i) for i in range(len(known))]
    return ProbeImages(tuple(sources), tuple(annotations), artifact.preprocess), None


def generated(preprocess: Preprocess) -> ProbeImages:
    """Pictures of soft coloured waves with noise, of several sizes: nothing that a model knows, but no flat colour either."""
    rng = np.random.default_rng(0)
    h, w = preprocess.size
    images = []
    for _ in range(GENERATED):
        height, width = (max(int(side * rng.uniform(0.8, 2)), 2) for side in (h, w))
        y, x = np.mgrid[:height, :width] / max(height, width)
        waves = [np.sin(rng.uniform(3, 30) * (x * np.cos(a) + y * np.sin(a)) + a) for a in rng.uniform(0, 6.3, preprocess.in_chans)]
        values = 0.5 + 0.3 * np.stack(waves, 2) + rng.normal(0, 0.08, (height, width, preprocess.in_chans))  # H,W,C
        images.append(_encoded(_image(values.clip(0, 1).astype(np.float32))))
    return ProbeImages(tuple(images), (None,) * len(images), preprocess, are_generated=True)


def _image(values: np.ndarray) -> Image:
    channels = values.shape[2]
    if channels not in MODES:
        return values
    levels = np.rint(values * 255).astype(np.uint8)
    return PIL.Image.fromarray(levels[:, :, 0] if channels == 1 else levels, MODES[channels])


def _encoded(image: Image) -> bytes:
    out = io.BytesIO()
    if isinstance(image, np.ndarray):
        np.save(out, image)
    else:
        image.save(out, "PNG")
    return out.getvalue()
