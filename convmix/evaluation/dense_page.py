"""What the pages and tables of the evaluations of objects and of class maps have in common."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from convmix.config import Size
from convmix.data.decode import ValueRange, viewable
from convmix.data.examples import Examples
from convmix.evaluation.dense_result import DenseEvaluation
from convmix.evaluation.group_sections import robustness_section, slice_section
from convmix.plots import overlay
from convmix.plots.html_page import Page

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str]  # name, value and 95 % interval of a score
MOST_LISTED = 30  # classes in one table
WORST, TYPICAL = 6, 3  # images shown


def begin_page(e: DenseEvaluation, rows: Sequence[Row], *, caption: str) -> Page:
    """A page with its title, the scores of the whole, and what must not be overlooked."""
    page = Page(f"Evaluation of {Path(e.run).name}", f"{e.metrics['n']:,} images: {e.about}")
    page.section("Scores")
    page.table(("score", "value", "95 % interval"), rows, caption=caption)
    for remark in e.remarks():
        page.note(remark)
    return page


def end_page(page: Page, e: DenseEvaluation) -> list[Path]:
    """The sections about groups of images, where there are some; then the page is written: all files that were."""
    groups = e.groups
    if groups.whole is not None and groups.slices:
        slice_section(page, groups.slices, groups.whole, score=groups.title)
    if groups.whole is not None and groups.robustness:
        robustness_section(page, groups.robustness, groups.whole, score=groups.title)
    return page.write(e.page)


def summary_table(e: DenseEvaluation, rows: Sequence[Row]) -> "Table":
    """The scores of the whole for a terminal."""
    from rich.table import Table
    from rich.text import Text

    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column(style="bold")
    summary.add_column()
    summary.add_row("images", Text(f"{e.metrics['n']} ({e.about})"))
    for name, value, interval in rows:
        summary.add_row(name, Text(value if interval == "–" else f"{value}, 95 % interval {interval}"))
    return summary


def class_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
    """A row per class, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, title in enumerate(header):
        table.add_column(title, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def share(value: float | None) -> str:
    """A score of 0..1 in per cent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f} %"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """As '61.20 % (55.1 to 66.9)'."""
    return share(value) if value is None or interval is None else f"{share(value)} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def worst_and_typical(scores: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """Positions of the images with the lowest scores, and of others next to the median; an image without a score (None) is neither."""
    known = np.array([i for i, score in enumerate(scores) if score is not None], dtype=int)
    values = np.array([scores[i] for i in known], dtype=float)
    order = known[np.argsort(values, kind="stable")]
    worst = order[:WORST]
    middle = known[np.argsort(np.abs(values - np.median(values)), kind="stable")] if len(known) else known
    return worst.tolist(), [i for i in middle.tolist() if i not in set(worst.tolist())][:TYPICAL]


def gallery(rows: Sequence[tuple[str, list[np.ndarray]]], column_titles: Sequence[str], *, title: str) -> bytes:
    """`overlay.grid_picture` in 256 colours: a quarter of the bytes, so that a page can be mailed."""
    out = io.BytesIO()
    with PIL.Image.open(io.BytesIO(overlay.grid_picture(rows, column_titles, title=title))) as picture:
        # the octree keeps the colours of small classes, which the median cut merges with others
        picture.convert("RGB").quantize(256, method=PIL.Image.Quantize.FASTOCTREE, dither=PIL.Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()


class Originals:
    """The upright images of a selection, as people see them."""

    def __init__(self, examples: Examples, indices: Sequence[int], *, max_pixels: int, value_range: ValueRange | None) -> None:
        self.examples, self.indices, self.max_pixels, self.value_range = examples, indices, max_pixels, value_range

    def pixels(self, i: int, size: Size) -> np.ndarray:
        """The i-th scored image, H,W,3 uint8 of the size that it was scored in."""
        return viewable(self.examples.source(self.indices[i]), size=size, max_pixels=self.max_pixels, value_range=self.value_range)
