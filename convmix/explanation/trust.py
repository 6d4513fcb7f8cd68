"""How far a map can be trusted: does it tell which parts of the image decide, and does it depend on what the model has learned?

    deletion    the most important cells are blurred away, one part after the other: the class's probability should fall at once
    insertion   they come back first into an image that is all blurred: it should rise at once          (Petsiuk et al. 2018, 1806.07421)
    random      the same in random orders: half of single cells, half of blotches, as maps come in both kinds; several, for their spread
    weights     the rank correlation with the map after the weights have been shuffled               (Adebayo et al. 2018, 1810.03292)

Cells, not pixels: scattered single pixels destroy an image far sooner than the patches that maps point at, so random pixels would win.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convmix.explanation.hooked_copy import images_per_pass

CELLS = 12  # per side at most; a cell is at least one pixel
PARTS = 8  # in which the cells are removed, evenly many each
RANDOM_ORDERS = 8
BLOTCHES = 6  # per side, of every second random order
SPREADS = 2.0  # a map's score must exceed the mean of the random orders by so many of their standard deviations
LEAST_MOVE = 0.05  # of the probability between any two of the images made here; below it there is nothing to judge by
SAME_MAP = 0.5  # rank correlation with the map of shuffled weights from which on a map does not depend on them
BLUR = 8  # the standard deviation of the blur is the image's side over this

Probability = Callable[[Tensor], Tensor]  # images N,C,H,W -> N probabilities of the class in question


@dataclass(frozen=True)
class RandomOrders:
    """What removing and restoring cells in random orders does to the probability of one class in one image."""

    deletion: tuple[float, ...]  # area under the curve of each order, 0..1
    insertion: tuple[float, ...]
    moved: float  # the largest probability met less the smallest

    @cached_property
    def gaps(self) -> np.ndarray:
        """insertion - deletion of each order."""
        return np.subtract(self.insertion, self.deletion)


@dataclass(frozen=True)
class FaithfulnessScore:
    """How well one map tells which cells decide, beside random orders."""

    deletion: float  # area under the curve, 0..1, low is good
    insertion: float  # high is good
    random: RandomOrders
    is_constant: bool  # the same value everywhere: it orders nothing
    moved: float  # the largest probability met less the smallest, with the random orders

    @property
    def gap(self) -> float:
        return self.insertion - self.deletion

    @property
    def needed(self) -> float:
        """The gap from which on a map is better than random."""
        return float(self.random.gaps.mean() + SPREADS * self.random.gaps.std(ddof=1))

    @property
    def passes(self) -> bool | None:
        """Whether the map is better than random; None where chance could do as well, or where the probability hardly moves at all."""
        if self.is_constant:
            return False
        if self.moved < LEAST_MOVE:
            return None
        return True if self.gap > self.needed else None if self.gap > self.random.gaps.mean() else False

    @property
    def words(self) -> str:
        """The verdict, for people."""
        if self.is_constant:
            return "the map is the same everywhere"
        if self.moved < LEAST_MOVE:
            return "cannot be judged: the probability hardly moves"
        if self.passes is not False:
            return "better than random" if self.passes else "in doubt: hardly better than random"
        worse = [
            name
            for name, is_worse in (
                ("deletion", self.deletion >= np.mean(self.random.deletion)),
                ("insertion", self.insertion <= np.mean(self.random.insertion)),
            )
            if is_worse
        ]
        return f"{' and '.join(worse)} no better than random"


def blurred(images: Tensor) -> Tensor:
    """Images N,C,H,W with what takes the place of a removed cell: no detail, no edge of its own, the colours of the surroundings."""
    x = images
    for dim, side in ((2, images.shape[2]), (3, images.shape[3])):
        reach = max(1, min(side - 1, round(2 * side / BLUR)))
        at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        weights = torch.exp(-0.5 * (at * BLUR / side) ** 2)
        weights = (weights / weights.sum()).view(1, 1, -1, 1) if dim == 2 else (weights / weights.sum()).view(1, 1, 1, -1)
        padding = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
        x = F.conv2d(F.pad(x.flatten(0, 1)[:, None], padding, mode="reflect"), weights).view_as(images)  # N*C,1,H,W
    return x


def score_random(probability: Probability, image: Tensor, *, seed: int) -> RandomOrders:
    """The orders that a map of `image` (C,H,W) has to beat."""
    cells = _cells(image)
    scores = [_curves(probability, image, _random_order(cells, i % 2 == 1, seed=(seed, i)), cells) for i in range(RANDOM_ORDERS)]
    moved = max(float(p.max()) for p in scores) - min(float(p.min()) for p in scores)
    return RandomOrders(tuple(_area(p[0]) for p in scores), tuple(_area(p[1]) for p in scores), moved)


def score(probability: Probability, image: Tensor, heat: Tensor, random: RandomOrders) -> FaithfulnessScore:
    """How the map `heat` (H,W) of `image` (C,H,W) does. Raises ValueError where they do not fit."""
    if heat.shape != image.shape[1:]:
        raise ValueError(f"a map of {tuple(heat.shape)} for an image of {tuple(image.shape)}, expected {tuple(image.shape[1:])}")
    cells = _cells(image)
    curves = _curves(probability, image, _order(heat.cpu(), cells), cells)
    moved = max(random.moved, float(curves.max() - curves.min()))
    return FaithfulnessScore(_area(curves[0]), _area(curves[1]), random, is_constant(heat), moved)


def is_constant(heat: Tensor) -> bool:
    """Whether a map says nothing: one value everywhere, but for rounding."""
    return bool(heat.max() - heat.min() <= 1e-6 * heat.abs().max()) or not bool(heat.isfinite().all())


def rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's correlation of two maps of one shape, -1..1; None where one of them is constant and has no ranks."""
    from scipy.stats import spearmanr

    if is_constant(a) or is_constant(b):
        return None
    return float(spearmanr(a.flatten().numpy(), b.flatten().numpy()).statistic)


