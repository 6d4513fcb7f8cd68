"""Detection: boxes (RetinaNet), and boxes with outlines (Mask R-CNN), in pixels of the original image.

images, targets -> network -> losses                                   a training step
images -> network -> boxes on the input -> Placement -> Boxes | Masks  an answer
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convmix.config import Dense
from convmix.data import rle
from convmix.data.examples import Examples
from convmix.data.placement import Placement
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import Targets
from convmix.data.traced_placement import TracedPlacement
from convmix.metrics.detection import detection_metrics, mean_ap
from convmix.metrics.matching import match
from convmix.metrics.resampling import Sampled
from convmix.metrics.score_calibration import ScoreCalibration, calibrate_scores, scores_and_truth
from convmix.plots.overlay import draw, grid_picture, truth_of
from convmix.results import Boxes, Masks
from convmix.speed.check import LIMITS, Limits
from convmix.tasks.dense import DenseTask, beside_truth, frozen, with_interval
from convmix.tasks.deployed_maskrcnn import DeployedMaskRCNN
from convmix.tasks.deployed_retinanet import DeployedRetinaNet
from convmix.tasks.maskrcnn import MaskRCNN
from convmix.tasks.pyramid import DenseBackbone, DenseNetwork
from convmix.tasks.retinanet import RetinaNet
from convmix.tasks.suppression import first

SHOWN = 0.5  # score from which a box is drawn
OBJECTS_CHANGED = 2.5  # times as many objects as classes may be others: of two boxes on one object rounding decides which stays
FoundObjects = Sequence[Boxes]


class Detect(DenseTask):
    """Boxes with a class and a score: RetinaNet (Lin et al. 2017, arXiv 1708.02002)."""

    name = "detect"
    result = Boxes
    noun = "An object detector"
    hub_tag = "object-detection"
    score_name = "ap"
    score_title = "AP"
    calibratable = True
    recipe = "detect_small"
    strides: ClassVar[tuple[int, ...]] = (8, 16, 32)
    engine_limits: ClassVar[Limits] = {dtype: replace(limits, changed=OBJECTS_CHANGED * limits.changed) for dtype, limits in LIMITS.items()}

    def network(self, backbone: DenseBackbone, dense: Dense) -> DenseNetwork:
        scale = anchor_scale(backbone, dense, published=4.0)
        return RetinaNet(backbone, len(self.labels), pyramid_channels=dense.pyramid_channels, anchor_scale=scale)

    def forward(self, model: Callable[..., Any], images: Tensor, targets: Targets) -> dict[str, Tensor]:
        wanted = []
        for t in targets:
            one = {"boxes": t.boxes, "labels": t.labels}
            wanted.append(one | ({"masks": t.masks} if self.learns_masks else {}))
        losses: dict[str, Tensor] = model(images, wanted)
        return losses

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        return torch.stack([value.float() for value in outputs.values()]).sum()

    def observe(self, outputs: Sequence[Mapping[str, Tensor]], targets: Targets) -> list[Boxes]:
        return [self._result(one, truth.placement) for one, truth in zip(outputs, targets, strict=True)]

    def _result(self, found: Mapping[str, Tensor], placement: Placement) -> Boxes:
        boxes, scores, columns, _ = _on_image(found, placement)
        return Boxes(boxes, scores, columns, self.labels, placement.size)

    def metrics(self, answers: FoundObjects, targets: Targets, *, intervals: bool = True) -> dict[str, Any]:
        truths = [truth.annotation for truth in targets]
        return detection_metrics(answers, truths, self.labels, masks=self.learns_masks, intervals=intervals)

    def sampled(self, answers: FoundObjects, targets: Targets) -> Sampled:
        truths = [truth.annotation for truth in targets]
        masks = self.learns_masks and all(truth.masks is not None for truth in truths)
        matches = match(answers, truths, len(self.labels), masks=masks)
        return Sampled(len(truths), lambda weights: mean_ap(matches, weights), is_biased=True)

    @classmethod
    def read_calibration(cls, values: object) -> ScoreCalibration:
        return ScoreCalibration.from_dict(values)

    def calibrate(self, outputs: FoundObjects, targets: Targets, *, split: str) -> ScoreCalibration:
        return calibrate_scores(*self._right(outputs, targets), n=len(outputs), split=split)

    def certainty(self, outputs: FoundObjects, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """Of every found object: its score, and whether it is right at IoU .50."""
        return self._right([self._sure(found) for found in outputs], targets)

    def decode(self, outputs: FoundObjects, *, threshold: float | None = None) -> list[Boxes]:
        return [self._sure(found).above(SHOWN if threshold is None else threshold) for found in outputs]

    def _sure(self, found: Boxes) -> Boxes:
        """The same with calibrated scores, where the task is calibrated."""
        return found if self.calibration is None else replace(found, scores=self.calibration.apply(found.scores))

    def _right(self, found: FoundObjects, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        truths = [truth.annotation for truth in targets]
        masks = self.learns_masks and all(truth.masks is not None for truth in truths)
        return scores_and_truth(found, truths, len(self.labels), masks=masks)

    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        return {
            "AP": with_interval(scores, "ap"),
            "AP50": with_interval(scores, "ap50"),
            "AP75": with_interval(scores, "ap75"),
            "objects": str(scores["objects"]),
        }

    def picture(
        self, examples: Examples, preprocess: Preprocess, inputs: Tensor, answers: FoundObjects, targets: Targets, *, title: str
    ) -> bytes:
        rows = []
        for name, image, truth, found in beside_truth(examples, preprocess, targets, answers):
            rows.append((name, [draw(image, truth_of(truth, self.labels)), draw(image, found.above(SHOWN))]))
        return grid_picture(rows, ("truth", f"found, score from {SHOWN:g}"), title=title)

    def deployed(self, model: nn.Module) -> nn.Module:
        return frozen(DeployedRetinaNet(cast(RetinaNet, model)))

    def finished(self, outputs: dict[str, Tensor], frame: TracedPlacement | None) -> dict[str, Tensor]:
        """With a frame, objects without area on the image leave their places to those behind them, as `observe` leaves them out."""
        if frame is None:
            return outputs
        boxes, scores = frame.boxes_to_image(outputs["boxes"]), outputs["scores"]
        stays = (scores > 0) & ((boxes[:, :, 2:] - boxes[:, :, :2]) > 0).all(2)
        return first(scores.shape[1], stays, {**outputs, "boxes": boxes})

    def observed_from(self, outputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        found = outputs["scores"] > 0
        return [{name: values[i][found[i]] for name, values in outputs.items()} for i in range(len(found))]

    def evidence(self, model: nn.Module, images: Tensor) -> Tensor:
        network: Any = model
        return network.class_logits(images).amax(1)  # N,anchors,k -> N,k

    def evidence_shares(self, evidence: Tensor) -> Tensor:
        return evidence.float().sigmoid()


class Instances(Detect):
    """Boxes and outlines: Mask R-CNN (He et al. 2017, arXiv 1703.06870)."""

    name = "instances"
    result = Masks
    noun = "An instance segmenter"
    hub_tag = "image-segmentation"
    score_name = "mask_ap"
    score_title = "mask AP"
    recipe = "instances_small"
    strides = (4, 8, 16, 32)
    learns_masks = True

    def network(self, backbone: DenseBackbone, dense: Dense) -> DenseNetwork:
        scale = anchor_scale(backbone, dense, published=8.0)
        return MaskRCNN(backbone, len(self.labels), pyramid_channels=dense.pyramid_channels, anchor_scale=scale)

    def deployed(self, model: nn.Module) -> nn.Module:
        return frozen(DeployedMaskRCNN(cast(MaskRCNN, model)))

    def _result(self, found: Mapping[str, Tensor], placement: Placement) -> Masks:
        boxes, scores, columns, kept = _on_image(found, placement)
        masks = paste(found["masks"].float().cpu()[kept], boxes, placement.size)
        return Masks(boxes, scores, columns, self.labels, placement.size, masks)

    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        return {
            "mask AP": with_interval(scores, "mask_ap"),
            "mask AP50": with_interval(scores, "mask_ap50"),
            "box AP": with_interval(scores, "ap"),
            "box AP50": with_interval(scores, "ap50"),
            "objects": str(scores["objects"]),
        }


def anchor_scale(backbone: DenseBackbone, dense: Dense, *, published: float) -> float:
    """Side of the smallest anchor in strides of its level."""
    finest = backbone.strides[0] / 2 if backbone.isotropic else min(backbone.strides)  # a simple pyramid begins at half the stride
    return published if dense.smallest_anchor is None else dense.smallest_anchor / finest


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[bytes, ...]:
    """Probabilities n,28,28 over each box n,4 -> RLE masks over an image of `size`, cut at one half.

    Sampled at the centres of the image's pixels, as mmdetection does; torchvision rounds the boxes and adds a pixel.
    """
    height, width = size
    counts: list[bytes] = []
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
        rows = torch.arange(max(math.floor(top), 0), min(math.ceil(bottom), height))
        columns = torch.arange(max(math.floor(left), 0), min(math.ceil(right), width))
        y, x = (rows + 0.5 - top) / (bottom - top) * 2 - 1, (columns + 0.5 - left) / (right - left) * 2 - 1
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)[None]  # 1,rows,columns,2
        inside = F.grid_sample(mask[None, None], grid, mode="bilinear", align_corners=False)[0, 0] >= 0.5
        pasted = np.zeros((1, height, width), np.uint8)
        pasted[0, rows[:, None].numpy(), columns.numpy()] = inside.numpy()
        counts += rle.encode(pasted)
    return tuple(counts)


def _on_image(found: Mapping[str, Tensor], placement: Placement) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes, scores and columns of what has an area on the image itself and not on the border around it; and which that is."""
    boxes = placement.boxes_to_image(found["boxes"].detach().float().cpu())
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    return boxes[kept], found["scores"].detach().float().cpu()[kept], found["labels"].cpu()[kept], kept
