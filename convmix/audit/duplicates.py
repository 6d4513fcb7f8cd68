"""Who is a copy of whom: the same bytes, the same pixels, or nearly the same picture; within a split, across splits, across classes.

ImageFacts -> exact copies by digest -> near copies by thumbnail (one picture of each set of exact copies) -> pairs and groups -> findings
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convmix.audit.finding import Finding
from convmix.audit.image_checks import faint
from convmix.audit.image_facts import ImageFacts
from convmix.audit.near_duplicates import ALIKE, near_copies

HOW = ("same bytes", "same pixels", "nearly the same", "nearly the same, mirrored")


@dataclass(frozen=True)
class Copies:
    """Pairs of images that are copies. `first` comes before `second` in the facts, so in a leak it is the one that is learned from."""

    first: np.ndarray  # m int64
    second: np.ndarray  # m int64
    how: np.ndarray  # m int8, position in HOW
    correlation: np.ndarray  # m float32, 1 for exact copies
    twin: np.ndarray  # n int64: the first image with the same pixels, perhaps the image itself
    group: np.ndarray  # n int64: the first image that this one is a copy of, exact or near, directly or through others
    limit: float  # the correlation that near copies had to have
    searched: bool  # whether near copies were looked for

    @property
    def exact(self) -> np.ndarray:
        """m bool."""
        return self.how < 2


def find_copies(facts: ImageFacts, *, near: bool) -> Copies:
    """All pairs. Of exact copies each stands beside the first alone, so that a thousand of them are 999 pairs."""
    n = len(facts)
    usable = np.flatnonzero(facts.ok)
    twin = np.arange(n)
    _, first_seen, inverse = np.unique(facts.pixels[usable], return_index=True, return_inverse=True)
    twin[usable] = usable[first_seen][inverse]
    second = np.flatnonzero(twin != np.arange(n))
    first = twin[second]
    how = np.where(facts.digest[first] == facts.digest[second], 0, 1).astype(np.int8)
    correlation = np.ones(len(second), np.float32)
    limit = ALIKE
    if near:
        single = np.flatnonzero((twin == np.arange(n)) & facts.ok & ~faint(facts))
        like = near_copies(facts.thumbnail[single])
        first, second = np.append(first, single[like.first]), np.append(second, single[like.second])
        how = np.append(how, np.where(like.mirrored, 3, 2).astype(np.int8))
        correlation, limit = np.append(correlation, like.correlation), like.limit
    order = np.lexsort((-correlation, how))
    first, second, how, correlation = first[order], second[order], how[order], correlation[order]
    return Copies(first, second, how, correlation, twin, _groups(n, first, second), limit, near)


def _groups(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """n int64: the lowest position among the images that are joined by pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, component = connected_components(coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n)), directed=False)
    _, lowest, inverse = np.unique(component, return_index=True, return_inverse=True)
    return lowest[inverse]


def examine_copies(facts: ImageFacts, copies: Copies) -> Iterator[Finding]:
    """A leak for a pair across splits, a label conflict for one across classes, else a duplicate; the surest pairs first.

    The finding's image is the one that is held out or comes later, `other` the one that is learned from or comes first.
    """
    pairs = zip(copies.first.tolist(), copies.second.tolist(), copies.how.tolist(), copies.correlation.tolist(), strict=True)
    for a, b, how, correlation in pairs:
        near = "near " if how > 1 else ""
        about = HOW[how] if how < 2 else f"{HOW[how]}, correlation {correlation:.3f}"
        kinds = ["leak"] if facts.part[a] != facts.part[b] else []
        kinds += ["label conflict"] if facts.label[a] != facts.label[b] else []
        for kind in kinds or ["duplicate"]:
            yield Finding(
                near + kind, facts.name(b), facts.split(b), facts.label_name(b), about,
                other=facts.name(a), other_split=facts.split(a), other_label=facts.label_name(a), at=b, beside=a,
            )  # fmt: skip
