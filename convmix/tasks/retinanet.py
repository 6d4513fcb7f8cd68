"""RetinaNet: every anchor of every level says which class it holds, if any, and how its box is to be moved.

images B,C,H,W -> pyramid at strides 8 to 128 -> class logits B,anchors,k and box deltas B,anchors,4 -> losses | boxes
Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002. Settings are mmdetection's, on torchvision's heads.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss

from convmix.config import Size
from convmix.speed.backends import Outputs
from convmix.tasks.anchors import RATIOS, Anchors, init_head
from convmix.tasks.pyramid import DenseBackbone, DenseNetwork, create_pyramid

OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three sizes of anchors between a level and the next
POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.4  # anchors between them are not learned from
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
MIN_SCORE, NMS_IOU = 0.05, 0.5
CANDIDATES, DETECTIONS = 1000, 100  # kept per level before, and per image after, overlapping boxes are removed


class RetinaNet(DenseNetwork):
    """images B,C,H,W of any size -> with targets the losses, without them the objects found, whatever the mode.

    targets: per image `boxes` n,4 xyxy in input pixels, float32, and `labels` n, classes 0..k-1; n may be 0.
    Losses, scalars in float32: `classification` and `bbox_regression`. Found, per image: `boxes`, `scores`, `labels`, best first, at
    most 100. anchor_scale: the side of a level's smallest square anchor, in strides (published: 4).
    """

    def __init__(self, backbone: DenseBackbone, num_classes: int, *, pyramid_channels: int = 256, anchor_scale: float = 4.0) -> None:
        super().__init__(backbone, num_classes)
        self.pyramid = create_pyramid(backbone, pyramid_channels, "convs")
        self.head = RetinaNetHead(pyramid_channels, len(RATIOS) * len(OCTAVE), num_classes)
        init_head(self.head, pyramid_channels)
        self.anchors = Anchors(self.pyramid.strides, [anchor_scale * step for step in OCTAVE])
        self.matcher = Matcher(POSITIVE_IOU, NEGATIVE_IOU, allow_low_quality_matches=True)
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self._anchors_at: dict[Size, tuple[Tensor, list[int]]] = {}  # for `finish`

    def forward(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        logits, deltas, anchors, per_level = self.heads(images)
        if targets is not None:
            return self._losses(logits, deltas, anchors, targets)
        size = (images.shape[2], images.shape[3])
        return [self._found(*one, anchors, per_level, size) for one in zip(logits, deltas, strict=True)]

    def trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits B,anchors,k and box deltas B,anchors,4."""
        logits, deltas, _, _ = self.heads(images)
        return logits, deltas

    def finish(self, outputs: Outputs, size: Size) -> list[dict[str, Tensor]]:
        logits, deltas = outputs
        if size not in self._anchors_at:  # an image without content says where they are
            where = next(self.parameters()).device
            _, _, all_of_them, of_each_level = self.heads(torch.zeros(1, self.backbone.in_chans, *size, device=where))
            self._anchors_at[size] = all_of_them, of_each_level
        anchors, per_level = self._anchors_at[size]
        return [self._found(*one, anchors.to(logits.device), per_level, size) for one in zip(logits, deltas, strict=True)]

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Class logits B,anchors,k, box deltas B,anchors,4, the anchors n,4, and how many of them each level has."""
        maps = self.pyramid(self.backbone(images))
        said = self.head(maps)
        anchors = self.anchors(ImageList(images, [(images.shape[2], images.shape[3])]), maps)[0]
        per_level = [m.shape[2] * m.shape[3] * len(RATIOS) * len(OCTAVE) for m in maps]
        return said["cls_logits"].float(), said["bbox_regression"].float(), anchors, per_level

    def class_logits(self, images: Tensor) -> Tensor:
        """What every anchor says of every class: B,C,H,W -> B,anchors,k."""
        return self.head.classification_head(self.pyramid(self.backbone(images))).float()

    def _losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Sums over the batch divided by its number of positive anchors, at least one per image.

        torchvision divides image by image, so that one without objects, whose sum runs over all anchors, outweighs the others.
        """
        classes, boxes, positives = logits.new_zeros(()), logits.new_zeros(()), 0
        for logit, delta, target in zip(logits, deltas, targets, strict=True):
            matched = self._match(anchors, target["boxes"])  # anchors int64: an object, or negative
            positive = (matched >= 0).nonzero()[:, 0]
            objects = matched[positive]
            wanted = torch.zeros_like(logit)  # anchors,k
            wanted[positive, target["labels"][objects]] = 1
            focal = sigmoid_focal_loss(logit, wanted, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA)
            classes = classes + focal[matched != Matcher.BETWEEN_THRESHOLDS].sum()
            moves = self.box_coder.encode_single(target["boxes"][objects], anchors[positive])
            boxes = boxes + F.l1_loss(delta[positive], moves, reduction="sum")
            positives += max(1, len(positive))
        return {"classification": classes / max(1, positives), "bbox_regression": boxes / max(1, positives)}

    def _match(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        if not len(boxes):
            return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        return self.matcher(box_iou(boxes, anchors))

    def _found(self, logits: Tensor, deltas: Tensor, anchors: Tensor, per_level: list[int], size: tuple[int, int]) -> dict[str, Tensor]:
        """The objects of one image."""
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        levels = zip(*(t.split(per_level) for t in (logits, deltas, anchors)), strict=True)
        for logit, delta, anchor in levels:
            scores = logit.sigmoid().flatten()  # anchors * k
            candidates = (scores > MIN_SCORE).nonzero()[:, 0]
            best = scores[candidates].topk(min(CANDIDATES, len(candidates)))
            at, label = (f := candidates[best.indices]).div(self.num_classes, rounding_mode="floor"), f % self.num_classes
            kept.append((self.box_coder.decode_single(delta[at], anchor[at]), best.values, label))
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
        boxes = clip_boxes_to_image(boxes, size)
        chosen = batched_nms(boxes, scores, labels, NMS_IOU)[:DETECTIONS]
        return {"boxes": boxes[chosen], "scores": scores[chosen], "labels": labels[chosen]}
