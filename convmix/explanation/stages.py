"""Which layers of a model hold maps over the image, in any layout, found by watching one image go through.

    NCHW  B,C,h,w              convolutional nets
    NHWC  B,h,w,C              ConvMLP's blocks, ConvNeXt's norms, Swin
    NLC   B,prefix + h*w,C     transformers, token mixers; the prefix is class and register tokens

The stages come from timm's contract (`forward_intermediates` and `feature_info`), and where a model has none, from what was watched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convmix.config import Size

Layout = Literal["NCHW", "NHWC", "NLC"]
FEWEST_POSITIONS = 4  # per side, for a map that is to say where: ConvMLP on 32 pixels ends in a single one


@dataclass(frozen=True)
class Layer:
    """A module whose output is a map over the image."""

    name: str  # of `named_modules`
    layout: Layout
    channels: int
    grid: Size  # h, w
    prefix: int = 0  # tokens in front of the map, NLC alone

    def to_nchw(self, output: Tensor) -> Tensor:
        """The module's output as B,C,h,w."""
        if self.layout == "NCHW":
            return output
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)  # B,h,w,C -> B,C,h,w
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)  # B,prefix+h*w,C -> B,C,h,w

    def from_nchw(self, x_nchw: Tensor, output: Tensor) -> Tensor:
        """The inverse of `to_nchw`, a tensor of its own; the prefix is that of `output`."""
        if self.layout == "NCHW":
            return x_nchw.clone()
        if self.layout == "NHWC":
            return x_nchw.permute(0, 2, 3, 1).clone()  # B,C,h,w -> B,h,w,C
        return torch.cat([output[:, : self.prefix], x_nchw.flatten(2).transpose(1, 2)], dim=1)  # B,C,h,w -> B,prefix+h*w,C


@dataclass(frozen=True)
class ModelStage:
    """One level of features, and what it held for some images."""

    name: str
    stride: int  # input pixels per position
    maps: Tensor  # N,C,h,w


def stage_maps(model: nn.Module, images: Tensor) -> list[ModelStage]:
    """Every level of features of a specimen for images N,C,H,W, the shallowest first; in the graph where gradients are on.

    Empty for a model in which no map is found.
    """
    if hasattr(model, "forward_intermediates"):
        maps = _intermediates(model, images)
        if maps and all(m.ndim == 4 for m in maps):
            info = getattr(model, "feature_info", None) or []
            entries = list(getattr(info, "info", info))
            fits = len(entries) == len(maps)
            if not fits:
                entries = [{"module": f"level {i + 1}", "reduction": round(images.shape[2] / m.shape[2])} for i, m in enumerate(maps)]
            return [ModelStage(str(e["module"]), int(e["reduction"]), m) for e, m in zip(entries, maps, strict=True)]
    last: dict[Size, ModelStage] = {}  # the last map of every resolution
    for name, _, output in _watched(model, images):
        layer = _layer(name, output, images, known=None, prefix=0)
        if layer is not None:
            last[layer.grid] = ModelStage(name, round(images.shape[2] / layer.grid[0]), layer.to_nchw(output))
    return list(last.values())


def map_layer(model: nn.Module, image: Tensor) -> Layer | None:
    """The layer that class activation maps are read from: the last one whose map still decides the output. None where there is none.

    image: 1,C,H,W. Candidates are the modules whose output has the shape of a stage, in the order in which they finish. Those whose
    gradient is zero at every position are passed over: behind a transformer's last attention the class token alone is read, so the choice
    falls on the norm before it. So are maps of fewer than `FEWEST_POSITIONS` a side, as long as there is a larger one.
    """
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        known = {tuple(stage.maps.shape[1:]) for stage in stage_maps(model, image)}
        watched, output = _watched_with_output(model, image)
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        found = [(layer, y) for name, _, y in watched if (layer := _layer(name, y, image, known=known, prefix=prefix)) and y.requires_grad]
        if not found:
            return None
        gradients = torch.autograd.grad(output.max(), [y for _, y in found], allow_unused=True)
    deciding = [
        layer for (layer, _), gradient in zip(found, gradients, strict=True) if gradient is not None and layer.to_nchw(gradient).any()
    ]
    deciding = deciding or [layer for layer, _ in found]  # an untrained head of zeros: no map decides anything
    large = [layer for layer in deciding if min(layer.grid) >= FEWEST_POSITIONS]
    if large:
        return large[-1]
    return max(reversed(deciding), key=lambda layer: min(layer.grid), default=None)


@contextmanager
def as_nchw(model: nn.Module, layer: Layer) -> Iterator[nn.Module]:
    """A module through which the layer's map passes as B,C,h,w, for hooks that know no other layout; the model's output is unchanged."""
    passage = nn.Identity()

    def reroute(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return layer.from_nchw(passage(layer.to_nchw(output)), output)

    handle = model.get_submodule(layer.name).register_forward_hook(reroute)
    try:
        yield passage
    finally:
        handle.remove()


def spread(stages: list[ModelStage], count: int) -> list[ModelStage]:
    """At most `count` of the stages, evenly over the depth, the first and the last among them."""
    if len(stages) <= count:
        return stages
    return [stages[i * (len(stages) - 1) // (count - 1)] for i in range(count)]


def channel_axis(x: Tensor, images: Tensor) -> int:
    """Which axis of an activation holds the channels: 1 for B,C,h,w, the last one for B,h,w,C and B,N,C."""
    is_nchw = x.ndim == 4 and (x.shape[2:] == (1, 1) or _divides((x.shape[2], x.shape[3]), images))
    return 1 if is_nchw else x.ndim - 1


def _intermediates(model: nn.Module, images: Tensor) -> list[Tensor]:
    try:
        maps = model.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):  # promised, not kept: some of timm's have the name alone
        return []
    return list(maps)


def _watched(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    return _watched_with_output(model, images)[0]


def _watched_with_output(model: nn.Module, images: Tensor) -> tuple[list[tuple[str, nn.Module, Tensor]], Tensor]:
    """(name, module, output) of every module that returned a tensor, in the order in which they finished, and the model's output."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    handles = []
    try:
        for name, module in model.named_modules():
            if name:
                handles.append(
                    module.register_forward_hook(
                        lambda m, args, output, name=name: seen.append((name, m, output)) if isinstance(output, Tensor) else None
                    )
                )
        return seen, model(images)
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, output: Tensor, images: Tensor, *, known: set[tuple[int, ...]] | None, prefix: int) -> Layer | None:
    """The output as a map of one of the `known` C,h,w (None: of any that divides the image evenly); None where it is no map."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        if (a, b, c) in known if known is not None else _divides((b, c), images):
            return Layer(name, "NCHW", a, (b, c))
        if (c, a, b) in known if known is not None else _divides((a, b), images):
            return Layer(name, "NHWC", c, (a, b))
    if output.ndim == 3 and known is not None:
        _, length, channels = output.shape
        for c, h, w in known:
            if c == channels and length - h * w in (0, prefix):
                return Layer(name, "NLC", c, (h, w), length - h * w)
    return None


def _divides(grid: Size, images: Tensor) -> bool:
    (h, w), (height, width) = grid, images.shape[2:]
    return 1 < h <= height and 1 < w <= width and round(height / h) == round(width / w)