def _cells(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[1:]
    return min(CELLS, height), min(CELLS, width)


def _order(heat: Tensor, cells: tuple[int, int]) -> Tensor:
    """The cells, those with the largest mean first; equal ones in random order, or a map of zeros would remove the image row by row."""
    (rows, columns), (height, width) = cells, heat.shape
    into_rows = F.one_hot(torch.arange(height) * rows // height, rows).double()  # H,rows
    into_columns = F.one_hot(torch.arange(width) * columns // width, columns).double()  # W,columns
    sums = into_rows.T @ heat.double() @ into_columns  # rows,columns
    means = sums / (into_rows.sum(0)[:, None] * into_columns.sum(0))
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(rows * columns))
    return shuffled[means.flatten()[shuffled].argsort(descending=True, stable=True)]


def _random_order(cells: tuple[int, int], in_blotches: bool, *, seed: tuple[int, int]) -> Tensor:
    rng = np.random.default_rng(seed)
    if not in_blotches:
        return torch.from_numpy(rng.permutation(cells[0] * cells[1]))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, *(min(BLOTCHES, side) for side in cells))))
    smooth = F.interpolate(coarse, size=cells, mode="bilinear", align_corners=True)
    return smooth.flatten().argsort(descending=True)


def _curves(probability: Probability, image: Tensor, order: Tensor, cells: tuple[int, int]) -> Tensor:
    """2,PARTS+1: the probability as the first parts of the order are deleted, and as they are inserted."""
    rows, columns = cells
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    height, width = image.shape[1:]
    at_row, at_column = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    rank_hw = rank.view(rows, columns)[at_row][:, at_column]  # H,W
    counts = torch.arange(1, PARTS) * len(order) // PARTS
    first = (rank_hw < counts[:, None, None])[:, None].to(image.device)  # PARTS-1,1,H,W: the cells of the first parts
    plain, fill = image[None], blurred(image[None])
    changed = torch.cat([plain, fill, torch.where(first, fill, plain), torch.where(first, plain, fill)])
    step = images_per_pass(height, width)
    with torch.no_grad():
        values = torch.cat([probability(changed[i : i + step]).float().cpu() for i in range(0, len(changed), step)])
    whole, nothing, (deleted, inserted) = values[:1], values[1:2], values[2:].view(2, PARTS - 1)
    return torch.stack([torch.cat([whole, deleted, nothing]), torch.cat([nothing, inserted, whole])])


def _area(curve: Tensor) -> float:
    return float(torch.trapezoid(curve) / (len(curve) - 1))
