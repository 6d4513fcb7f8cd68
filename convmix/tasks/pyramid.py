"""From a backbone to the maps that dense heads read.

images B,C,H,W -> DenseBackbone: a map per stride, 4 to 32   -> Fpn            -> maps of one width at these strides, and coarser ones
                                 one map at stride p         -> SimplePyramid  -> maps of one width at p/2, p, 2p, 4p, and a coarser one

Feature pyramid: Lin et al. 2017, arXiv 1612.03144. Simple pyramid, for backbones of one resolution: Li et al. 2022, arXiv 2203.16527,
section 3. Nothing behind this file asks which backbone there is.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from convmix.config import Size
from convmix.errors import ModelError, WeightsError
from convmix.models.catalog import create_model
from convmix.models.convmlp import ConvMLP
from convmix.models.weights import load_weights
from convmix.speed.backends import Outputs

Extra = Literal["none", "pool", "convs"]  # what follows the coarsest level


class DenseBackbone(nn.Module):
    """A backbone without its classifier: images B,in_chans,H,W -> one map B,channels[i],H/strides[i],W/strides[i] per stride.

    `strides` are those asked for; of an isotropic backbone, whose features all have one stride, the last feature alone is given. Where
    the blocks have LayerNorms, as in ConvMLP and Swin, their outputs are sums that grow with depth, so that each of several maps gets a
    LayerNorm over channels, as detectors on Swin do. taps="authors" gives ConvMLP's maps as its authors' networks tap them: raw, ahead
    of the blocks of their stride (`ConvMLP.forward_raw`), which their weights need.
    Raises ModelError for a backbone without a map at one of `strides`, and for authors' taps of another family.
    """

    def __init__(
        self,
        name: str,
        *,
        in_chans: int = 3,
        taps: str = "blocks",
        strides: tuple[int, ...],
        pretrained: bool = False,
        drop_path: float | None = None,
        model_args: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # costs nothing, and says which features there are
            probe: Any = create_model(name, in_chans=in_chans, features_only=True, out_indices=1, model_args=model_args)
        levels = probe.feature_info.info
        chosen = _levels_at(strides, [level["reduction"] for level in levels], name)
        self.features: Any = create_model(
            name,
            in_chans=in_chans,
            features_only=True,
            out_indices=chosen,
            pretrained=pretrained,
            drop_path=drop_path,
            model_args=model_args,
        )
        self.name, self.in_chans, self.taps = name, in_chans, taps
        self.model_args = dict(model_args or {})
        self.load_notes: tuple[str, ...] = tuple(getattr(self.features, "load_notes", ()))
        self.pretrained_cfg = getattr(self.features, "pretrained_cfg", None)
        self.strides = tuple(levels[i]["reduction"] for i in chosen)
        self.channels = tuple(levels[i]["num_chs"] for i in chosen)
        self.num_features = self.channels[-1]
        self.raw = taps == "authors"
        if self.raw and not isinstance(getattr(self.features, "model", None), ConvMLP):
            raise ModelError(f"{name}: taps are authors, which only ConvMLP has; take taps=blocks")
        self.chosen = chosen
        self.channels_last = _is_channels_last(self.features, name)
        normed = not self.raw and len(chosen) > 1 and any(isinstance(m, nn.LayerNorm) for m in self.features.modules())
        self.norms = nn.ModuleList(LayerNorm2d(c) if normed else nn.Identity() for c in self.channels)

    @property
    def isotropic(self) -> bool:
        """Whether there is one map only, from which a pyramid is yet to be made."""
        return len(self.strides) == 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        inner = self.features if hasattr(self.features, "set_grad_checkpointing") else self.features.model
        inner.set_grad_checkpointing(enable)

    def start_from(self, path: str | Path) -> tuple[str, ...]:
        """Load a classifier's weights, of any origin that `load_weights` knows; returns its notes.

        Raises WeightsError where they do not fit.
        """
        whole = create_model(self.name, in_chans=self.in_chans, num_classes=0, model_args=self.model_args)
        report = load_weights(whole, path)
        theirs = {k.replace(".", "_"): t for k, t in whole.state_dict().items()}  # timm's feature networks write layers_0 for layers.0
        ours = self.features.state_dict()
        found = {k: theirs.get(k.removeprefix("model.").replace(".", "_")) for k in ours}
        missing = [k for k, t in found.items() if t is None or t.shape != ours[k].shape]
        if missing:
            raise WeightsError(f"{path}: the features of {self.name} have other tensors than its classifier: {', '.join(missing[:3])}")
        self.features.load_state_dict(found)
        return report.notes

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.raw:
            raw = self.features.model.forward_raw(images)
            return [raw[i] for i in self.chosen]
        maps = self.features(images)
        if self.channels_last:
            maps = [m_bhwc.permute(0, 3, 1, 2) for m_bhwc in maps]  # B,h,w,C -> B,C,h,w
        return [norm(m) for norm, m in zip(self.norms, maps, strict=True)]


class DenseNetwork(nn.Module):
    """A backbone with what stands on it. Abstract: a network adds pyramid, heads and `forward`."""

    def __init__(self, backbone: DenseBackbone, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ModelError(f"num_classes is {num_classes}, expected at least 1")
        self.backbone = backbone
        self.num_classes = num_classes
        self.num_features = backbone.num_features
        self.load_notes = backbone.load_notes
        self.pretrained_cfg = backbone.pretrained_cfg

    def trunk(self, images: Tensor) -> Outputs:
        """What is the same work for every image, and can be traced: N,C,H,W -> a tensor with N rows, or several."""
        outputs: Tensor = self(images)
        return outputs

    def finish(self, outputs: Outputs, size: Size) -> Any:
        """What the network gives without targets, from what `trunk` gave for images of this height and width."""
        return outputs

    def get_classifier(self) -> nn.Module:
        """Everything but the backbone: what a linear probe trains."""
        return nn.ModuleList(module for name, module in self.named_children() if name != "backbone")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)


class Fpn(nn.Module):
    """Maps B,channels[i],h,w at `strides`, from the finest -> as many of B,pyramid_channels,h,w, and the extra levels.

    extra: "pool" adds one level, every second pixel of the coarsest (Mask R-CNN); "convs" two, by convolutions of stride 2, the first of
    them on the backbone's last map and without a ReLU between them (RetinaNet of mmdetection; torchvision's has one).
    """

    def __init__(self, channels: Sequence[int], pyramid_channels: int, extra: Extra = "none", *, strides: Sequence[float]) -> None:
        super().__init__()
        coarser = {"none": None, "pool": LastLevelMaxPool(), "convs": _ExtraConvs(channels[-1], pyramid_channels)}[extra]
        self.fpn = FeaturePyramidNetwork(list(channels), pyramid_channels, coarser)
        self.channels = pyramid_channels
        added = {"none": 0, "pool": 1, "convs": 2}[extra]
        self.strides = (*map(float, strides), *(strides[-1] * 2.0**i for i in range(1, added + 1)))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return list(self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps))).values())


class _ExtraConvs(ExtraFPNBlock):
    """The levels behind the last: B,C,h,w -> B,C',h/2,w/2 -> B,C',h/4,w/4."""

    def __init__(self, channels: int, pyramid_channels: int) -> None:
        super().__init__()
        widths = (channels, pyramid_channels)
        self.convs = nn.ModuleList(nn.Conv2d(c, pyramid_channels, kernel_size=3, stride=2, padding=1) for c in widths)
        for conv in self.convs.children():
            nn.init.kaiming_uniform_(conv.weight, a=1)  # type: ignore[arg-type]  # as the pyramid's own
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        last = x[-1]
        for i, conv in enumerate(self.convs):
            last = conv(last)
            results.append(last)
            names.append(f"extra{i}")
        return results, names


class SimplePyramid(nn.Module):
    """One map B,channels,h,w at stride p -> B,pyramid_channels at p/2, p, 2p, 4p, with `extra` also at 8p (every second pixel of 4p).

    Each level is resampled from the one map, never from another level: a transposed convolution, nothing, max pooling. Pooling rounds
    up, so that no level is ever empty.
    """

    def __init__(self, channels: int, pyramid_channels: int, extra: Extra = "none", *, stride: float) -> None:
        super().__init__()
        finer = nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)  # B,C,h,w -> B,C/2,2h,2w
        resampled = [(finer, channels // 2), (nn.Identity(), channels)]
        resampled += [(nn.MaxPool2d(k, stride=k, ceil_mode=True), channels) for k in (2, 4)]
        self.levels = nn.ModuleList(
            nn.Sequential(
                resample,
                nn.Conv2d(width, pyramid_channels, kernel_size=1, bias=False),
                LayerNorm2d(pyramid_channels),
                nn.Conv2d(pyramid_channels, pyramid_channels, kernel_size=3, padding=1, bias=False),
                LayerNorm2d(pyramid_channels),
            )
            for resample, width in resampled
        )
        self.coarser = extra != "none"
        self.channels = pyramid_channels
        self.strides = tuple(stride * 2.0**i for i in range(-1, 4 if self.coarser else 3))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        (last,) = maps
        levels = [level(last) for level in self.levels]
        return [*levels, levels[-1][:, :, ::2, ::2]] if self.coarser else levels


def create_pyramid(backbone: DenseBackbone, pyramid_channels: int, extra: Extra = "none") -> Fpn | SimplePyramid:
    """The pyramid that fits the backbone; `.strides` and `.channels` say what comes out."""
    if backbone.isotropic:
        return SimplePyramid(backbone.channels[0], pyramid_channels, extra, stride=backbone.strides[0])
    return Fpn(backbone.channels, pyramid_channels, extra, strides=backbone.strides)


def _levels_at(strides: Sequence[int], reductions: Sequence[int], name: str) -> tuple[int, ...]:
    """The index of the deepest feature of each stride; the last feature alone where all have one stride."""
    if len(set(reductions)) == 1:
        return (len(reductions) - 1,)
    lacking = [s for s in strides if s not in reductions]
    if lacking:
        has = ", ".join(map(str, sorted(set(reductions))))
        raise ModelError(
            f"{name} has features at strides {has} and none at {', '.join(map(str, lacking))}; take a backbone with strides "
            f"{', '.join(map(str, strides))}, such as convmlp_s, or one of a single stride, such as a ConvMixer"
        )
    return tuple(max(i for i, r in enumerate(reductions) if r == s) for s in strides)


def _is_channels_last(features: nn.Module, name: str) -> bool:
    layout = str(getattr(getattr(features, "output_fmt", "NCHW"), "value", "NCHW"))
    if layout not in ("NCHW", "NHWC"):
        raise ModelError(f"{name} gives its features as {layout}, expected maps; take another backbone")
    return layout == "NHWC"
