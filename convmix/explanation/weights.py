"""The filters that a model has learned, as pictures: its first convolution, and the depthwise kernels of every layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from convmix.plots.curves import DPI, WIDTH_IN, png, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FILTERS, FILTERS_PER_ROW = 64, 16
MOST_LAYERS, KERNELS_PER_LAYER = 16, 16
_GAP = 1  # weights' width between two tiles


@dataclass(frozen=True)
class Depthwise:
    """The kernels of one depthwise convolution."""

    layer: str
    kernels: Tensor  # C,k,k

    @property
    def spread_px(self) -> float:
        """How far from the middle the weights lie: root mean square distance in positions, weighted by their squares."""
        k = self.kernels.shape[-1]
        at = torch.arange(k, dtype=torch.float64) - (k - 1) / 2
        distance2 = at[:, None] ** 2 + at**2  # k,k
        power = self.kernels.double().square().sum(0)
        return float((distance2 * power).sum() / power.sum().clamp(min=1e-300)) ** 0.5


def first_filters(model: nn.Module) -> tuple[str, Tensor] | None:
    """The name and weights n,C,k,k of the first convolution that looks at pixels: a patch embedding, or a stem; None without one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size != (1, 1):
            return name, module.weight.detach().float().cpu()
    return None


def depthwise_layers(model: nn.Module) -> list[Depthwise]:
    """Every depthwise convolution that mixes space, the first layer first; the branches of a multi-scale block are rows of their own."""
    return [
        Depthwise(name, module.weight.detach().float().cpu().squeeze(1))  # C,1,k,k -> C,k,k
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1 and module.kernel_size[0] > 1
    ]


def filters_picture(weights: Tensor) -> bytes:
    """The strongest filters n,C,k,k as PNG: in colour where C is 3, else their mean over the channels. Grey is a weight of zero."""
    strongest = weights.flatten(1).norm(dim=1).argsort(descending=True)[:MOST_FILTERS]
    chosen = weights[strongest]
    x = chosen if chosen.shape[1] == 3 else chosen.mean(1, keepdim=True)
    x = 0.5 + 0.5 * x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)  # n,C,k,k in 0..1, each on its own scale
    tiles = x.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()  # n,k,k,3
    rows = [_row(tiles[i : i + FILTERS_PER_ROW], FILTERS_PER_ROW) for i in range(0, len(tiles), FILTERS_PER_ROW)]
    gap = np.ones((_GAP, *rows[0].shape[1:]))
    sheet = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    figure = _figure(WIDTH_IN * sheet.shape[0] / sheet.shape[1])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    axes.axis("off")
    return png(figure)


def shown(layers: list[Depthwise]) -> list[Depthwise]:
    """The layers that are drawn: all, or as many as fit, evenly over the depth."""
    if len(layers) <= MOST_LAYERS:
        return layers
    return [layers[i * (len(layers) - 1) // (MOST_LAYERS - 1)] for i in range(MOST_LAYERS)]


def kernels_picture(layers: list[Depthwise]) -> bytes:
    """A row per layer as PNG: the mean size of its weights at every place, then its strongest kernels, each on its own scale."""
    rows = shown(layers)
    label_in, mean_in, gap_in = 1.75, 0.44, 0.14
    row_in, top_in = 0.5, 0.36
    figure = _figure(top_in + row_in * len(rows) + 0.1)
    total_in = figure.get_figheight()
    for i, layer in enumerate(rows):
        bottom_in = total_in - top_in - row_in * (i + 1)
        k = layer.kernels.shape[-1]
        figure.text(0.02, (bottom_in + 0.30) / total_in, shorten(layer.layer, 24), fontsize=8, va="center", parse_math=False)
        note = f"{k} x {k}, spread {layer.spread_px:.1f}"
        figure.text(0.02, (bottom_in + 0.14) / total_in, note, fontsize=7.5, va="center", color="#555555")
        axes = figure.add_axes((label_in / WIDTH_IN, bottom_in / total_in, mean_in / WIDTH_IN, 0.44 / total_in))
        mean = layer.kernels.abs().mean(0).numpy()
        axes.imshow(mean, cmap="Greys", vmin=0, vmax=max(1.3 * float(mean.max()), 1e-12), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        strongest = layer.kernels.flatten(1).norm(dim=1).argsort(descending=True)[:KERNELS_PER_LAYER]
        tiles = layer.kernels[strongest]
        tiles = tiles / tiles.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
        sheet = _row(tiles.numpy(), KERNELS_PER_LAYER, empty=np.nan)
        left_in = label_in + mean_in + gap_in
        axes = figure.add_axes((left_in / WIDTH_IN, bottom_in / total_in, (WIDTH_IN - left_in - 0.1) / WIDTH_IN, 0.44 / total_in))
        axes.imshow(sheet, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
        axes.axis("off")
    y = 1 - (top_in - 0.1) / total_in
    first = "   strongest kernels: orange positive, violet negative"
    for left, text in ((0.18, "layer"), (label_in, "mean |w|"), (label_in + mean_in + gap_in, first)):
        figure.text(left / WIDTH_IN, y, text, fontsize=8.5, va="bottom")
    return png(figure)


def _row(tiles: np.ndarray, count: int, *, empty: float = 1.0) -> np.ndarray:
    """Tiles n,k,k,... side by side with gaps, places for `count`: k,count*(k+gap)-gap,..."""
    n, k, width, *rest = tiles.shape
    sheet = np.full((k, count * (width + _GAP) - _GAP, *rest), empty, np.float32)
    for i in range(n):
        left = i * (width + _GAP)
        sheet[:, left : left + width] = tiles[i]
    return sheet


def _figure(height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI)
