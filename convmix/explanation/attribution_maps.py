"""The pictures of an explanation as PNG: one per image, the receptive fields, and the activations by layer.

A map lies on the grey image: orange speaks for the class, blue against it, a line runs around the tenth that matters most. A map that
fails is crossed out and says why.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convmix.explanation.activations import Activation
from convmix.explanation.explanation_result import ExplainedImage, Map, MethodVerdict
from convmix.explanation.methods import TITLES
from convmix.explanation.receptive_field import MASS, Field
from convmix.explanation.stages import ModelStage
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, SMALL_PX, WIDTH_IN, png, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES, CHANNELS = 6, 7  # feature maps: at most so many stages, evenly over the depth, with the mean and so many channels each
TOP = 0.1  # share of the image inside the line
SMOOTHING = 0.035  # standard deviation over the image's longer side, for the line alone: single pixels would give islands without number
_MARGIN_IN, _GAP_IN = 0.12, 0.12
_LEGEND_IN, _ROW_TITLE_IN, _CAPTION_IN, _TILE_GAP_IN = 0.28, 0.32, 0.9, 0.06


class Sheet:
    """A figure of known width that is filled in inches from the top left corner."""

    def __init__(self, height_in: float) -> None:
        from matplotlib.figure import Figure

        self.height_in = height_in
        self.figure: Figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI)

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        box = (left / WIDTH_IN, 1 - (top + height) / self.height_in, width / WIDTH_IN, height / self.height_in)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor("#bbbbbb")
            spine.set_linewidth(0.6)
        return axes

    def text(self, left: float, top: float, text: str, *, size: float = 8.5, **style: Any) -> None:
        self.figure.text(left / WIDTH_IN, 1 - top / self.height_in, text, fontsize=size, va="top", parse_math=False, **style)


def image_picture(image: ExplainedImage, verdicts: Sequence[MethodVerdict], stages: Sequence[ModelStage]) -> bytes:
    """A row of overlays per class, then a row of feature maps per stage.

    stages: of this image alone, maps 1,C,h,w. Channels are those whose values differ most over the image.
    """
    height, width = image.pixels.shape[1:]
    columns = len(verdicts) + 1
    panel_in = min((WIDTH_IN - 2 * _MARGIN_IN - (columns - 1) * _GAP_IN) / columns, 2.6)
    panel_high_in = panel_in * height / width
    labels = list(dict.fromkeys(m.label for m in image.maps)) or [image.predicted]
    stages = [s for s in stages if s.maps.shape[2:].numel() > 1]  # one position shows nothing
    row_in = _ROW_TITLE_IN + panel_high_in + _CAPTION_IN
    tile_in = (WIDTH_IN - 2 * _MARGIN_IN - 1.5) / (CHANNELS + 1) - _TILE_GAP_IN
    tile_high_in = tile_in * height / width
    features_in = 0.5 + len(stages) * (tile_high_in + _TILE_GAP_IN) if stages else 0.0
    sheet = Sheet(_LEGEND_IN + row_in * len(labels) + features_in)
    legend = f"orange: for the class, blue: against it; the line holds the {100 * TOP:.0f} % that matter most"
    sheet.text(_MARGIN_IN, 0.06, legend, size=7.5, color=GREY)
    for row, label in enumerate(labels):
        top = _LEGEND_IN + row * row_in
        said = "predicted" if label == image.predicted else f"shown; the most probable is {shorten(image.predicted, 40)}"
        sheet.text(_MARGIN_IN, top, f"{shorten(label, 50)}: {100 * image.probabilities[label]:.1f} %, {said}", size=10, weight="bold")
        top += _ROW_TITLE_IN
        axes = sheet.axes(_MARGIN_IN, top, panel_in, panel_high_in)
        _show(axes, _rgb(image.pixels))
        sheet.text(_MARGIN_IN, top + panel_high_in + 0.05, "as the model sees it", weight="bold")
        for column, verdict in enumerate(verdicts, start=1):
            found = [m for m in image.maps if m.label == label and m.method == verdict.method]
            left = _MARGIN_IN + column * (panel_in + _GAP_IN)
            if found:
                _overlay(sheet, left, top, (panel_in, panel_high_in), image.pixels, found[0], verdict)
    if stages:
        _features(sheet, sheet.height_in - features_in, stages, (tile_in, tile_high_in))
    return png(sheet.figure)


def _overlay(
    sheet: Sheet, left: float, top: float, size_in: tuple[float, float], pixels: np.ndarray, found: Map, verdict: MethodVerdict
) -> None:
    passes, words = _judge(found, verdict)
    axes = sheet.axes(left, top, *size_in)
    _show(axes, overlaid(pixels, found.heat))
    axes.set_autoscale_on(False)
    if not found.score.is_constant:
        smooth = _smoothed(found.heat, SMOOTHING * max(found.heat.shape))
        level = float(np.quantile(smooth, 1 - TOP))
        if max(0.0, smooth.min()) < level < smooth.max():
            axes.contour(smooth, levels=[level], colors="black", linewidths=0.9)
    if passes is False:
        height, width = found.heat.shape
        axes.plot((-0.5, width - 0.5), (-0.5, height - 0.5), color=ORANGE, linewidth=1.6, linestyle="--")
        axes.plot((-0.5, width - 0.5), (height - 0.5, -0.5), color=ORANGE, linewidth=1.6, linestyle="--")
        for spine in axes.spines.values():
            spine.set_edgecolor(ORANGE)
            spine.set_linewidth(3.0)
    sign, colour = {True: ("✓", "black"), False: ("✗", ORANGE), None: ("?", GREY)}[passes]
    below = top + size_in[1] + 0.05
    letters = int(size_in[0] * 15.5)
    sheet.text(left, below, TITLES[found.method], weight="bold")
    lines = textwrap.wrap(f"{sign} {words}", letters)
    for i, line in enumerate(lines):
        sheet.text(left, below + 0.15 + 0.14 * i, line, size=8, color=colour, weight="bold" if passes is False else "normal")
    scores = f"del {found.score.deletion:.2f}, ins {found.score.insertion:.2f}"
    sheet.text(left, below + 0.15 + 0.14 * len(lines), scores, size=7.5, color=GREY)


def _judge(found: Map, verdict: MethodVerdict) -> tuple[bool | None, str]:
    """Whether the map is to be trusted, and why not."""
    if not found.score.is_constant and not verdict.depends_on_weights:
        return False, "does not depend on the weights"
    said = {True: "faithful: ", False: "not faithful here: ", None: ""}[found.score.passes]
    return found.score.passes, said + found.score.words


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image C,H,W uint8 in grey with the map H,W over it: H,W,3 in 0..1. Full colour is the map's 99.5th percentile."""
    grey = 0.3 + 0.7 * _rgb(pixels).mean(2, keepdims=True)  # H,W,1, lightened: colour must show on black too
    top = max(float(np.quantile(np.abs(heat), 0.995)), 1e-12)
    strength = np.clip(heat / top, -1, 1)[:, :, None]
    colour = np.where(strength > 0, _colour(ORANGE), _colour(BLUE))
    weight = 0.85 * np.abs(strength)
    return grey * (1 - weight) + colour * weight


