"""Pictures that nobody looks at: drawing them takes more of a tiny training, and of what is told of it, than everything else."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

DRAW: Callable[..., None] = Figure.savefig


def save_blank(figure: Figure, file: io.BytesIO, **settings: Any) -> None:
    """The figure is composed as always; what is saved is a white PNG of its size."""
    width, height = figure.bbox.size
    Image.new("RGB", (round(width), round(height)), "white").save(file, format="png", compress_level=1)


@contextmanager
def pictures(save: Callable[..., None]) -> Iterator[None]:
    """How figures of matplotlib are saved meanwhile: by `DRAW` or `save_blank`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", save)
        yield
