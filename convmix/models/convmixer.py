"""ConvMixer: one patch size, one width, the same block repeated.

image B,3,H,W -> patches B,dim,H/p,W/p -> depth x (mix space, then mix channels) -> mean -> classes
Trockman & Kolter 2022, "Patches Are All You Need?", arXiv 2201.09792, section 2.
"""

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from convmix.errors import ModelError, did_you_mean
from convmix.models.layers import Backbone, DepthwiseConv2d, Level, activation, check_positive
from convmix.ops.act_norm import act_norm, hooked
from convmix.ops.mix_space import mix_space

NORMS = ("batch", "layer")  # layer: over the channels of one position
RESIDUALS = ("depthwise", "none", "both")  # what an identity leads around; both: the pointwise convolution too


class Stem(nn.Sequential):
    """Patches: B,in_chans,H,W -> B,dim,H/p,W/p."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, act: str, norm: str) -> None:
        super().__init__(nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size), activation(act), _norm(norm, dim))

    def forward(self, input: Tensor) -> Tensor:
        conv, act, norm = self
        return act_norm(conv(input), act, norm)


class MixSpace(nn.Module):
    """norm(act(depthwise(x))) + x, the paper's only residual: B,dim,h,w -> B,dim,h,w."""

    def __init__(self, dim: int, kernel_size: int, act: str, norm: str, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.fn = nn.Sequential(DepthwiseConv2d(dim, kernel_size), activation(act), _norm(norm, dim))

    def forward(self, x: Tensor) -> Tensor:
        conv, act, norm = self.fn
        if type(conv) is DepthwiseConv2d and conv.bias is not None and not hooked(conv) and isinstance(x, Tensor):
            return mix_space(x, conv.weight, conv.bias, act, norm, residual=self.residual)
        return act_norm(conv(x), act, norm, residual=x if self.residual else None)


class Block(nn.Sequential):
    """Mix space (depthwise), then mix channels (pointwise): B,dim,h,w -> B,dim,h,w."""

    def __init__(self, dim: int, kernel_size: int, act: str, norm: str, residual: str) -> None:
        mix_space = MixSpace(dim, kernel_size, act, norm, residual=residual != "none")
        super().__init__(mix_space, nn.Conv2d(dim, dim, kernel_size=1), activation(act), _norm(norm, dim))
        self.residual = residual == "both"

    def forward(self, input: Tensor) -> Tensor:
        mix_space, pointwise, act, norm = self
        x = mix_space(input)
        return act_norm(pointwise(x), act, norm, residual=x if self.residual else None)


class ConvMixer(Backbone):
    """ConvMixer-`dim`/`depth` (arXiv 2201.09792, section 2): images B,in_chans,H,W of any size from patch_size on -> B,num_classes.

    Pixels that fill no whole patch on the right and below are ignored. The module names are timm's, so timm's weights load. `norm` and
    `residual` are there for ablations; the paper's network has the defaults.
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
        norm: Literal["batch", "layer"] = "batch",
        residual: Literal["depthwise", "none", "both"] = "depthwise",
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        check_positive("ConvMixer", dim=dim, depth=depth, kernel_size=kernel_size, patch_size=patch_size)
        activation(act, ("gelu", "relu"))
        _check_choice("norm", norm, NORMS)
        _check_choice("residual", residual, RESIDUALS)
        arguments: dict[str, Any] = {"dim": dim, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size, "act": act}
        arguments |= {"norm": norm, "residual": residual, "drop_rate": drop_rate}
        super().__init__(arguments, in_chans=in_chans, num_classes=num_classes, min_size=patch_size)
        self.stem = Stem(in_chans, dim, patch_size, act, norm)
        self.blocks = nn.Sequential(*(Block(dim, kernel_size, act, norm, residual) for _ in range(depth)))
        self.feature_info = [{"num_chs": dim, "reduction": patch_size, "module": f"blocks.{i}"} for i in range(depth)]
        self._add_head(dim, global_pool=global_pool, drop_rate=drop_rate)

    @property
    def is_published(self) -> bool:
        """Whether norms and residuals are those of the paper, which what computes in its place relies on."""
        return self.arguments["norm"] == "batch" and self.arguments["residual"] == "depthwise"

    def levels(self) -> list[Level]:
        first, *rest = self.blocks
        return [lambda x: self.run(first, self.stem(x)), *(partial(self.run, b) for b in rest)]

    def cut(self, last: int) -> None:
        self.blocks = self.blocks[: last + 1]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's layer groups, for layer-wise learning rates."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


def _norm(name: str, dim: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(dim)
    from timm.layers import LayerNorm2d

    return LayerNorm2d(dim)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = did_you_mean(str(value), choices)
        raise ModelError(f"ConvMixer: {name} is {value!r}{near or ','} expected one of {', '.join(choices)}")