def _features(sheet: Sheet, top: float, stages: Sequence[ModelStage], tile_in: tuple[float, float]) -> None:
    left = _MARGIN_IN + 1.5
    sheet.text(_MARGIN_IN, top + 0.05, "feature maps", size=10, weight="bold")
    sheet.text(left, top + 0.25, "mean", weight="bold")
    sheet.text(
        left + tile_in[0] + _TILE_GAP_IN, top + 0.25, "the channels that vary most over the image, each on its own scale", weight="bold"
    )
    for row, stage in enumerate(stages):
        x = stage.maps[0].float().cpu()  # C,h,w
        y = top + 0.45 + row * (tile_in[1] + _TILE_GAP_IN)
        sheet.text(_MARGIN_IN, y + tile_in[1] / 2 - 0.2, shorten(stage.name, 22))
        sheet.text(_MARGIN_IN, y + tile_in[1] / 2 - 0.04, f"{x.shape[1]} x {x.shape[2]}, {x.shape[0]} channels", size=7.5, color=GREY)
        most = x.flatten(1).var(dim=1, unbiased=False).argsort(descending=True)[:CHANNELS]
        for column, tile in enumerate([x.mean(0), *x[most]]):
            axes = sheet.axes(left + column * (tile_in[0] + _TILE_GAP_IN), y, *tile_in)
            axes.imshow(tile.numpy(), cmap="viridis", interpolation="nearest", aspect="auto")


