"""Mask R-CNN: regions that may hold an object are proposed, then each is classified, its box moved and its outline drawn.

images B,C,H,W -> pyramid at strides 4 to 64 -> proposals -> RoI 7x7 -> class and box
                                                          -> RoI 14x14 -> mask 28x28 per class
He et al. 2017, "Mask R-CNN", arXiv 1703.06870. torchvision's parts with mmdetection's settings: no background among the boxes and masks,
RoIAlign that knows of pixel centres, masks learned as 0 or 1. Of its training two things are torchvision's: the box losses are smooth L1
of beta 1/9 in place of L1, and an object's best anchor counts as positive however little it overlaps.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import roi_align

from convmix.config import Size
from convmix.speed.backends import Outputs
from convmix.tasks.anchors import RATIOS, Anchors, init_head
from convmix.tasks.pyramid import DenseBackbone, DenseNetwork, create_pyramid

BOX_GRID, MASK_GRID, MASK_SIZE = 7, 14, 28  # pixels of a region's map, for class and box, for the mask, and of the mask
FINEST_CELLS = 14  # a region below twice as many cells of the finest map is read from it; mmdetection's finest_scale 56 at stride 4


class MaskRCNN(DenseNetwork):
    """images B,C,H,W of any size -> with targets the losses, without them the objects found, whatever the mode.

    targets: per image `boxes` n,4 xyxy in input pixels, float32, `labels` n, classes 0..k-1, and `masks` n,H,W uint8; n may be 0.
    Losses, scalars in float32, five of them. Found, per image, best first, at most 100: `boxes`, `scores`, `labels` and `masks` n,28,28,
    the probability of each point of a box to belong to the object, to be stretched over the box. anchor_scale: the side of a level's
    square anchor, in strides (published: 8). The heads are as wide as the pyramid, the two layers for class and box four times that.
    """

    def __init__(self, backbone: DenseBackbone, num_classes: int, *, pyramid_channels: int = 256, anchor_scale: float = 8.0) -> None:
        super().__init__(backbone, num_classes)
        self.pyramid = create_pyramid(backbone, pyramid_channels, "pool")
        self.rpn = RegionProposalNetwork(
            Anchors(self.pyramid.strides, [anchor_scale]),
            ProposalHead(pyramid_channels, len(RATIOS)),
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=256, positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000}, post_nms_top_n={"training": 1000, "testing": 1000}, nms_thresh=0.7,
        )  # fmt: skip
        width, strides = 4 * pyramid_channels, self.pyramid.strides[:-1]  # the pooled level is for proposals alone
        self.roi_heads = RegionHeads(
            RegionPool(strides, BOX_GRID),
            TwoMLPHead(pyramid_channels * BOX_GRID**2, width),
            BoxPredictor(width, num_classes),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=512, positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0), score_thresh=0.05, nms_thresh=0.5, detections_per_img=100,
            mask_roi_pool=RegionPool(strides, MASK_GRID),
            mask_head=MaskRCNNHeads(pyramid_channels, [pyramid_channels] * 4, 1),
            mask_predictor=MaskRCNNPredictor(pyramid_channels, pyramid_channels, num_classes),
        )  # fmt: skip

    def forward(self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if targets is None:
            return self.finish(self.trunk(images), (images.shape[2], images.shape[3]))
        maps, proposals, losses = self._propose(images, targets)
        sizes = _sizes(images)
        return losses | self.roi_heads.losses(maps, proposals, sizes, targets)

    def trunk(self, images: Tensor) -> tuple[Tensor, ...]:
        """The pyramid's maps, of every level how probably each anchor holds an object, and how its box is to be moved."""
        maps = self.pyramid(self.backbone(images))
        objectness, moves = self.rpn.head(maps)
        return (*maps, *objectness, *moves)

    def finish(self, outputs: Outputs, size: Size) -> list[dict[str, Tensor]]:
        levels = len(outputs) // 3
        maps, objectness, moves = (list(outputs[i * levels : (i + 1) * levels]) for i in range(3))
        n = len(maps[0])
        sizes = [size] * n
        anchors = self.rpn.anchor_generator(ImageList(maps[0], sizes), maps)
        per_level = [o[0].numel() for o in objectness]
        scores, deltas = concat_box_prediction_layers(objectness, moves)
        self.rpn.training = False
        boxes = self.rpn.box_coder.decode(deltas, anchors).view(n, -1, 4)
        proposals, _ = self.rpn.filter_proposals(boxes, scores, sizes, per_level)
        return self.roi_heads.found({str(i): m for i, m in enumerate(maps)}, proposals, sizes)

    def class_logits(self, images: Tensor) -> Tensor:
        """What every proposed region says of every class, against background: B,C,H,W -> B,regions,k; -inf where an image has fewer."""
        maps, proposals, _ = self._propose(images, None)
        logits = self.roi_heads.class_and_box(maps, proposals, _sizes(images))[0]
        odds = logits[:, 1:] - logits[:, :1]
        return pad_sequence(list(odds.split([len(p) for p in proposals])), batch_first=True, padding_value=-torch.inf)

    def _propose(
        self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None
    ) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        """The maps by level, finest first, the proposed regions per image n,4, and the losses of proposing."""
        if targets is not None and len(targets) != len(images):
            raise ValueError(f"{len(targets)} targets for {len(images)} images")
        maps = {str(i): m for i, m in enumerate(self.pyramid(self.backbone(images)))}
        self.rpn.training = targets is not None  # of this module alone: what it has inside is the same in both modes
        proposals, losses = self.rpn(ImageList(images, _sizes(images)), maps, targets)
        return maps, [p.detach() for p in proposals], losses


