"""Pictures of an examination: how many images each class has, and small pictures of the images themselves."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image

from convmix.data.decode import BadImage, Image, ValueRange, decode
from convmix.plots.curves import BLUE, DPI, GREY, ORANGE, WIDTH_IN, png, shorten

LISTED = 40  # classes with a bar of their own
TILE_PX = 136  # longer side of a small picture
SMALL_PX = 64  # pictures up to this size are enlarged without smoothing
_STYLES = ((BLUE, ""), (ORANGE, "//"), (GREY, ".."))  # colour, hatch


def balance_picture(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> bytes:
    """Images per class and split: bars, or a curve of the sorted counts where the classes are more than LISTED. PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    many = len(classes) > LISTED
    height_in = 3.6 if many else 1.0 + 0.16 * len(classes) * (len(counts) + 0.6)
    figure = Figure(figsize=(WIDTH_IN, max(height_in, 1.8)), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    axes = figure.subplots()
    thickness = 0.84 / len(counts)
    for place, ((split, of_split), (colour, hatch)) in enumerate(zip(counts.items(), _STYLES, strict=False)):
        label = "images" if split == "all" else split
        if many:
            line = ("-", "--", ":")[place]
            axes.plot(np.arange(1, len(classes) + 1), np.sort(of_split)[::-1], color=colour, linestyle=line, linewidth=2, label=label)
        else:
            y = np.arange(len(classes)) + (place - (len(counts) - 1) / 2) * thickness
            axes.barh(y, of_split, thickness * 0.9, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=label)
            for at, n in zip(y, of_split, strict=True):
                axes.annotate(f"{n:,}", (n, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5)
    if many:
        axes.set_xlabel("class, from the largest to the smallest")
        axes.set_ylim(bottom=0)
    else:
        axes.set_yticks(range(len(classes)), [shorten(c, 28) for c in classes], parse_math=False, fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.1, y=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_title("readable images per class", loc="left", fontsize=10.5)
    axes.grid(axis="both" if many else "x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(counts) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return png(figure)


def tile(source: bytes | str, *, in_chans: int, max_pixels: int, value_range: ValueRange | None = None) -> PIL.Image.Image | None:
    """The upright image, at most TILE_PX on its longer side and never thinner than a few pixels; None where it cannot be read."""
    try:
        image = decode(source, in_chans=in_chans, max_pixels=max_pixels, value_range=value_range)
    except BadImage:
        return None
    small = _eight_bits(image)
    longer = max(small.size)
    if longer <= SMALL_PX:
        times = max(1, TILE_PX // longer)
        return small.resize((small.width * times, small.height * times), PIL.Image.Resampling.NEAREST)
    scale = min(TILE_PX / longer, 1)
    return small.resize((max(3, round(small.width * scale)), max(3, round(small.height * scale))), PIL.Image.Resampling.LANCZOS)


def side_by_side(*images: PIL.Image.Image) -> PIL.Image.Image:
    """Small pictures on one, each in a square of its own."""
    row = PIL.Image.new("RGB", (len(images) * TILE_PX + (len(images) - 1) * 8, TILE_PX), "white")
    for i, image in enumerate(images):
        row.paste(image, (i * (TILE_PX + 8) + (TILE_PX - image.width) // 2, (TILE_PX - image.height) // 2))
    return row


def encode(image: PIL.Image.Image) -> bytes:
    """JPEG: a page of a few hundred small pictures stays below 5 MB."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85, subsampling=0)
    return out.getvalue()


def _eight_bits(image: Image) -> PIL.Image.Image:
    """RGB; of more channels the first three, of two the first, each stretched from its darkest to its brightest value."""
    if isinstance(image, PIL.Image.Image):
        return image.convert("RGB")
    shown = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1].repeat(3, 2)  # h,w,3
    low, high = shown.min((0, 1)), shown.max((0, 1))
    return PIL.Image.fromarray(np.rint(255 * (shown - low) / np.maximum(high - low, 1e-6)).astype(np.uint8))
