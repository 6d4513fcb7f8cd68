"""Multi-scale ConvMixer: every block looks through several kernel sizes at once, fewer of them the deeper it stands.

image B,3,H,W -> 7x7 stem B,stem,H/2,W/2 -> patches B,dim,H/p,W/p -> depth x (mix tokens, then mix channels)
-> pointwise convolutions -> mean -> classes
The network that an article on ConvMixer, signed 禅与计算机程序设计艺术, describes; the code printed there does not run.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from convmix.errors import ModelError
from convmix.models.layers import Backbone, DepthwiseConv2d, DropPath, Level, activation, check_positive

Combine = Literal["sum", "split"]
ChannelMixing = Literal["conv", "mlp"]


def kernel_schedule(depth: int, kernel_sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The kernel sizes of each block, ascending: all of them first, one at the end, evenly in between.

    The largest goes first, so early blocks look wide and late ones close; the last to stay is the smallest that still mixes space.
    kernel_schedule(8, (1, 3, 5, 7)) starts with (1, 3, 5, 7) twice, then (1, 3, 5), (1, 3) and (3,) twice each.
    """
    ascending = sorted(set(kernel_sizes))
    order = [k for k in ascending if k > 1]  # the order in which they stay: 3, then 1, then 5, 7
    order = order[:1] + [k for k in ascending if k not in order[:1]]
    counts = (-(-len(order) * (depth - i) // depth) for i in range(depth))  # rounded up
    return tuple(tuple(sorted(order[:count])) for count in counts)


class TokenMixing(nn.Module):
    """x + act(branches(x)), a branch being a depthwise convolution and its own BN, linear, so that branches can be merged exactly.

    "sum": every branch sees all channels and the outputs are added. "split": each sees its share and the outputs stand side by side.
    B,dim,h,w -> B,dim,h,w
    """

    def __init__(self, dim: int, kernel_sizes: Sequence[int], combine: Combine, act: str, drop_path: float) -> None:
        super().__init__()
        count = len(kernel_sizes)
        self.combine = combine
        self.widths = [dim] * count if combine == "sum" else [dim // count + (i < dim % count) for i in range(count)]
        self.branches = nn.ModuleList(
            nn.Sequential(DepthwiseConv2d(width, k), nn.BatchNorm2d(width)) for width, k in zip(self.widths, kernel_sizes, strict=True)
        )
        self.act = activation(act)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.combine == "sum":
            mixed = self.branches[0](x)
            for branch in self.branches[1:]:
                mixed = mixed + branch(x)
        else:
            parts = x.split(self.widths, dim=1)  # B,dim,h,w -> count x B,dim/count,h,w
            mixed = torch.cat([branch(parts[i]) for i, branch in enumerate(self.branches)], dim=1)
        return x + self.drop_path(self.act(mixed))


def conv_channel_mixing(dim: int, hidden: int, act: str) -> nn.Sequential:
    """1x1 to `hidden` channels, 3x3 for context, 1x1 back: B,dim,h,w -> B,dim,h,w.

    The 3x3 is dense over few channels: on every processor far faster per operation than a depthwise one over many.
    """
    return nn.Sequential(
        *_conv_norm_act(dim, hidden, kernel_size=1, act=act),
        *_conv_norm_act(hidden, hidden, kernel_size=3, act=act),
        nn.Conv2d(hidden, dim, kernel_size=1),
        nn.BatchNorm2d(dim),
    )


class MlpChannelMixing(nn.Sequential):
    """The variant in the source's code: LayerNorm, Linear, GELU, LayerNorm, Linear, Dropout over channels: B,dim,h,w -> B,dim,h,w"""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.2) -> None:
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)
        )

    def forward(self, input: Tensor) -> Tensor:
        x_bhwc = input.permute(0, 2, 3, 1)  # B,dim,h,w -> B,h,w,dim
        return super().forward(x_bhwc).permute(0, 3, 1, 2)  # B,h,w,dim -> B,dim,h,w


