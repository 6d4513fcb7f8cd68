"""Semantic segmentation: a class for every pixel of the original image, Semantic FPN.

images -> network -> logits N,k,H/4,W/4 -> cross-entropy at the input's size              a training step
logits -> Placement -> k,h,w over the original image -> SemanticMap, confusion with truth  an answer
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convmix.config import Dense
from convmix.data.examples import Examples
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import IGNORE, Targets
from convmix.data.traced_placement import TracedPlacement
from convmix.metrics.resampling import Sampled
from convmix.metrics.segmentation import confusion, scores, segmentation_metrics, tallies
from convmix.plots.overlay import draw_map, grid_picture
from convmix.results import SemanticMap
from convmix.tasks.dense import DenseTask, beside_truth, frozen, with_interval
from convmix.tasks.pyramid import DenseBackbone, DenseNetwork
from convmix.tasks.semanticfpn import SemanticFpn


@dataclass(frozen=True)
class Scored:
    """What is kept of the answer to one image whose truth is known."""

    map: SemanticMap
    confusion: np.ndarray  # k,k int64: pixels by true and said class
    nats: float  # summed over the pixels


class Segment(DenseTask):
    """Semantic FPN (Kirillov et al. 2019, arXiv 1901.02446)."""

    name = "segment"
    result = SemanticMap
    noun = "A semantic segmenter"
    hub_tag = "image-segmentation"
    score_name = "miou"
    score_title = "mean IoU"
    recipe = "segment_small"
    compiles = True
    strides = (4, 8, 16, 32)

    def network(self, backbone: DenseBackbone, dense: Dense) -> DenseNetwork:
        return SemanticFpn(backbone, len(self.labels), pyramid_channels=dense.pyramid_channels)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        if not isinstance(targets, Tensor):
            raise TypeError(f"targets are {type(targets).__name__}, expected class maps of one size")
        logits = F.interpolate(outputs.float(), targets.shape[-2:], mode="bilinear", align_corners=False)
        wanted = targets.long()
        scored = (wanted != IGNORE).sum().clamp(min=1)  # a batch without any scored pixel has a loss of 0, not of nan
        return F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum") / scored

    def observe(self, outputs: Tensor, targets: Targets) -> list[Scored | SemanticMap]:
        return [self._answer(logits, truth) for logits, truth in zip(outputs.float().cpu(), targets, strict=True)]

    def _answer(self, logits: Tensor, truth: Any) -> Scored | SemanticMap:
        """k,h,w over the input, at the network's resolution."""
        on_image = truth.placement.map_to_image(logits)  # k,H,W
        log_probabilities = on_image.log_softmax(0)
        certainty, classes = log_probabilities.max(0)
        said = SemanticMap(classes.to(self._class_type), certainty.exp(), self.labels)
        if truth.annotation is None:
            return said
        wanted = torch.from_numpy(truth.annotation).long()
        nats = F.nll_loss(log_probabilities[None], wanted[None], ignore_index=IGNORE, reduction="sum")
        return Scored(said, confusion(truth.annotation, said.classes.numpy(), len(self.labels)), float(nats))

    def metrics(self, answers: Sequence[Scored], targets: Targets, *, intervals: bool = True) -> dict[str, Any]:
        found = segmentation_metrics(np.stack([a.confusion for a in answers]), self.labels, intervals=intervals)
        return {**found, "loss": sum(a.nats for a in answers) / max(1, found["pixels"])}

    def sampled(self, answers: Sequence[Scored], targets: Targets) -> Sampled:
        counts = tallies(np.stack([a.confusion for a in answers]))  # n,3,k
        n, _, k = counts.shape
        flat = counts.reshape(n, -1).astype(np.float64)
        return Sampled(n, lambda weights: scores((weights @ flat).reshape(-1, 3, k))["miou"])

    def decode(self, outputs: Sequence[Scored | SemanticMap], *, threshold: float | None = None) -> list[SemanticMap]:
        return [a.map if isinstance(a, Scored) else a for a in outputs]

    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        return {
            "mean IoU": with_interval(scores, "miou"),
            "pixel accuracy": with_interval(scores, "pixel_accuracy"),
            "loss (nats)": f"{scores['loss']:.4f}",
        }

    def picture(
        self, examples: Examples, preprocess: Preprocess, inputs: Tensor, answers: Sequence[Scored], targets: Targets, *, title: str
    ) -> bytes:
        rows = []
        for name, image, truth, answer in beside_truth(examples, preprocess, targets, answers):
            rows.append((name, [draw_map(image, truth, self.labels), draw_map(image, answer.map.classes.numpy(), self.labels)]))
        return grid_picture(rows, ("truth", "said"), title=title)

    @property
    def _class_type(self) -> torch.dtype:
        return torch.uint8 if len(self.labels) < IGNORE else torch.int16

    def deployed(self, model: nn.Module) -> nn.Module:
        return frozen(ClassMapLogits(model))

    def finished(self, outputs: dict[str, Tensor], frame: TracedPlacement | None) -> dict[str, Tensor]:
        """With a frame also `classes` and `certainty` N,H,W of the image's own pixels, as in SemanticMap."""
        if frame is None:
            return outputs
        certainty, classes = frame.maps_to_image(outputs["logits"]).softmax(1).max(1)
        return {**outputs, "classes": classes.to(self._class_type), "certainty": certainty}

    def observed_from(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["logits"]

    def evidence(self, model: nn.Module, images: Tensor) -> Tensor:
        logits = model(images)  # N,k,h,w
        where = F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).to(logits.dtype)  # N,k,h,w: where each class wins
        pixels = where.sum((2, 3))
        best = logits.amax((2, 3))
        return torch.where(pixels > 0, (logits * where).sum((2, 3)) / pixels.clamp(min=1), best)

    def evidence_shares(self, evidence: Tensor) -> Tensor:
        return evidence.float().softmax(1)


class ClassMapLogits(nn.Module):
    """A segmenter's network for other programs: N,C,H,W -> `logits` N,k,h,w."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(images)}
