"""Near copies among many pictures: thumbnails as points on a sphere, neighbours searched in few dimensions, likeness tested in all.

thumbnail 16,16 -> n,256 zero mean, unit length -> the leading principal axes n,10 -> KD-tree -> candidates -> tested on all 256

A projection onto orthonormal axes never lengthens a distance, so a neighbour in 256 dimensions is one in 10 as well. Two tests: the
correlation of the thumbnails, which is that of the whole composition, and the correlation of what is left of them once their 5x5
surroundings are taken away. The second tells copies from pictures that merely share a horizon.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convmix.audit.image_facts import SIDE

# Chosen on CIFAR-10 and on photos of 160 px: 99 % of the copies (half and 1.5 times the size, JPEG at quality 40, 10 % brighter) lie above
# both, and of the 646 pairs of CIFAR-10 above both 639 are copies (tests/audit/test_near_duplicates.py, docs/how_to/doctor.md).
ALIKE = 0.955  # correlation of the thumbnails
DETAIL = 0.85  # correlation of their detail
AXES = 10
NEAREST = 32  # candidates per picture
CROWD = 20  # a picture's neighbours up to this one may be copies; what is farther tells how near unrelated pictures are
SHARE = 0.4  # of that distance: how near a copy must be
SAMPLE = 512
BLOCK = 4096  # pictures compared at once


_Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # first, second, correlation, mirrored


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of pictures that look like copies."""

    first: np.ndarray  # m int64
    second: np.ndarray  # m int64, above `first`
    correlation: np.ndarray  # m float32
    mirrored: np.ndarray  # m bool
    limit: float  # correlation that was asked for: ALIKE, or more where all pictures are alike


def near_copies(thumbnails: np.ndarray) -> NearDuplicates:
    """The pairs among n,16,16 uint8 that are copies of one another, mirrored or not."""
    points = _on_the_sphere(thumbnails)
    reach = _reach(points)
    limit = 1 - reach**2 / 2
    found: list[_Found] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))]
    if len(points) > 1:
        found += [_tested(points, first, second, turned, limit, thumbnails) for first, second, turned in _candidates(points, reach)]
    first, second, correlation, turned = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((turned, -correlation, second, first))  # a pair is found twice, and perhaps mirrored too: its best likeness counts
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    keep = order[is_new]
    return NearDuplicates(first[keep], second[keep], correlation[keep], turned[keep], limit)


def _on_the_sphere(thumbnails: np.ndarray) -> np.ndarray:
    """n,16,16 uint8 -> n,256 float32 of zero mean and unit length: the product of two rows is their correlation."""
    points = thumbnails.reshape(len(thumbnails), SIDE * SIDE).astype(np.float32)
    points -= points.mean(1, keepdims=True)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
    return points


def _reach(points: np.ndarray) -> float:
    """The largest distance between copies.

    Where all pictures are alike (scanned digits), a fixed one would take different ones for copies; a copy must be much nearer than
    the pictures of the data set usually are to one another.
    """
    fixed = float(np.sqrt(2 - 2 * ALIKE))
    n = len(points)
    if n <= 2 * CROWD:
        return fixed
    sample = points[np.random.default_rng(0).permutation(n)[:SAMPLE]]
    usual = [np.partition(row, n - 1 - CROWD)[n - 1 - CROWD] for row in _rows(sample, points)]
    return min(fixed, SHARE * float(np.sqrt(max(2 - 2 * float(np.median(usual)), 0.0))))


def _rows(sample: np.ndarray, points: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(sample), 32):
        yield from sample[start : start + 32] @ points.T


def _candidates(points: np.ndarray, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Positions of pictures that may be copies, block by block, first below second, with whether the second is mirrored."""
    from scipy.spatial import cKDTree

    n = len(points)
    sample = points[np.random.default_rng(0).permutation(n)[: 16 * SAMPLE]]
    _, vectors = np.linalg.eigh(sample.T @ sample)  # in ascending order of their share
    axes = np.ascontiguousarray(vectors[:, : -AXES - 1 : -1])  # 256,10
    tree = cKDTree(points @ axes)
    for start in range(0, n, BLOCK):
        block = points[start : start + BLOCK]
        for is_mirrored, rows in ((False, block), (True, _mirrored(block))):
            _, neighbours = tree.query(rows @ axes, k=min(NEAREST, n), distance_upper_bound=reach, workers=-1)
            row, column = np.nonzero(neighbours < n)  # where there are fewer, the rest says n
            first, second = row + start, neighbours[row, column]
            other = first != second
            first, second = first[other], second[other]
            yield np.minimum(first, second), np.maximum(first, second), is_mirrored


def _tested(points: np.ndarray, first: np.ndarray, second: np.ndarray, is_mirrored: bool, limit: float, thumbnails: np.ndarray) -> _Found:
    """Those of the candidates that pass both tests."""
    correlation = np.zeros(len(first), np.float32)
    for start in range(0, len(first), BLOCK):
        part = slice(start, start + BLOCK)
        others = points[second[part]]
        correlation[part] = np.einsum("ij,ij->i", points[first[part]], _mirrored(others) if is_mirrored else others)
    keep = correlation >= limit
    first, second, correlation = first[keep], second[keep], correlation[keep]
    others = thumbnails[second]
    detail = np.einsum("ij,ij->i", _detail(thumbnails[first]), _detail(others[:, :, ::-1] if is_mirrored else others))
    keep = detail >= DETAIL
    return first[keep], second[keep], correlation[keep], np.full(int(keep.sum()), is_mirrored)


def _mirrored(points: np.ndarray) -> np.ndarray:
    return points.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(-1, SIDE * SIDE)


def _detail(thumbnails: np.ndarray) -> np.ndarray:
    """n,16,16 -> n,256: each pixel less the mean of its 5x5 surroundings, zero mean, unit length."""
    from scipy.ndimage import uniform_filter

    x = thumbnails.astype(np.float32)
    return _on_the_sphere(x - uniform_filter(x, (0, 5, 5), mode="nearest"))
