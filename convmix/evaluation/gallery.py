"""Which images are worth looking at, as small pictures of what the model sees of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
import PIL.Image

from convmix.data.bad_images import BadImage
from convmix.data.examples import Examples
from convmix.data.formats import printable
from convmix.data.preprocessing import Preprocess
from convmix.evaluation.model_outputs import Answers
from convmix.plots.html_page import Thumbnail

ERRORS, EXTREMES, PAIRS, PER_PAIR = 18, 12, 6, 6  # pictures: the page has six in a row
_LARGEST_PX = 200  # side of a thumbnail, for a page of at most a few MB
_SMALL_PX = 128  # smaller inputs are shown enlarged, without smoothing
_LONGEST_NAME = 36


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    truth: int
    said: int
    n: int


def confusions(answers: Answers) -> list[Confusion]:
    """Pairs of classes by how often the first is taken for the second, the most frequent first."""
    wrong = ~answers.correct
    pairs, counts = np.unique(np.stack([answers.truth[wrong], answers.predicted[wrong]], 1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [Confusion(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def worst(answers: Answers, *, most: int = ERRORS) -> np.ndarray:
    """Wrong answers by their probability, the most confident first."""
    wrong = np.flatnonzero(~answers.correct)
    return wrong[np.argsort(-answers.probability[wrong], kind="stable")][:most]


def surest(answers: Answers, *, most: int = EXTREMES) -> np.ndarray:
    """Answers of the highest probability, right or wrong."""
    return np.argsort(-answers.probability, kind="stable")[:most]


def least_sure(answers: Answers, *, most: int = EXTREMES) -> np.ndarray:
    """Answers of the lowest probability, right or wrong."""
    return np.argsort(answers.probability, kind="stable")[:most]


def examples_of(pair: Confusion, answers: Answers, *, most: int = PER_PAIR) -> np.ndarray:
    """Images of one confusion, the most confident first."""
    found = np.flatnonzero((answers.truth == pair.truth) & (answers.predicted == pair.said))
    return found[np.argsort(-answers.probability[found], kind="stable")][:most]


class Album:
    """Thumbnails of the answered images, each decoded once."""

    def __init__(self, examples: Examples, answers: Answers, preprocess: Preprocess) -> None:
        self.examples, self.answers, self.preprocess = examples, answers, preprocess
        self._picture = lru_cache(maxsize=None)(self._encode)

    def thumbnails(self, chosen: Sequence[int] | np.ndarray) -> list[Thumbnail]:
        """Pictures of answers at these positions, each with what was said, what is true, and its name."""
        return [Thumbnail(self._picture(int(i)), self._caption(int(i)), small=is_small(self.preprocess)) for i in chosen]

    def _caption(self, i: int) -> str:
        a, labels = self.answers, self.answers.classes.labels
        said, true = labels[a.predicted[i]], labels[a.truth[i]]
        name = PurePosixPath(printable(self.examples.name(int(a.indices[i])))).name  # the CSV file has the whole of it
        name = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
        answer = f"{said}, {100 * float(a.probability[i]):.0f}\N{NO-BREAK SPACE}%"
        if a.correct[i]:
            return f"✓ {answer}\n{name}"
        return f"✗ {answer}\nis {true}, {100 * float(a.truth_probability[i]):.0f}\N{NO-BREAK SPACE}%\n{name}"

    def _encode(self, i: int) -> bytes:
        return encoded(self.examples, int(self.answers.indices[i]), self.preprocess)


def is_small(preprocess: Preprocess) -> bool:
    """Whether inputs are to be enlarged without smoothing."""
    return min(preprocess.size) < _SMALL_PX


def encoded(examples: Examples, index: int, preprocess: Preprocess) -> bytes:
    """The image at this position as the model sees it, a small PNG or JPEG; grey where it cannot be read any more."""
    try:
        pixels = preprocess.denormalise(preprocess.load(examples.source(index))).numpy()
        shown = np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)) if len(pixels) >= 3 else pixels[0]  # C,H,W -> H,W,3 or H,W
        picture = PIL.Image.fromarray(shown)
    except BadImage:  # it was there when it was scored
        picture = PIL.Image.new("L", preprocess.size[::-1], 128)
    out = io.BytesIO()
    if max(picture.size) <= _SMALL_PX:
        picture.save(out, "PNG", optimize=True)
    else:
        picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
        picture.save(out, "JPEG", quality=85)
    return out.getvalue()
