"""Pictures of a training: its curves, and what the model says about a few images.

Functions of numbers to PNG bytes. The pictures are 900 pixels wide, and colour is never the only sign (Okabe and Ito's palette, which
colour-blind readers tell apart).
"""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH_IN = 9.0
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
SMALL_PX = 128  # images with a shorter side than this are enlarged without smoothing


def curves_picture(history: Sequence[Mapping[str, Any]], *, score: str = "accuracy", score_title: str = "accuracy") -> bytes:
    """Loss, validation score and learning rate against the epoch, as PNG.

    `history` has one row per epoch with epoch, train_loss, val_loss, val_ and the name of the score (0..1), and lr; a value that is
    None or not finite leaves a gap. Raises ValueError for an empty history.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if not history:
        raise ValueError("the history is empty: there is no epoch to draw")
    figure = Figure(figsize=(WIDTH_IN, 5.6), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    panels = figure.subplot_mosaic([["loss", "score"], ["lr", "lr"]], height_ratios=[3, 1.2])
    epochs = _column(history, "epoch")
    style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(history) <= 40 else {}

    loss = panels["loss"]
    train_loss, val_loss = _column(history, "train_loss"), _column(history, "val_loss")
    loss.plot(epochs, train_loss, color=ORANGE, linestyle="--", label="training", **style)
    if np.isfinite(val_loss).any():
        loss.plot(epochs, val_loss, color=BLUE, label="validation", **style)
    if _spans_decades(np.concatenate([train_loss, val_loss])):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_locator(NullLocator())
    loss.legend(frameon=False, loc="upper right")
    dress(loss, "loss (nats)" if np.isfinite(val_loss).any() else "loss")

    panel = panels["score"]
    values = 100 * _column(history, f"val_{score}")
    panel.plot(epochs, values, color=BLUE, **style)
    title = f"validation {score_title} (%)"
    if np.isfinite(values).any():
        best = int(np.nanargmax(values))
        panel.plot(epochs[best], values[best], marker="o", markersize=10, markerfacecolor="none", color=ORANGE)
        title += f", best {values[best]:.1f} in epoch {epochs[best]:g}"
    dress(panel, title)

    panels["lr"].plot(epochs, _column(history, "lr"), color=GREY, **style)
    dress(panels["lr"], "learning rate")
    panels["lr"].set_xlabel("epoch")
    for axes in panels.values():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return png(figure)


def predictions_picture(
    images: np.ndarray | Tensor,
    truth: Sequence[int] | Tensor | None,
    predicted: Sequence[int] | Tensor,
    probabilities: Sequence[float] | Tensor,
    labels: Sequence[str],
    *,
    title: str,
) -> bytes:
    """A grid of images with what the model says; wrong ones have a frame, a cross and the true label. PNG.

    `images` are N,C,H,W uint8 with one channel (grey) or at least three (the first three are shown as RGB); `truth` (None:
    unknown) and `predicted` are N positions in `labels`; `probabilities` are N shares of the predicted label.
    Raises ValueError where the shapes do not fit.
    """
    from matplotlib.figure import Figure

    images = np.asarray(images)
    n = len(images)
    if images.ndim != 4 or images.dtype != np.uint8 or n == 0:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 N,C,H,W with N > 0")
    counts = (len(predicted), len(probabilities), n if truth is None else len(truth))
    if counts != (n, n, n):
        raise ValueError(f"{n} images with {counts[0]} predictions, {counts[1]} probabilities and {counts[2]} true labels")
    columns = columns_of(n, widest=6 if max(map(len, labels)) > 10 else 8)
    rows = math.ceil(n / columns)
    cell_in = min(WIDTH_IN / columns, 3.0)
    picture_in = cell_in - 0.12
    height_in = picture_in * images.shape[2] / images.shape[3]
    caption_in = 0.58 if truth is not None else 0.42
    figure = Figure(figsize=(WIDTH_IN, 0.45 + rows * (height_in + caption_in + 0.1)), dpi=DPI)
    total_in = figure.get_figheight()
    left_in = (WIDTH_IN - columns * cell_in) / 2
    figure.text(0.5, 1 - 0.12 / total_in, shorten(title, 95), ha="center", va="top", fontsize=12, parse_math=False)
    for i in range(n):
        row, column = divmod(i, columns)
        bottom_in = total_in - 0.45 - row * (height_in + caption_in + 0.1) - height_in
        box = (left_in + column * cell_in + 0.06, bottom_in, picture_in, height_in)
        axes = figure.add_axes((box[0] / WIDTH_IN, box[1] / total_in, box[2] / WIDTH_IN, box[3] / total_in))
        show(axes, images[i])
        label = labels[int(predicted[i])]
        true_label = label if truth is None else labels[int(truth[i])]
        wrong = true_label != label
        frame(axes, wrong=wrong)
        letters = int(picture_in * (12.0 if wrong else 14.5))  # that fit beneath an image at 8.5 points, bold or not
        said = ("✗ " if wrong else "") + shorten(label, letters - 2 * wrong)
        share = f"{100 * float(probabilities[i]):.0f} %"
        centre = (box[0] + picture_in / 2) / WIDTH_IN
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8.5, "parse_math": False}
        figure.text(
            centre, (bottom_in - 0.05) / total_in, said, color=ORANGE if wrong else "black", weight="bold" if wrong else "normal", **style
        )
        figure.text(centre, (bottom_in - 0.21) / total_in, share, color="black", **style)
        if wrong:
            figure.text(centre, (bottom_in - 0.37) / total_in, "true: " + shorten(true_label, letters - 4), color="black", **style)
    return png(figure)


def columns_of(n: int, *, widest: int) -> int:
    """Columns of a grid somewhat wider than high, 4 to `widest` where there are as many images, with few empty places."""
    near = round(math.sqrt(1.5 * n))
    fitting = [c for c in (near, near + 1, near - 1) if 4 <= c <= widest] or [max(4, min(widest, near))]
    return min(n, min(fitting, key=lambda c: -n % c))


def _column(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = np.array([math.nan if row.get(name) is None else float(row[name]) for row in history])
    return np.where(np.isfinite(values), values, math.nan)


def _spans_decades(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return len(values) > 0 and values.min() > 0 and values.max() / values.min() > 30


def dress(axes: "Axes", title: str = "") -> None:
    """The look of every plot: its title, where given, above on the left, a faint grid behind, no frame above and on the right."""
    if title:
        axes.set_title(title, loc="left", fontsize=10.5)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def show(axes: "Axes", image: np.ndarray) -> None:
    """Draw one C,H,W image without smoothing where it is enlarged."""
    axes.set_xticks([])
    axes.set_yticks([])
    interpolation = "nearest" if min(image.shape[1:]) < SMALL_PX else "antialiased"
    if len(image) >= 3:
        axes.imshow(image[:3].transpose(1, 2, 0), interpolation=interpolation)  # C,H,W -> H,W,C
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation=interpolation)


def frame(axes: "Axes", *, wrong: bool) -> None:
    """A thin grey frame, or a thick orange one."""
    for spine in axes.spines.values():
        spine.set_edgecolor(ORANGE if wrong else "#bbbbbb")
        spine.set_linewidth(3.0 if wrong else 0.6)


def shorten(text: str, letters: int) -> str:
    """At most `letters` characters on one line, cut in the middle: the ends of class names tell them apart."""
    text = " ".join(text.split())
    letters = max(letters, 3)
    if len(text) <= letters:
        return text
    head = (letters - 1) * 2 // 3
    tail = letters - 1 - head
    return text[:head] + "…" + (text[-tail:] if tail else "")


def png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # labels in scripts that the font lacks: boxes, no stop
        figure.savefig(out, format="png", facecolor="white")
    return out.getvalue()
