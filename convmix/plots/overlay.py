"""Results of dense tasks drawn on their images: boxes, outlines and class maps, with labels that can be read.

image H,W,3 + result -> enlarged where it is small -> fills and lines -> labels, placed greedily -> legend of the classes beneath

Truth is drawn by the same functions: `truth_of` and `truth_map` make results of it. A class keeps its colour in every picture; the first
seven are Okabe and Ito's, which colour-blind readers tell apart, each other lies as far from all before it as can be. Names stand in
labels and legend, as colour is never the only sign.
"""

import functools
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from convmix.config import Size
from convmix.data import rle
from convmix.data.targets import IGNORE, Objects
from convmix.plots.curves import shorten
from convmix.results import Boxes, Masks, SemanticMap

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom

OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
LEGIBLE_PX = 360  # images with a shorter side are enlarged by a whole factor
LARGEST_PX = 2400  # unless the longer side would pass this
GRID_PX = 900  # width of a page of pictures
UNSCORED: Colour = (150, 150, 150)
NAME = 24  # letters of a class name
FEW = 8  # objects of an image whose labels may be far wider than they are


def draw(image: np.ndarray, result: Boxes | SemanticMap) -> np.ndarray:
    """Any result on its H,W,3 uint8 image: h,w,3 uint8, with a legend beneath, and enlarged where the image is small."""
    return _drawn(result, image)


@functools.singledispatch
def _drawn(result: object, image: np.ndarray) -> np.ndarray:
    raise TypeError(f"a {type(result).__name__} cannot be drawn on an image")


@_drawn.register
def _(result: Boxes, image: np.ndarray) -> np.ndarray:
    return draw_boxes(image, result)


@_drawn.register
def _(result: Masks, image: np.ndarray) -> np.ndarray:
    return draw_masks(image, result)


@_drawn.register
def _(result: SemanticMap, image: np.ndarray) -> np.ndarray:
    return draw_map(image, result.classes.numpy(), result.labels)


def truth_of(objects: Objects, labels: Sequence[str]) -> Boxes | Masks:
    """Annotated objects as a result that is sure of all (score 1, which is not drawn): Masks where there are masks."""
    n = len(objects)
    fields: dict[str, Any] = {
        "boxes": torch.from_numpy(objects.boxes), "scores": torch.ones(n), "columns": torch.from_numpy(objects.labels),
        "labels": tuple(labels), "size": objects.size,
    }  # fmt: skip
    return Boxes(**fields) if objects.masks is None else Masks(**fields, masks=objects.masks)


def truth_map(classes: np.ndarray, labels: Sequence[str]) -> SemanticMap:
    """An annotated H,W uint8 class map, IGNORE included, as a result that is sure of all."""
    return SemanticMap(torch.from_numpy(classes), torch.ones(classes.shape), tuple(labels))


def draw_boxes(image: np.ndarray, found: Boxes, *, threshold: float = 0.0, truth: Objects | None = None) -> np.ndarray:
    """Boxes whose score reaches the threshold, with name and score in per cent (none at score 1); `truth` is dashed. As `draw`."""
    found = found.above(threshold)
    sheet = _Sheet.of(image, found.size)
    colours = palette(len(found.labels))
    if truth is not None:
        for box, column in zip(truth.boxes, truth.labels, strict=True):
            sheet.dashed(box, colours[column])
    for i in range(len(found) - 1, -1, -1):  # the surest on top
        sheet.rectangle(found.boxes[i].numpy(), colours[int(found.columns[i])])
    sheet.label(found, [colours[c] for c in found.columns.tolist()])
    entries = [(colours[c], name) for c, name in _counted(found.columns.numpy(), found.labels)]
    if truth is not None and len(truth):
        absent = np.setdiff1d(truth.labels, found.columns.numpy())
        entries += [(colours[c], f"{shorten(found.labels[c], NAME)}: 0") for c in absent] + [((255, 255, 255), "dashed: truth")]
    return sheet.with_legend(entries)


