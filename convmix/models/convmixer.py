"""ConvMixer: one patch size, one width, the same block repeated.

image B,3,H,W -> patches B,dim,H/p,W/p -> depth x (mix space, then mix channels) -> mean -> classes
Trockman & Kolter 2022, "Patches Are All You Need?", arXiv 2201.09792, section 2.
"""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from convmix.models.layers import Backbone, DepthwiseConv2d, Level, activation, check_positive
from convmix.ops.act_norm import act_norm


class Stem(nn.Sequential):
    """Patches: B,in_chans,H,W -> B,dim,H/p,W/p."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, act: str) -> None:
        super().__init__(nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size), activation(act), nn.BatchNorm2d(dim))

    def forward(self, input: Tensor) -> Tensor:
        conv, act, norm = self
        return act_norm(conv(input), act, norm)


class MixSpace(nn.Module):
    """norm(act(depthwise(x))) + x, the block's only residual: B,dim,h,w -> B,dim,h,w."""

    def __init__(self, dim: int, kernel_size: int, act: str) -> None:
        super().__init__()
        self.fn = nn.Sequential(DepthwiseConv2d(dim, kernel_size), activation(act), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        conv, act, norm = self.fn
        return act_norm(conv(x), act, norm, residual=x)


class Block(nn.Sequential):
    """Mix space (depthwise), then mix channels (pointwise): B,dim,h,w -> B,dim,h,w."""

    def __init__(self, dim: int, kernel_size: int, act: str) -> None:
        super().__init__(MixSpace(dim, kernel_size, act), nn.Conv2d(dim, dim, kernel_size=1), activation(act), nn.BatchNorm2d(dim))

    def forward(self, input: Tensor) -> Tensor:
        mix_space, pointwise, act, norm = self
        return act_norm(pointwise(mix_space(input)), act, norm)


class ConvMixer(Backbone):
    """ConvMixer-`dim`/`depth` (arXiv 2201.09792, section 2): images B,in_chans,H,W of any size from patch_size on -> B,num_classes.

    Pixels that fill no whole patch on the right and below are ignored. The module names are timm's, so timm's weights load.
    Raises ModelError for impossible arguments, and in `forward` for images of the wrong shape.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        kernel_size: int = 9,
        patch_size: int = 7,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        act: Literal["gelu", "relu"] = "gelu",
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        check_positive("ConvMixer", dim=dim, depth=depth, kernel_size=kernel_size, patch_size=patch_size)
        activation(act, ("gelu", "relu"))
        arguments = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size, "act": act}
        super().__init__(arguments | {"drop_rate": drop_rate}, in_chans=in_chans, num_classes=num_classes, min_size=patch_size)
        self.stem = Stem(in_chans, dim, patch_size, act)
        self.blocks = nn.Sequential(*(Block(dim, kernel_size, act) for _ in range(depth)))
        self.feature_info = [{"num_chs": dim, "reduction": patch_size, "module": f"blocks.{i}"} for i in range(depth)]
        self._add_head(dim, global_pool=global_pool, drop_rate=drop_rate)

    def levels(self) -> list[Level]:
        first, *rest = self.blocks
        return [lambda x: self.run(first, self.stem(x)), *(partial(self.run, b) for b in rest)]

    def cut(self, last: int) -> None:
        self.blocks = self.blocks[: last + 1]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's layer groups, for layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}
