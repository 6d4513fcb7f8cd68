"""The boxes that detectors start from, some shapes at every position of every map, and how the heads on them start.

Anchors are as mmdetection places them: float shapes, centred on the top left corner of each cell, at exact strides. torchvision's own are
rounded to whole pixels, and take the stride to be image size / map size, which is wrong for images that are no multiple of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

RATIOS = (0.5, 1.0, 2.0)  # height / width


class Anchors(AnchorGenerator):
    """Per image the anchors n,4 float32 xyxy in input pixels, level by level, row by row, by ratio and then by scale.

    strides: of the maps, in input pixels. scales: the sides of the square anchors, in strides.
    """

    def __init__(self, strides: Sequence[float], scales: Sequence[float]) -> None:
        sides = tuple(tuple(stride * scale for scale in scales) for stride in strides)
        super().__init__(sides, (RATIOS,) * len(strides))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (torchvision's signature)
    ) -> Tensor:
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        root = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()[:, None]
        h, w = (root * sides).flatten(), (sides / root).flatten()  # ratios x scales
        return torch.stack([-w, -h, w, h], 1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        self.set_cell_anchors(torch.float32, feature_maps[0].device)  # float32 also where the maps are bfloat16
        grids = [list(m.shape[-2:]) for m in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, [[s, s] for s in self.strides]))
        return [anchors] * len(image_list.image_sizes)


def init_head(head: nn.Module, channels: int) -> None:
    """The published deviation of 0.01 at 256 channels, and at other widths what lets as much signal through.

    Four convolutions of 0.01 pass on a hundredth of their input at 256 channels, but a five-thousandth at 32, and learn nothing for long.
    """
    for conv in head.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=0.01 * (256 / channels) ** 0.5)
