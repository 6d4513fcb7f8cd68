"""Splits of images with several labels each, every label in proportion: iterative stratification.

present n,k bool, shares -> the split of every image, n

Sechidis, Tsoumakas, Vlahavas 2011, On the Stratification of Multi-Label Data, ECML PKDD: the rarest label is dealt out first, each of its
images to the split that lacks it most. Written from the paper: splits here have shares of their own, and a label of few images stays in
one of them.
"""

from collections.abc import Sequence

import numpy as np


def stratify(present: np.ndarray, shares: Sequence[float], *, keep: int = 0, seed: int) -> np.ndarray:
    """Position in `shares` that each image goes to, n int64.

    present: n,k bool, which image has which label; an image without any is dealt out too. shares: parts of the whole that sum to 1.
    keep: images of a label with fewer than this go to the last share, all of them. ValueError for shares that are no parts of a whole.
    """
    n = len(present)
    parts = np.asarray(shares, np.float64)
    if present.ndim != 2 or parts.min(initial=1) < 0 or abs(parts.sum() - 1) > 1e-9:
        raise ValueError(f"present is {present.shape} and the shares are {list(shares)}, expected n,k and parts that sum to 1")
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    wanted = parts * n  # images that each split still lacks
    wanted_of = parts[:, None] * present.sum(0)  # splits,k: images of each label
    left = present.sum(0)  # k: images that are not dealt out yet
    to = np.full(n, -1, np.int64)

    def deal(i: int, split: int) -> None:
        to[i] = split
        wanted[split] -= 1
        wanted_of[split, present[i]] -= 1
        left[present[i]] -= 1

    for i in order[present[order][:, left < keep].any(1)]:
        deal(int(i), len(parts) - 1)
    while left.any():
        label = int(np.where(left > 0, left, n + 1).argmin())
        for i in order[present[order, label] & (to[order] < 0)]:
            deal(int(i), _neediest(wanted_of[:, label], wanted, rng))
    for i in order[to[order] < 0]:  # without any label
        deal(int(i), _neediest(wanted, wanted, rng))
    return to


def _neediest(of_label: np.ndarray, overall: np.ndarray, rng: np.random.Generator) -> int:
    """The split that lacks the label most; of equals the one that lacks images most; of those any."""
    first = np.flatnonzero(of_label >= of_label.max() - 1e-9)
    second = first[overall[first] >= overall[first].max() - 1e-9]
    return int(second[0] if len(second) == 1 else rng.choice(second))