def draw_masks(image: np.ndarray, found: Masks, *, threshold: float = 0.0, alpha: float = 0.4) -> np.ndarray:
    """Masks whose score reaches the threshold, filled and outlined, with name and score. As `draw`.

    Of several classes each has its colour; of one class neighbours have different ones, else they would flow together.
    """
    found = found.above(threshold)
    sheet = _Sheet.of(image, found.size)
    columns = found.columns.tolist()
    one_class = len(found.labels) == 1
    colours = [palette(len(OKABE_ITO))[i % len(OKABE_ITO)] if one_class else palette(len(found.labels))[c] for i, c in enumerate(columns)]
    for i in range(len(found) - 1, -1, -1):
        sheet.fill(rle.decode([found.masks[i]], found.size)[0] > 0, colours[i], alpha)
    sheet.label(found, colours)
    counted = _counted(found.columns.numpy(), found.labels)
    return sheet.with_legend([((255, 255, 255) if one_class else palette(len(found.labels))[c], name) for c, name in counted])


def draw_map(image: np.ndarray, classes: np.ndarray, labels: Sequence[str], *, alpha: float = 0.55, legend: bool = True) -> np.ndarray:
    """A class map over its image; what is not scored (IGNORE) is grey with stripes. The legend says how much each class covers.

    Without the legend for `grid_picture` with more than two columns, which would make it too small to read and has its own.
    """
    sheet = _Sheet.of(image, (classes.shape[0], classes.shape[1]))
    colours = palette(len(labels))
    table = np.full((IGNORE + 1, 3), UNSCORED, np.uint8)
    table[: len(labels)] = colours
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)
    sheet.tint(table[classes], classes == IGNORE, alpha)
    if not legend:
        return np.asarray(sheet.picture)
    entries = [
        (colour, f"{shorten(label, NAME)} {_percent(count / classes.size)}")
        for colour, label, count in zip(colours, labels, counts[: len(labels)], strict=True)
        if count
    ]
    if counts[IGNORE]:
        entries.append((UNSCORED, f"not scored {_percent(counts[IGNORE] / classes.size)}"))
    return sheet.with_legend(entries)


