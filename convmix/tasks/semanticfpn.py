"""Semantic FPN: every level of the pyramid is brought to the finest one's size and added up.

images B,C,H,W -> pyramid at strides 4, 8, 16, 32 -> per level (3x3 conv, BN, ReLU, x2) until stride 4 -> sum -> logits B,k,H/4,W/4
Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", arXiv 1901.02446, section 3.1. Settings and module names of the head are
mmsegmentation's.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from convmix.tasks.pyramid import DenseBackbone, DenseNetwork, create_pyramid

DROPOUT = 0.1  # of whole channels


class ConvNormAct(nn.Module):
    """B,C,h,w -> B,C',h,w"""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_chans)
        self.act = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class SemanticFpn(DenseNetwork):
    """images B,C,H,W of any size -> logits B,k,h,w float32 at the stride of the finest level: 4, or half an isotropic backbone's.

    The head is half as wide as the pyramid (published: 128 and 256).
    """

    def __init__(self, backbone: DenseBackbone, num_classes: int, *, pyramid_channels: int = 256) -> None:
        super().__init__(backbone, num_classes)
        self.pyramid = create_pyramid(backbone, pyramid_channels)
        width = max(1, pyramid_channels // 2)
        strides = self.pyramid.strides
        self.scale_heads = nn.ModuleList(_scale_head(pyramid_channels, width, round(math.log2(s / strides[0]))) for s in strides)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.conv_seg = nn.Conv2d(width, num_classes, kernel_size=1)
        # The published deviation at 128 channels. Few channels with weights as small all turn to the commonest class, and die elsewhere.
        nn.init.normal_(self.conv_seg.weight, std=0.01 * 128 / width)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        levels = [head(level) for head, level in zip(self.scale_heads, self.pyramid(self.backbone(images)), strict=True)]
        total, *rest = levels
        for level in rest:
            if level.shape != total.shape:  # sizes that are no multiple of the coarsest stride
                level = F.interpolate(level, total.shape[-2:], mode="bilinear", align_corners=False)
            total = total + level
        return self.conv_seg(self.dropout(total)).float()


def _scale_head(in_chans: int, width: int, doublings: int) -> nn.Sequential:
    """B,C,h,w -> B,width,h*2**doublings,w*2**doublings; one convolution, unscaled, for the finest level."""
    head = nn.Sequential(ConvNormAct(in_chans, width))
    for i in range(doublings):
        if i:
            head.append(ConvNormAct(width, width))
        head.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return head
