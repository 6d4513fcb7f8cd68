"""Mask R-CNN as an exporter takes it: a batch as one, and a place for every region and object there may be.

images N,C,H,W -> proposals N,1000,4 -> RoI 7x7 -> boxes N,1000k,4 -> those that no better one overlaps N,100,4 -> RoI 14x14
                                                                                                 -> masks N,100,28,28
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, roi_align

from convmix.tasks.maskrcnn import MaskRCNN, RegionPool
from convmix.tasks.suppression import best_apart, overlaps, rows, survivors

SMALLEST_REGION, SMALLEST_OBJECT = 1e-3, 1e-2  # sides in pixels below which torchvision leaves out proposals and objects


class DeployedMaskRCNN(nn.Module):
    """images N,C,H,W -> `boxes` N,100,4 xyxy in input pixels, `scores` N,100, `labels` N,100 int64, best first, and `masks` N,100,28,28;
    0 where there is no object.

    A second way to choose among a `MaskRCNN`'s regions and boxes, because torchvision's, image by image, gives as many as there are, and
    draws no mask where there is nothing; a test holds their answers equal.
    """

    def __init__(self, network: MaskRCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        net, heads = self.network, self.network.roi_heads
        maps = net.pyramid(net.backbone(images))
        regions, real = self._proposals(images, maps)
        pooled = pool(heads.box_roi_pool, maps, regions)  # N*R,C,7,7
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        found = self._objects(logits.unflatten(0, real.shape), deltas.unflatten(0, real.shape), regions, real, images)
        drawn = heads.mask_predictor(heads.mask_head(pool(heads.mask_roi_pool, maps, found["boxes"])))  # N*100,k,28,28
        labels = found["labels"][:, :, None, None, None].expand(-1, -1, 1, *drawn.shape[2:])
        masks = drawn.unflatten(0, found["labels"].shape).gather(2, labels)[:, :, 0].float().sigmoid()
        return {**found, "masks": masks * (found["scores"] > 0)[:, :, None, None]}

    def _proposals(self, images: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Where objects may be, N,R,4, and which of them are real, N,R bool: suppressed level by level, the best 1000 of all."""
        rpn, size = self.network.rpn, (images.shape[2], images.shape[3])
        said = rpn.head(maps)
        anchors = rpn.anchor_generator(ImageList(images, [size]), maps)[0].split([o[0].numel() for o in said[0]])
        scores, moves, starts = [], [], []
        for logits, deltas, of_level in zip(*said, anchors, strict=True):
            objectness, move = (t.unflatten(0, (images.shape[0], -1)) for t in concat_box_prediction_layers([logits], [deltas]))
            best = objectness[:, :, 0].topk(min(rpn.pre_nms_top_n(), of_level.shape[0]))
            scores.append(best.values)
            moves.append(rows(move, best.indices))
            starts.append(of_level[best.indices])
        moved = rpn.box_coder.decode_single(torch.cat(moves, 1).flatten(0, 1), torch.cat(starts, 1).flatten(0, 1))
        boxes = clip_boxes_to_image(moved.unflatten(0, (images.shape[0], -1)), size)
        by_level = boxes.split([s.shape[1] for s in scores], 1)
        real = [_larger(b, SMALLEST_REGION) for b in by_level]
        stays = survivors([overlaps(b, rpn.nms_thresh, real=r) for b, r in zip(by_level, real, strict=True)])
        objectness = torch.cat(scores, 1).where(torch.cat(stays, 1) & torch.cat(real, 1), -torch.inf)
        best = objectness.topk(min(rpn.post_nms_top_n(), objectness.shape[1]))
        return rows(boxes, best.indices), best.values > -torch.inf

    def _objects(self, logits: Tensor, deltas: Tensor, regions: Tensor, real: Tensor, images: Tensor) -> dict[str, Tensor]:
        """N,R,k+1 and N,R,4(k+1) -> `boxes` N,100,4, `scores` and `labels` N,100."""
        heads = self.network.roi_heads
        shares = logits.softmax(2)[:, :, 1:].flatten(1)  # N,R*k, without the background
        boxes = heads.box_coder.decode_single(deltas.flatten(0, 1)[:, 4:], regions.flatten(0, 1))  # N*R,4k
        boxes = clip_boxes_to_image(boxes.reshape(images.shape[0], -1, 4), (images.shape[2], images.shape[3]))
        of_region = real[:, :, None].expand(-1, -1, self.network.num_classes)
        likely = of_region.flatten(1) & (shares > heads.score_thresh) & _larger(boxes, SMALLEST_OBJECT)
        labels = torch.arange(self.network.num_classes, device=boxes.device).expand_as(of_region).flatten(1)
        return best_apart(heads.detections_per_img, boxes, torch.where(likely, shares, 0.0), labels, heads.nms_thresh)


def pool(regions_pool: RegionPool, maps: list[Tensor], regions: Tensor) -> Tensor:
    """As `RegionPool` does, for regions N,R,4: N*R,C,grid,grid, 0 for those without area.

    Every level is asked for every region. Those that belong to another, or to none, are moved to beside the map there, where all is 0 and
    a single cell is read: OpenVINO makes nan of regions without area.
    """
    count = regions.shape[1]
    boxes = regions.flatten(0, 1)
    image = torch.arange(regions.shape[0], device=boxes.device, dtype=boxes.dtype).repeat_interleave(count)
    level = regions_pool.level_of(boxes).where((boxes[:, 2:] > boxes[:, :2]).all(1), -1)
    beside = torch.tensor([-4.0, -4.0, -3.0, -3.0], device=boxes.device)  # in cells
    pooled = []
    for i, stride in enumerate(regions_pool.strides):
        here = boxes.where((level == i)[:, None], stride * beside)
        numbered = torch.cat([image[:, None], here], 1)  # N*R,5
        pooled.append(roi_align(maps[i].float(), numbered, regions_pool.grid, 1 / stride, sampling_ratio=0, aligned=True))
    return torch.stack(pooled).sum(0).to(maps[0].dtype)


def _larger(boxes: Tensor, side: float) -> Tensor:
    """Whether both sides of N,K,4 are at least `side`: N,K bool."""
    return ((boxes[:, :, 2:] - boxes[:, :, :2]) >= side).all(2)