class ProposalHead(RPNHead):
    """torchvision's, in float32 to the outside under autocast."""

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__(channels, num_anchors)
        init_head(self, channels)

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class RegionPool(nn.Module):
    """Maps by level and regions per image n,4 -> n,C,grid,grid float32: bilinear averages from the level that fits a region's size.

    RoIAlign with pixel centres at half coordinates and as many samples as a region has pixels, as in mmdetection; torchvision's
    MultiScaleRoIAlign has neither, and takes strides to be powers of 2.
    """

    def __init__(self, strides: Sequence[float], grid: int) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.grid = grid

    def forward(self, maps: dict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        boxes = torch.cat(regions)
        image = torch.cat([torch.full_like(r[:, :1], i) for i, r in enumerate(regions)])
        level = self.level_of(boxes)
        of_level = [(level == i).nonzero()[:, 0] for i in range(len(self.strides))]
        rows = torch.cat([image, boxes], 1)  # n,5
        pooled = [
            roi_align(maps[str(i)].float(), rows[at], self.grid, 1 / stride, sampling_ratio=0, aligned=True)
            for i, (at, stride) in enumerate(zip(of_level, self.strides, strict=True))
        ]
        return torch.cat(pooled)[torch.cat(of_level).argsort()]  # back in the order of the regions

    def level_of(self, boxes: Tensor) -> Tensor:
        """n,4 -> n int64: 0, the finest, below 2 * 14 of its cells, and one more for every doubling (Lin et al. 2017, equation 1)."""
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        doublings = torch.log2(side / (FINEST_CELLS * self.strides[0]) + 1e-6).floor()
        return doublings.clamp(0, len(self.strides) - 1).long()


class BoxPredictor(nn.Module):
    """n,D -> class logits n,k+1, background first, and box deltas n,4(k+1), those of the background 0 and without parameters."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(dim, num_classes + 1)
        self.bbox_pred = nn.Linear(dim, 4 * num_classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x).float(), F.pad(self.bbox_pred(x).float(), (4, 0))


class RegionHeads(RoIHeads):
    """torchvision's sampling, box losses and choice of boxes; masks without a background, aligned as the regions are.

    Inside, labels count from 1, the background being 0; outside from 0.
    """

    def class_and_box(self, maps: dict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """n,k+1 and n,4(k+1), float32."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(maps, regions, sizes)))
        return logits, deltas

    def mask_logits(self, maps: dict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]], classes: Tensor) -> Tensor:
        """n,28,28 float32, each region's of its own class, n of 0..k-1."""
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, regions, sizes)))  # n,k,28,28
        return logits[torch.arange(len(classes), device=logits.device), classes].float()

    def losses(
        self, maps: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        from_one = [{**target, "labels": target["labels"] + 1} for target in targets]
        regions, objects, labels, moves = self.select_training_samples(proposals, from_one)
        logits, deltas = self.class_and_box(maps, regions, sizes)
        of_class, of_box = fastrcnn_loss(logits, deltas, labels, moves)
        held = [(label > 0).nonzero()[:, 0] for label in labels]  # per image the regions that hold an object
        with_object = [region[at] for region, at in zip(regions, held, strict=True)]
        classes = torch.cat([label[at] for label, at in zip(labels, held, strict=True)]) - 1
        drawn = self.mask_logits(maps, with_object, sizes, classes)
        wanted = torch.cat([
            masks_in_boxes(target["masks"], boxes, which[at])
            for target, boxes, which, at in zip(targets, with_object, objects, held, strict=True)
        ])  # fmt: skip
        of_mask = F.binary_cross_entropy_with_logits(drawn, wanted) if len(wanted) else drawn.sum() * 0  # the mean of nothing is nan
        return {"loss_classifier": of_class, "loss_box_reg": of_box, "loss_mask": of_mask}

    def found(self, maps: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        logits, deltas = self.class_and_box(maps, proposals, sizes)
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, sizes)
        classes = [label - 1 for label in labels]
        masks = self.mask_logits(maps, boxes, sizes, torch.cat(classes)).sigmoid().split([len(b) for b in boxes])
        return [
            {"boxes": b, "scores": s, "labels": c, "masks": m} for b, s, c, m in zip(boxes, scores, classes, masks, strict=True)
        ]  # fmt: skip


def masks_in_boxes(masks: Tensor, boxes: Tensor, which: Tensor) -> Tensor:
    """What box i shows of mask `which[i]`: masks m,H,W, boxes n,4, which n -> n,28,28 float32, 0 or 1."""
    rows = torch.cat([which[:, None].to(boxes), boxes], 1)  # n,5
    shown = roi_align(masks[:, None].to(boxes), rows, MASK_SIZE, sampling_ratio=0, aligned=True)[:, 0]
    return (shown >= 0.5).to(boxes.dtype)


def _sizes(images: Tensor) -> list[tuple[int, int]]:
    return [(images.shape[2], images.shape[3])] * len(images)
