"""ConvMLP: a convolutional tokenizer and stage, then three stages of channel MLPs joined by 3x3 depthwise convolutions.

image B,3,H,W -> tokenizer B,C,H/4,W/4 -> conv blocks -> D0 at 1/8 -> D1 at 1/16 -> D2 at 1/32 -> norm -> mean -> classes
Li et al. 2021, "ConvMLP: Hierarchical Convolutional MLPs for Vision", arXiv 2109.04454, section 3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convmix.errors import ModelError
from convmix.models.layers import Backbone, DepthwiseConv2d, DropPath, Level, check_positive


class Tokenizer(nn.Module):
    """B,in_chans,H,W -> B,channels,H/4,W/4"""

    def __init__(self, in_chans: int, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_conv_norm_act(in_chans, channels // 2, kernel_size=3, stride=2),  # H,W -> H/2,W/2
            *_conv_norm_act(channels // 2, channels // 2, kernel_size=3),
            *_conv_norm_act(channels // 2, channels, kernel_size=3),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),  # H/2,W/2 -> H/4,W/4
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ConvBlock(nn.Sequential):
    """x + bottleneck(x), each convolution with BN and ReLU: B,C,h,w -> B,C,h,w"""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(
            *_conv_norm_act(channels, hidden, kernel_size=1),
            *_conv_norm_act(hidden, hidden, kernel_size=3),
            *_conv_norm_act(hidden, channels, kernel_size=1),
        )

    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class ConvStage(nn.Module):
    """The blocks at stride 4, and the convolution that leaves for stride 8: B,C,h,w -> B,D0,h/2,w/2"""

    def __init__(self, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList(ConvBlock(channels, hidden) for _ in range(depth))
        self.downsample: nn.Module = nn.Conv2d(channels, hidden, kernel_size=3, stride=2, padding=1)


class Mlp(nn.Module):
    """A two-layer perceptron over the last axis: ...,D -> ...,D"""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """MLP over channels, 3x3 depthwise over space (no residual), MLP over channels: B,h,w,D -> B,h,w,D"""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.channel_mlp1 = Mlp(dim, hidden)
        self.norm2 = nn.LayerNorm(dim)
        self.connect = DepthwiseConv2d(dim, 3, bias=False)
        self.connect_norm = nn.LayerNorm(dim)
        self.channel_mlp2 = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x_bhwc: Tensor) -> Tensor:
        x_bhwc = x_bhwc + self.drop_path(self.channel_mlp1(self.norm1(x_bhwc)))
        x_bchw = self.connect(self.connect_norm(x_bhwc).permute(0, 3, 1, 2))  # B,h,w,D -> B,D,h,w
        x_bhwc = x_bchw.permute(0, 2, 3, 1)  # B,D,h,w -> B,h,w,D
        return x_bhwc + self.drop_path(self.channel_mlp2(self.norm2(x_bhwc)))


class Downsample(nn.Module):
    """B,D,h,w -> B,D',h/2,w/2"""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(dim, dim_out, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x)


class MlpStage(nn.Module):
    """The blocks of one resolution, and the convolution that leaves for the next; the stochastic depth rises from 0 within the stage."""

    def __init__(self, dim: int, hidden: int, depth: int, *, dim_out: int | None, drop_path: float) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(dim, hidden, rate) for rate in rates)
        self.downsample_mlp: nn.Module = Downsample(dim, dim_out) if dim_out else nn.Identity()