def fields_picture(fields: Sequence[Field]) -> bytes:
    """Where the gradient of each stage's middle unit falls, with the effective and the possible square."""
    from matplotlib.patches import Rectangle

    size_in = min((WIDTH_IN - 2 * _MARGIN_IN - (len(fields) - 1) * _GAP_IN) / len(fields), 2.6)
    height, width = fields[0].gradient.shape
    high_in = size_in * height / width
    sheet = Sheet(0.35 + high_in + 0.8)
    for i, f in enumerate(fields):
        left = _MARGIN_IN + i * (size_in + _GAP_IN)
        sheet.text(left, 0.08, shorten(f.stage, int(size_in * 13)), size=10, weight="bold")
        axes = sheet.axes(left, 0.35, size_in, high_in)
        shown = f.gradient.numpy() ** 0.5
        axes.imshow(shown, cmap="Greys", vmin=0, vmax=max(float(np.quantile(shown, 0.999)), 1e-12), interpolation="nearest")
        axes.set_autoscale_on(False)
        y, x = f.centre
        lines = (
            ("– effective", f.effective_px, ORANGE, "-"),
            ("··· half of it", f.half_px, ORANGE, ":"),
            ("-- possible", f.possible_px, BLUE, "--"),
        )
        for row, (name, side, colour, style) in enumerate(lines):
            if side:
                corner = (x - side / 2 - 0.5, y - side / 2 - 0.5)
                axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linestyle=style, linewidth=1.6))
            said = "not known" if side is None else f"{side} px"
            sheet.text(left, 0.35 + high_in + 0.05 + 0.16 * row, f"{name}: {said}", color=colour)
    note = f"darkness: square root of the gradient; effective: the square with {100 * MASS:.0f} % of it; a square may exceed the image"
    sheet.text(_MARGIN_IN, 0.35 + high_in + 0.6, note, size=7.5, color=GREY)
    return png(sheet.figure)


def activations_picture(rows: Sequence[Activation]) -> bytes:
    """Mean and spread, and the shares of flat, zero and dead, layer by layer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH_IN, 4.6), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    values, shares = figure.subplots(2, 1, sharex=True)
    at = np.arange(1, len(rows) + 1)
    mean, std = (np.array([getattr(r, name) for r in rows]) for name in ("mean", "std"))
    values.fill_between(at, mean - std, mean + std, color=BLUE, alpha=0.2, linewidth=0, label="mean ± standard deviation")
    values.plot(at, mean, color=BLUE, marker="o", markersize=4, label="mean")
    values.set_title("output of the activation functions", loc="left", fontsize=10.5)
    for name, label, colour, marker, style in (
        ("saturated", "flat: no gradient passes", ORANGE, "s", "-"),
        ("zero", "next to zero", BLUE, "o", "--"),
        ("dead", "dead channels", "black", "x", ":"),
    ):
        share = [100 * getattr(r, name) for r in rows]
        shares.plot(at, share, color=colour, marker=marker, markersize=4.5, linestyle=style, label=label)
    shares.set_ylim(-4, 104)
    shares.set_title("share (%)", loc="left", fontsize=10.5)
    shares.set_xlabel("activation function, in the order of use")
    for axes in (values, shares):
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.grid(color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return png(figure)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """C,H,W uint8 -> H,W,3 in 0..1: the first three channels, or the first as grey."""
    chosen = pixels[:3] if len(pixels) >= 3 else pixels[:1].repeat(3, axis=0)
    return chosen.transpose(1, 2, 0) / 255.0  # C,H,W -> H,W,C


def _show(axes: "Axes", rgb: np.ndarray) -> None:
    axes.imshow(rgb, interpolation="nearest" if min(rgb.shape[:2]) < SMALL_PX else "antialiased", aspect="auto")


def _colour(hexadecimal: str) -> np.ndarray:
    return np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _smoothed(heat: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(heat.astype(np.float64), sigma)
