"""RetinaNet as an exporter takes it: a batch as one, and a place for every object there may be.

images N,C,H,W -> logits N,anchors,k -> the best 1000 of each level -> boxes N,K,4 -> those that no better one overlaps -> N,100
"""

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from convmix.tasks.retinanet import CANDIDATES, DETECTIONS, MIN_SCORE, NMS_IOU, RetinaNet
from convmix.tasks.suppression import best_apart, rows


class DeployedRetinaNet(nn.Module):
    """images N,C,H,W -> `boxes` N,100,4 xyxy in input pixels, `scores` N,100, `labels` N,100 int64, best first; 0 where there is no object.

    A second way to choose among a `RetinaNet`'s boxes, because the network's own, image by image, gives as many as there are, and is
    faster in PyTorch; a test holds their answers equal.
    """

    def __init__(self, network: RetinaNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        net = self.network
        logits, deltas, anchors, per_level = net.heads(images)
        scores, labels, moves, starts = [], [], [], []
        for logit, delta, anchor in zip(*(t.split(per_level, -2) for t in (logits, deltas, anchors)), strict=True):
            best = logit.flatten(1).topk(min(CANDIDATES, anchor.shape[0] * net.num_classes))
            at = best.indices.div(net.num_classes, rounding_mode="floor")
            scores.append(best.values.sigmoid())
            labels.append(best.indices - at * net.num_classes)
            moves.append(rows(delta, at))
            starts.append(anchor[at])
        boxes = net.box_coder.decode_single(torch.cat(moves, 1).flatten(0, 1), torch.cat(starts, 1).flatten(0, 1))  # N*K,4
        boxes = clip_boxes_to_image(boxes.unflatten(0, (images.shape[0], -1)), (images.shape[2], images.shape[3]))
        score = torch.cat(scores, 1)
        return best_apart(DETECTIONS, boxes, torch.where(score > MIN_SCORE, score, 0.0), torch.cat(labels, 1), NMS_IOU)