class ConvMLP(Backbone):
    """ConvMLP (arXiv 2109.04454, section 3): images B,in_chans,H,W from 32x32 on -> B,num_classes.

    `blocks`, `dims` and `mlp_ratios` are those of the three MLP stages at strides 8, 16, 32; `channels` is the width at stride 4.
    Features: the ends of the conv blocks (stride 4) and of the three stages. Module names are the authors', so their weights load.
    Raises ModelError for impossible arguments, and in `forward` for images of the wrong shape.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        dims: Sequence[int],
        *,
        mlp_ratios: Sequence[float],
        channels: int = 64,
        n_conv_blocks: int = 2,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        global_pool: str = "avg",
    ) -> None:
        _check_arguments(blocks, dims, mlp_ratios, channels=channels, n_conv_blocks=n_conv_blocks, drop_path_rate=drop_path_rate)
        arguments = {"blocks": list(blocks), "dims": list(dims), "mlp_ratios": list(mlp_ratios), "channels": channels}
        arguments |= {"n_conv_blocks": n_conv_blocks, "drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
        super().__init__(arguments, in_chans=in_chans, num_classes=num_classes, min_size=32)
        self.tokenizer = Tokenizer(in_chans, channels)
        self.conv_stages = ConvStage(channels, dims[0], n_conv_blocks)
        self.stages = nn.ModuleList(
            MlpStage(dim, int(dim * ratio), depth, dim_out=dim_out, drop_path=drop_path_rate)
            for dim, ratio, depth, dim_out in zip(dims, mlp_ratios, blocks, (*dims[1:], None), strict=True)
        )
        self.norm: nn.Module = nn.LayerNorm(dims[-1])
        self.feature_info = [{"num_chs": channels, "reduction": 4, "module": "conv_stages"}]
        self.feature_info += [{"num_chs": dim, "reduction": 8 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(dims)]
        self.apply(_init)
        self._add_head(dims[-1], global_pool=global_pool, drop_rate=drop_rate)

    def levels(self) -> list[Level]:
        downs = [self.conv_stages.downsample, *(stage.get_submodule("downsample_mlp") for stage in self.stages)]
        return [self._conv_level, *(self._mlp_level(down, stage) for down, stage in zip(downs, self.stages, strict=False))]

    def _conv_level(self, x: Tensor) -> Tensor:
        return self._conv_blocks(self.tokenizer(x))  # B,in_chans,H,W -> B,C,H/4,W/4

    def _conv_blocks(self, x: Tensor) -> Tensor:
        for conv_block in self.conv_stages.conv_blocks:
            x = self.run(conv_block, x)
        return x

    def _mlp_level(self, down: nn.Module, stage: nn.Module) -> Level:
        return lambda x: self._mlp_blocks(stage, down(x))  # B,D,h,w -> B,D',h/2,w/2

    def _mlp_blocks(self, stage: nn.Module, x_bchw: Tensor) -> Tensor:
        x_bhwc = x_bchw.permute(0, 2, 3, 1)  # B,D,h,w -> B,h,w,D
        for mlp_block in stage.get_submodule("blocks").children():
            x_bhwc = self.run(mlp_block, x_bhwc)
        return x_bhwc.permute(0, 3, 1, 2)  # B,h,w,D -> B,D,h,w

    def forward_raw(self, x: Tensor) -> list[Tensor]:
        """What the authors' detectors and segmenters take, B,C,h,w at strides 4, 8, 16, 32; for a network that nothing was cut off.

        Each resolution as its first block gets it (tokenizer, downsampling convolutions), the last one as its last block leaves it.
        """
        self._check(x)
        first, second, third = self.stages
        raw = [self.tokenizer(x)]  # B,in_chans,H,W -> B,C,H/4,W/4
        raw.append(self.conv_stages.downsample(self._conv_blocks(raw[-1])))  # B,C,H/4,W/4 -> B,D0,H/8,W/8
        raw.append(first.get_submodule("downsample_mlp")(self._mlp_blocks(first, raw[-1])))  # B,D0,H/8,W/8 -> B,D1,H/16,W/16
        x = second.get_submodule("downsample_mlp")(self._mlp_blocks(second, raw[-1]))  # B,D1,H/16,W/16 -> B,D2,H/32,W/32
        raw.append(self._mlp_blocks(third, x))
        return raw

    def finish(self, x: Tensor) -> Tensor:
        return self.final_norm(x)

    def final_norm(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # B,D,h,w -> B,h,w,D -> B,D,h,w

    def cut(self, last: int) -> None:
        self.stages = self.stages[:last]
        if last < len(self.feature_info) - 1:
            if last == 0:
                self.conv_stages.downsample = nn.Identity()
            else:
                self.stages[-1].downsample_mlp = nn.Identity()
            self.norm = nn.Identity()  # it fits the last stage alone

    def drop_norm(self) -> None:
        self.norm = nn.Identity()

    def init_head(self) -> None:
        _init(self.head)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """timm's layer groups, for layer-wise learning rates."""
        stem = r"^tokenizer|^conv_stages"
        if coarse:
            return {"stem": stem, "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}
        behind = (r"^stages\.(\d+)\.downsample_mlp", (999,))  # behind the blocks of its stage
        return {"stem": stem, "blocks": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), behind, (r"^norm", (99999,))]}


def _conv_norm_act(in_chans: int, out_chans: int, *, kernel_size: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
    return conv, nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True)


def _init(module: nn.Module) -> None:
    """The authors' initialisation: truncated normal for linear layers, He (fan out) for convolutions."""
    if isinstance(module, nn.Linear):
        with torch.no_grad():  # the draws of timm's trunc_normal_, whose bounds are a hundred standard deviations away
            module.weight.uniform_(-1, 1).erfinv_().mul_(0.02 * math.sqrt(2)).clamp_(-2, 2)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_arguments(
    blocks: Sequence[int], dims: Sequence[int], mlp_ratios: Sequence[float], *, channels: int, n_conv_blocks: int, drop_path_rate: float
) -> None:
    for name, values in (("blocks", blocks), ("dims", dims), ("mlp_ratios", mlp_ratios)):
        if len(values) != 3 or min(values) <= 0:
            raise ModelError(f"ConvMLP: {name} is {tuple(values)}, expected three positive numbers, one per MLP stage")
    check_positive("ConvMLP", channels=channels, n_conv_blocks=n_conv_blocks)
    if channels % 2:
        raise ModelError(f"ConvMLP: channels is {channels}, expected an even number")
    if not 0 <= drop_path_rate < 1:
        raise ModelError(f"ConvMLP: drop_path is {drop_path_rate}, expected a share of at least 0 and below 1")
