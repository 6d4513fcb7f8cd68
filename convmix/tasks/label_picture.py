"""A picture of images with the labels that a model says they have, and what of them is wrong. PNG, 900 pixels wide."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from convmix.plots.curves import DPI, ORANGE, WIDTH_IN, columns_of, frame, png, shorten, show

Said = Sequence[tuple[str, float]]  # labels with their probabilities, the most probable first


def labels_picture(
    images: np.ndarray, said: Sequence[Said], true: Sequence[Sequence[str]], unknown: Sequence[Sequence[str]], *, title: str
) -> bytes:
    """A grid of images N,C,H,W uint8 with what is said of each; a wrong answer has a frame and says what is too much and what is missed.

    true, unknown: per image the labels that it has, and those of which nobody knows. Raises ValueError where the shapes do not fit.
    """
    from matplotlib.figure import Figure

    n = len(images)
    if images.ndim != 4 or images.dtype != np.uint8 or n == 0:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 N,C,H,W with N > 0")
    if not len(said) == len(true) == len(unknown) == n:
        raise ValueError(f"{n} images with {len(said)} answers, {len(true)} truths and {len(unknown)} unknowns")
    columns = columns_of(n, widest=5)
    cell_in = min(WIDTH_IN / columns, 3.0)
    picture_in, caption_in, gap_in, head_in = cell_in - 0.12, 0.56, 0.1, 0.45
    height_in = picture_in * images.shape[2] / images.shape[3]
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(WIDTH_IN, head_in + rows * (height_in + caption_in + gap_in)), dpi=DPI)
    total_in = figure.get_figheight()
    left_in = (WIDTH_IN - columns * cell_in) / 2
    figure.text(0.5, 1 - 0.12 / total_in, shorten(title, 95), ha="center", va="top", fontsize=12, parse_math=False)
    for i in range(n):
        row, column = divmod(i, columns)
        bottom_in = total_in - head_in - row * (height_in + caption_in + gap_in) - height_in
        left = left_in + column * cell_in + 0.06
        axes = figure.add_axes((left / WIDTH_IN, bottom_in / total_in, picture_in / WIDTH_IN, height_in / total_in))
        show(axes, images[i])
        room = int(picture_in * 14.0)  # characters
        _, *wrong = caption(said[i], true[i], unknown[i])
        lines = [said_within(said[i], room), *wrong]
        frame(axes, wrong=bool(wrong))
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8.5, "parse_math": False}
        for place, text in enumerate(lines):
            figure.text(
                (left + picture_in / 2) / WIDTH_IN, (bottom_in - 0.05 - 0.16 * place) / total_in, shorten(text, room),
                color=ORANGE if place else "black", **style,
            )  # fmt: skip
    return png(figure)


def caption(said: Said, true: Sequence[str], unknown: Sequence[str]) -> list[str]:
    """What is said, then in lines of their own what of it is too much and what is missed."""
    labels = [label for label, _ in said]
    extra = [label for label in labels if label not in true and label not in unknown]
    missed = [label for label in true if label not in labels]
    lines = [", ".join(f"{label} {100 * p:.0f} %" for label, p in said) or "no label"]
    lines += [f"✗ {', '.join(extra)}"] if extra else []
    return lines + ([f"missed: {', '.join(missed)}"] if missed else [])


def said_within(said: Said, room: int) -> str:
    """What is said, in so many characters: with probabilities where there is room, else the labels alone, else the first of them."""
    if not said:
        return "no label"
    labels = [label for label, _ in said]
    whole = ", ".join(f"{label} {100 * p:.0f} %" for label, p in said)
    for text in (whole, ", ".join(labels), *(f"{', '.join(labels[:k])} + {len(labels) - k}" for k in range(len(labels) - 1, 0, -1))):
        if len(text) <= room:
            return text
    return f"{shorten(labels[0], max(1, room - 5))} + {len(labels) - 1}" if labels[1:] else shorten(whole, room)