class MultiScaleBlock(nn.Module):
    """Token mixing, then channel mixing added to its output: B,dim,h,w -> B,dim,h,w"""

    def __init__(self, token_mixing: nn.Module, channel_mixing: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.token_mixing = token_mixing
        self.channel_mixing = channel_mixing
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixing(x)
        return x + self.drop_path(self.channel_mixing(x))


class MultiScaleConvMixer(Backbone):
    """Multi-scale ConvMixer: images B,in_chans,H,W of any size from patch_size on -> B,num_classes.

    patch_size is even, because the stem halves the image before a convolution of kernel and stride patch_size/2 makes the patches.
    combine: how the kernel sizes of a block are joined. channel_mixing: 1x1 and 3x3 convolutions, or the LayerNorm-MLP-dropout variant.
    channel_ratio: the hidden width of the channel mixing over dim; None is 1/4 for conv and 2 for mlp.
    Raises ModelError for impossible arguments, and in `forward` for images of the wrong shape.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        patch_size: int = 4,
        kernel_sizes: Sequence[int] = (1, 3, 5, 7),
        combine: Combine = "sum",
        channel_mixing: ChannelMixing = "conv",
        channel_ratio: float | None = None,
        stem_dim: int = 32,
        act: Literal["relu", "leaky_relu", "gelu"] = "relu",
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        ratio = {"conv": 0.25, "mlp": 2.0}.get(channel_mixing, 0.0) if channel_ratio is None else channel_ratio
        check_positive("MultiScaleConvMixer", dim=dim, depth=depth, patch_size=patch_size, stem_dim=stem_dim)
        _check_arguments(dim, patch_size, kernel_sizes, combine, channel_mixing, ratio=ratio, drop_path_rate=drop_path_rate)
        arguments = {"dim": dim, "depth": depth, "patch_size": patch_size, "kernel_sizes": list(kernel_sizes), "combine": combine}
        arguments |= {"channel_mixing": channel_mixing, "channel_ratio": channel_ratio, "stem_dim": stem_dim, "act": act}
        arguments |= {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
        super().__init__(arguments, in_chans=in_chans, num_classes=num_classes, min_size=patch_size)
        half = patch_size // 2
        self.stem = nn.Sequential(*_conv_norm_act(in_chans, stem_dim, kernel_size=7, stride=2, act=act))  # H,W -> H/2,W/2
        self.reduce = nn.Sequential(
            nn.Conv2d(stem_dim, dim, kernel_size=half, stride=half),  # B,stem,H/2,W/2 -> B,dim,H/p,W/p
            nn.BatchNorm2d(dim),
            activation(act),
        )
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        hidden = max(1, round(dim * ratio))
        self.blocks = nn.Sequential(
            *(
                MultiScaleBlock(
                    TokenMixing(dim, kernels, combine, act, rate),
                    conv_channel_mixing(dim, hidden, act) if channel_mixing == "conv" else MlpChannelMixing(dim, hidden),
                    rate,
                )
                for kernels, rate in zip(kernel_schedule(depth, kernel_sizes), rates, strict=True)
            )
        )
        self.pointwise: nn.Module = nn.Sequential(
            *_conv_norm_act(dim, dim, kernel_size=1, act=act), *_conv_norm_act(dim, dim, kernel_size=1, act=act)
        )
        self.feature_info = [{"num_chs": dim, "reduction": patch_size, "module": f"blocks.{i}"} for i in range(depth)]
        self.apply(_init)
        self._add_head(dim, global_pool=global_pool, drop_rate=drop_rate)

    def levels(self) -> list[Level]:
        first, *rest = self.blocks
        return [lambda x: self.run(first, self.reduce(self.stem(x))), *(partial(self.run, b) for b in rest)]

    def finish(self, x: Tensor) -> Tensor:
        return self.pointwise(x)

    def cut(self, last: int) -> None:
        self.blocks = self.blocks[: last + 1]
        self.pointwise = nn.Identity()  # behind every feature

    def init_head(self) -> None:
        _init(self.head)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """timm's layer groups, for layer-wise learning rates."""
        return {"stem": r"^stem|^reduce", "blocks": [(r"^blocks\.(\d+)", None), (r"^pointwise", (99999,))]}


def _conv_norm_act(in_chans: int, out_chans: int, *, kernel_size: int, stride: int = 1, act: str) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride=stride, padding=kernel_size // 2)
    return conv, nn.BatchNorm2d(out_chans), activation(act)


def _init(module: nn.Module) -> None:
    """He for weights, 0 for biases: what the source asks for."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_arguments(
    dim: int,
    patch_size: int,
    kernel_sizes: Sequence[int],
    combine: str,
    channel_mixing: str,
    *,
    ratio: float,
    drop_path_rate: float,
) -> None:
    name = "MultiScaleConvMixer"
    if patch_size % 2:
        raise ModelError(f"{name}: patch_size is {patch_size}, expected an even number, for the stem halves the image first")
    if not kernel_sizes or any(k < 1 for k in kernel_sizes) or len(set(kernel_sizes)) < len(kernel_sizes):
        raise ModelError(f"{name}: kernel_sizes is {tuple(kernel_sizes)}, expected different sizes of at least 1")
    if combine not in ("sum", "split"):
        raise ModelError(f"{name}: combine is {combine!r}, expected sum or split")
    if combine == "split" and dim < len(kernel_sizes):
        raise ModelError(f"{name}: dim {dim} cannot be split over {len(kernel_sizes)} kernel sizes")
    if channel_mixing not in ("conv", "mlp"):
        raise ModelError(f"{name}: channel_mixing is {channel_mixing!r}, expected conv or mlp")
    if ratio <= 0:
        raise ModelError(f"{name}: channel_ratio is {ratio}, expected a number above 0")
    if not 0 <= drop_path_rate < 1:
        raise ModelError(f"{name}: drop_path is {drop_path_rate}, expected a share of at least 0 and below 1")
