"""What an explanation consists of: the maps of every image with their verdicts, a verdict on every method, the model's own numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convmix.data.formats import printable
from convmix.explanation.activations import Activation
from convmix.explanation.receptive_field import Field
from convmix.explanation.trust import SAME_MAP, FaithfulnessScore
from convmix.explanation.weights import Depthwise


@dataclass(frozen=True)
class Map:
    """One method's answer to where the evidence for one class lies in one image."""

    method: str
    label: str  # the class
    heat: np.ndarray = field(repr=False)  # H,W float32, at the model's input size
    score: FaithfulnessScore


@dataclass(frozen=True)
class ExplainedImage:
    """What the model says about one image, and where it says that from."""

    name: str  # as the user gave it
    pixels: np.ndarray = field(repr=False)  # C,H,W uint8, as the model sees it
    predicted: str
    probabilities: dict[str, float]  # of the predicted and the named classes, 0..1
    maps: tuple[Map, ...]


@dataclass(frozen=True)
class MethodVerdict:
    """How far one method can be trusted on these images; the predicted class alone counts."""

    method: str
    better: int  # images on which its map clearly beats the random orders
    judged: int  # images whose probability moves enough to tell
    gap: float | None  # mean over the judged images of insertion - deletion; None where none is judged
    random_gap: float | None  # the same of the random orders
    needed: float | None  # the mean gap from which on the method is better than random
    correlation: float | None  # mean rank correlation with the maps of the model with shuffled weights; None: constant maps

    @property
    def depends_on_weights(self) -> bool:
        """False where shuffled weights give nearly the same map, or no map at all was made."""
        return self.correlation is not None and self.correlation < SAME_MAP

    @property
    def is_trusted(self) -> bool | None:
        """The verdict; None where chance could do as well, or where there is nothing to judge by."""
        if not self.depends_on_weights:
            return False
        if self.gap is None or self.needed is None or self.random_gap is None:
            return None
        return True if self.gap > self.needed else None if self.gap > self.random_gap else False

    @property
    def words(self) -> str:
        """The verdict, for people."""
        if self.correlation is None:
            return "its maps are the same everywhere"
        if not self.depends_on_weights:
            return "does not depend on the weights"
        if not self.judged:
            return "cannot be judged: no probability moves enough"
        return {True: "faithful", False: "not faithful: no better than random", None: "in doubt: hardly better than random"}[
            self.is_trusted
        ]


@dataclass(frozen=True)
class Anatomy:
    """The model itself."""

    filters: str | None  # name of the first convolution
    depthwise: tuple[Depthwise, ...] = field(repr=False)
    fields: tuple[Field, ...]
    activations: tuple[Activation, ...] = field(repr=False)
    watched: str  # which images the fields and the activations were measured on


@dataclass(frozen=True)
class Explanation:
    """Everything that `convmix explain` found out and where it was written."""

    run: str
    methods: tuple[MethodVerdict, ...]
    images: tuple[ExplainedImage, ...] = field(repr=False)
    anatomy: Anatomy
    layer: str | None  # where Grad-CAM reads
    left_out: int  # files beyond the limit
    bad: tuple[tuple[str, str], ...]  # (name, reason) of files that could not be read
    notes: tuple[str, ...]
    page: Path  # the HTML file; the JSON file has the same name

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds: all numbers, no maps."""
        return {
            "run": self.run,
            "methods": [_verdict(v) for v in self.methods],
            "images": [_image(i) for i in self.images],
            "model": {
                "first_convolution": self.anatomy.filters,
                "depthwise": [
                    {"layer": d.layer, "channels": len(d.kernels), "kernel_size": d.kernels.shape[-1], "spread_px": d.spread_px}
                    for d in self.anatomy.depthwise
                ],
                "receptive_fields": [
                    {"stage": f.stage, "effective_px": f.effective_px, "half_px": f.half_px, "possible_px": f.possible_px}
                    for f in self.anatomy.fields
                ],
                "activations": [vars(a) for a in self.anatomy.activations],
                "measured_on": self.anatomy.watched,
            },
            "gradcam_layer": self.layer,
            "left_out": self.left_out,
            "bad": [{"name": printable(name), "reason": reason} for name, reason in self.bad],
            "notes": list(self.notes),
        }


def _verdict(v: MethodVerdict) -> dict[str, Any]:
    return {**vars(v), "trusted": v.is_trusted, "verdict": v.words}


def _image(i: ExplainedImage) -> dict[str, Any]:
    maps = [
        {
            "method": m.method,
            "class": m.label,
            "deletion": m.score.deletion,
            "insertion": m.score.insertion,
            "random_deletion": list(m.score.random.deletion),
            "random_insertion": list(m.score.random.insertion),
            "better_than_random": m.score.passes,
            "verdict": m.score.words,
        }
        for m in i.maps
    ]
    return {"name": printable(i.name), "predicted": i.predicted, "probabilities": i.probabilities, "maps": maps}