def grid_picture(
    rows: Sequence[tuple[str, list[np.ndarray]]], column_titles: Sequence[str], *, title: str, legend: Sequence[tuple[Colour, str]] = ()
) -> bytes:
    """Rows of h,w,3 uint8 pictures under the titles of their columns, each row with what is to be said of it: PNG, 900 pixels wide.

    `legend`: swatches beneath all rows, as `legend_of` makes them. Raises ValueError for a row with another
    number of pictures than there are titles.
    """
    if any(len(pictures) != len(column_titles) for _, pictures in rows):
        raise ValueError(f"rows of {sorted({len(pictures) for _, pictures in rows})} pictures under {len(column_titles)} titles")
    gap, line = 10, 24
    cell = (GRID_PX - gap * (len(column_titles) + 1)) // len(column_titles)
    fitted = [[_fitted(picture, cell) for picture in pictures] for _, pictures in rows]
    heights = [max(picture.height for picture in pictures) for pictures in fitted]
    strip = _strip(legend, GRID_PX, 14)
    page = Image.new("RGB", (GRID_PX, 2 * line + gap + sum(heights) + len(rows) * (line + gap) + strip.height), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GRID_PX / 2, gap), shorten(title, 100), "black", font(17), anchor="ma")
    y = gap + line
    for column, text in enumerate(column_titles):
        pen.text((gap + column * (cell + gap) + cell / 2, y), shorten(text, cell // 9), "black", font(15), anchor="ma")
    y += line
    for (text, _), pictures, height in zip(rows, fitted, heights, strict=True):
        pen.text((gap, y), shorten(text, 115), "#555555", font(14), anchor="la")
        y += line
        for column, picture in enumerate(pictures):
            page.paste(picture, (gap + column * (cell + gap) + (cell - picture.width) // 2, y))
        y += height + gap
    page.paste(strip, (0, y))
    out = io.BytesIO()
    page.save(out, format="PNG")
    return out.getvalue()


def legend_of(labels: Sequence[str], present: Iterable[int]) -> list[tuple[Colour, str]]:
    """Colour and name of the classes at these positions, in the order of `labels`; IGNORE, where it is among them, last."""
    at = set(present)
    entries = [
        (colour, shorten(label, NAME)) for c, (colour, label) in enumerate(zip(palette(len(labels)), labels, strict=True)) if c in at
    ]
    return entries + ([(UNSCORED, "not scored")] if IGNORE in at else [])


@functools.lru_cache(maxsize=8)
def palette(k: int) -> list[Colour]:
    """Colours of k classes. Those of fewer classes are its beginning."""
    steps = np.linspace(0, 255, 12)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    seen = _perceived(candidates)
    chroma = np.hypot(seen[:, 1], seen[:, 2])
    fit = (seen[:, 0] > 35) & (seen[:, 0] < 90) & (chroma > 30) & (chroma < 85)  # not near black, white or grey, and none glares
    candidates, seen = candidates[fit], seen[fit]
    colours = list(OKABE_ITO[:k])
    nearest = np.linalg.norm(seen[:, None] - _perceived(np.array(OKABE_ITO, float)), axis=2).min(1)
    while len(colours) < k:
        best = int(nearest.argmax())
        colours.append(tuple(int(v) for v in candidates[best]))  # type: ignore[arg-type]
        nearest = np.minimum(nearest, np.linalg.norm(seen - seen[best], axis=1))
    return colours


def _perceived(rgb: np.ndarray) -> np.ndarray:
    """n,3 sRGB 0..255 -> n,3 CIELAB, where distances are about as large as they look."""
    linear = np.where(rgb <= 10.31475, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@functools.lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most scripts."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


@dataclass
class _Sheet:
    """An enlarged image that is drawn on, in the image's own coordinates."""

    picture: Image.Image
    factor: int
    type_px: int  # height of letters
    line_px: int

    @classmethod
    def of(cls, image: np.ndarray, size: Size) -> "_Sheet":
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != tuple(size):
            raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 {size[0]},{size[1]},3 as its result says")
        short, long = min(size), max(size)
        factor = max(min(-(-LEGIBLE_PX // short), LARGEST_PX // long), 1)
        picture = Image.fromarray(np.ascontiguousarray(image.repeat(factor, 0).repeat(factor, 1)))
        # as large as is still read in half the width of a page, but no more than a tenth of a panorama's height
        type_px = max(12, round(min(factor * long / 36, factor * short / 10)))
        return cls(picture, factor, type_px, max(2, round(type_px / 8), factor // 3))

    def rectangle(self, box: np.ndarray, colour: Colour) -> None:
        left, top, right, bottom = (float(v) * self.factor for v in box)
        pen, edge = ImageDraw.Draw(self.picture), (left, top, max(right - 1, left), max(bottom - 1, top))
        pen.rectangle(edge, outline=colour, width=self.line_px)

    def dashed(self, box: np.ndarray, colour: Colour) -> None:
        left, top, right, bottom = (float(v) * self.factor for v in box)
        pen, dash = ImageDraw.Draw(self.picture), 4 * self.line_px
        for x in np.arange(left, right, 2 * dash):
            for y in (top, bottom - 1):
                pen.line((x, y, min(x + dash, right), y), colour, self.line_px)
        for y in np.arange(top, bottom, 2 * dash):
            for x in (left, right - 1):
                pen.line((x, y, x, min(y + dash, bottom)), colour, self.line_px)

    def fill(self, mask: np.ndarray, colour: Colour, alpha: float) -> None:
        """H,W bool: tinted, with a full line along its inner border."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].repeat(self.factor, 0).repeat(self.factor, 1)
        inner = np.pad(part, 1)
        for _ in range(self.line_px):
            inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        share = np.where(inner[1:-1, 1:-1], alpha, 1.0) * part
        at = (int(columns[0]) * self.factor, int(rows[0]) * self.factor)
        self.picture.paste(Image.new("RGB", part.shape[::-1], colour), at, Image.fromarray((255 * share).astype(np.uint8)))

    def tint(self, colours: np.ndarray, striped: np.ndarray, alpha: float) -> None:
        """H,W,3 uint8 colours over the whole, H,W bool where they are striped."""
        over = colours.repeat(self.factor, 0).repeat(self.factor, 1)
        y, x = np.ogrid[: over.shape[0], : over.shape[1]]
        stripes = striped.repeat(self.factor, 0).repeat(self.factor, 1) & ((y + x) // self.line_px % 5 == 0)
        over[stripes] = 40
        self.picture = Image.blend(self.picture, Image.fromarray(over), alpha)

    def label(self, found: Boxes, colours: Sequence[Colour]) -> None:
        """Name and score of each object beside its box, the surest first: shorter, or none, where others would be covered."""
        pen, letters = ImageDraw.Draw(self.picture), font(self.type_px)
        placed: list[Box] = []
        wide = 2.5 if len(found) > FEW else np.inf  # times the box
        for i, colour in enumerate(colours):
            box = tuple(float(v) * self.factor for v in found.boxes[i])
            for text in _texts(found, i):
                width, height = letters.getlength(text) + 4, self.type_px * 1.25
                if width > max(wide * (box[2] - box[0]), self.type_px * 3):
                    continue
                spots = list(_spots(box, width, height, self.picture.size))  # type: ignore[arg-type]
                spot = next((s for s in spots if not any(_overlap(s, p) for p in placed)), None)
                if spot:
                    placed.append(spot)
                    pen.rectangle(spot, fill=colour)
                    pen.text((spot[0] + 2, (spot[1] + spot[3]) / 2), text, _ink(colour), letters, anchor="lm")
                    break

    def with_legend(self, entries: Sequence[tuple[Colour, str]]) -> np.ndarray:
        """The drawn picture over a white strip with a swatch and a text for each entry."""
        strip = _strip(entries, self.picture.width, self.type_px)
        sheet = Image.new("RGB", (self.picture.width, self.picture.height + strip.height))
        sheet.paste(self.picture)
        sheet.paste(strip, (0, self.picture.height))
        return np.asarray(sheet)


def _strip(entries: Sequence[tuple[Colour, str]], width: int, type_px: int) -> Image.Image:
    """A legend in as many lines as it needs at this width; of no height where there are no entries."""
    letters, pad, line = font(type_px), type_px // 2, round(1.5 * type_px)
    places, x, y = [], pad, pad
    for colour, text in entries:
        while len(text) > 3 and type_px + 3 * pad + letters.getlength(text) > width:
            text = shorten(text, len(text) - 1)
        needed = type_px + pad + int(letters.getlength(text))
        if x > pad and x + needed + pad > width:
            x, y = pad, y + line
        places.append((x, y, colour, text))
        x += needed + 2 * pad
    strip = Image.new("RGB", (width, y + line if places else 0), "white")
    pen = ImageDraw.Draw(strip)
    for x, y, colour, text in places:
        pen.rectangle((x, y, x + type_px, y + type_px), fill=colour, outline=(90, 90, 90))
        pen.text((x + type_px + pad, y + type_px / 2), text, "black", letters, anchor="lm")
    return strip


def _texts(found: Boxes, i: int) -> list[str]:
    """What a label may say, the most first. The legend tells the name of an only class."""
    score = float(found.scores[i])
    number = "" if score == 1 else f"{100 * score:.0f}"
    name, short = (shorten(found.labels[int(found.columns[i])], letters) for letters in (NAME, 8))
    texts = [number] if len(found.labels) == 1 else [f"{name} {number}", f"{short} {number}", number or short]
    return [text.strip() for text in texts if text.strip()]


def _spots(box: Box, width: float, height: float, sheet: tuple[int, int]) -> Iterator[Box]:
    """Where a label of this size may stand: above, inside and below the box, from the left and from the right, inside the picture."""
    left, top, right, bottom = box
    for y in (top - height, top, bottom - height, bottom):
        for x in (left, right - width):
            if 0 <= y <= sheet[1] - height:
                x = min(max(x, 0), max(sheet[0] - width, 0))
                yield x, y, x + width, y + height


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever is read better on the colour."""
    return (0, 0, 0) if _perceived(np.array([colour], float))[0, 0] > 55 else (255, 255, 255)


def _counted(columns: np.ndarray, labels: Sequence[str]) -> list[tuple[int, str]]:
    """The classes that occur, with how often."""
    counts = np.bincount(columns, minlength=len(labels))
    return [(c, f"{shorten(labels[c], NAME)}: {counts[c]}") for c in np.flatnonzero(counts).tolist()]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def _fitted(picture: np.ndarray, width: int) -> Image.Image:
    """As wide as a column, or as high as one and a half where that is less."""
    height, was = picture.shape[:2]
    scale = min(width / was, 1.5 * width / height)
    size = (max(round(was * scale), 1), max(round(height * scale), 1))
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS)
