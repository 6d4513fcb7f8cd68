"""The splits that a data set lacks, made from its training images: stratified, seeded, recorded.

A given test split is never touched, and validation images come from the training images alone: the test split chooses nothing.
"""

from dataclasses import replace

import numpy as np

from convmix.config import Data
from convmix.data.examples import Examples, Source
from convmix.data.stratified import stratify
from convmix.errors import DataError

FEWEST = 3  # images of a class that may give some away


def with_splits(source: Source, data: Data) -> Source:
    """`source` with train, val and test.

    A missing val or test is cut out of the training images: data.val_fraction and data.test_fraction of them, every class in
    proportion, drawn with data.split_seed; where an image may have several labels, every label (`stratified`). A class keeps at least
    one training image; one with fewer than three images stays in train whole. A fraction of 0 makes no such split. A given val stays
    val, also where the test split has to be made: test images must not be ones that chose anything. data.train_images thins out what is
    then left to train on, so that val and test do not depend on it. `origin` says what was made of what.
    Raises DataError where there are no training images or too few to hold any out.
    """
    given = "train" if "train" in source.splits else "all"
    if given not in source.splits:
        raise DataError(f"the data has only the {', '.join(source.splits)} split; training needs a train split or unsplit images")
    pool = source.splits[given]
    fractions = {"val": data.val_fraction, "test": data.test_fraction}
    wanted = {split: f for split, f in fractions.items() if f > 0 and split not in source.splits}
    held_out, small = _draw(pool, wanted, data.split_seed)
    splits = {"train": replace(pool.select(held_out["train"]) if wanted else pool, split="train")}
    origin = {"train": "given" if given == "train" else "made: all images"}
    if wanted:
        made = " and ".join(wanted)
        origin["train"] = f"{'given' if given == 'train' else 'made: all images'} without those of {made}"
    for split in ("val", "test"):
        if split in source.splits:
            splits[split], origin[split] = source.splits[split], source.origin[split]
        elif split in wanted:
            splits[split] = replace(pool.select(held_out[split]), split=split)
            few = f"; {small} classes with fewer than 3 images stay in train" if small else ""
            whole = "train" if given == "train" else "all images"
            origin[split] = f"made: {wanted[split]:.4g} of {whole}, stratified, seed {data.split_seed}{few}"
    if data.train_images is not None and data.train_images < len(splits["train"]):
        splits["train"], left = _thinned(splits["train"], data.train_images, data.split_seed), len(splits["train"])
        origin["train"] += f"; {data.train_images} of {left}, stratified, seed {data.split_seed}"
    return replace(source, splits={name: examples.in_order() for name, examples in splits.items()}, origin=origin)


def was_made(source: Source, split: str) -> bool:
    return source.origin.get(split, "given").startswith("made")


def _thinned(pool: Examples, wanted: int, seed: int) -> Examples:
    """So many of the images, every class in proportion; DataError where a class would be left with none."""
    if pool.label_matrix is not None:
        part = wanted / len(pool)
        to = stratify(pool.label_matrix == 1, (part, 1 - part), seed=seed)
        order = np.lexsort((np.random.default_rng(seed).permutation(len(to)), to))  # its choice first: it is off by an image or two
        return pool.select(np.sort(order[:wanted]))
    counts = np.bincount(pool.labels, minlength=len(pool.classes))
    share = _share(counts, counts, wanted / len(pool), seed)
    empty = [pool.classes[i] for i in np.flatnonzero((counts > 0) & (share == 0))]
    if empty:
        raise DataError(f"data.train_images: {wanted} of {len(pool)} training images leave none of {', '.join(empty[:5])}; give more")
    chosen = [
        np.random.default_rng((seed, int(label))).permutation(np.flatnonzero(pool.labels == label))[: share[label]]
        for label in np.flatnonzero(counts)
    ]
    return pool.select(np.sort(np.concatenate(chosen)))


def _draw(pool: Examples, fractions: dict[str, float], seed: int) -> tuple[dict[str, np.ndarray], int]:
    """Sorted indices of `pool` per split, and the number of classes too small to give any away."""
    if pool.label_matrix is not None:
        return _draw_several(pool, fractions, seed)
    labels = pool.labels
    counts = np.bincount(labels, minlength=len(pool.classes))
    room = np.where(counts >= FEWEST, counts - 1, 0)  # images a class can give
    shares: dict[str, np.ndarray] = {}
    for split in sorted(fractions):
        shares[split] = _share(counts, room, fractions[split], seed)
        room = room - shares[split]
        if not shares[split].any():
            raise DataError(
                f"{len(labels)} images in {np.count_nonzero(counts)} classes are too few to make a {split} split: "
                f"a class needs at least 3 images; give a {split} split, or set data.{split}_fraction to 0"
            )
    chosen: dict[str, list[np.ndarray]] = {split: [] for split in (*shares, "train")}
    for label in np.flatnonzero(counts):
        order = np.random.default_rng((seed, int(label))).permutation(np.flatnonzero(labels == label))
        start = 0
        for split, share in shares.items():
            chosen[split].append(order[start : start + share[label]])
            start += share[label]
        chosen["train"].append(order[start:])
    return {split: np.sort(np.concatenate(parts)) for split, parts in chosen.items()}, int(((counts > 0) & (counts < FEWEST)).sum())


def _draw_several(pool: Examples, fractions: dict[str, float], seed: int) -> tuple[dict[str, np.ndarray], int]:
    """The same where an image may have several labels."""
    assert pool.label_matrix is not None
    present, names = pool.label_matrix == 1, sorted(fractions)
    held = [fractions[name] for name in names]
    to = stratify(present, (*held, 1 - sum(held)), keep=FEWEST, seed=seed)
    chosen = {split: np.flatnonzero(to == i) for i, split in enumerate((*names, "train"))}
    for split in (*names, "train"):
        if not len(chosen[split]):
            raise DataError(
                f"{len(pool)} images are too few to make a {split} split: give a {split} split, more images, or other fractions "
                f"({', '.join(f'data.{name}_fraction' for name in names)})"
            )
    counts = present.sum(0)
    return chosen, int(((counts > 0) & (counts < FEWEST)).sum())


def _share(counts: np.ndarray, room: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Images each class gives: its proportion rounded so that the total is right, the largest remainders first, never above `room`."""
    exact = np.where(room > 0, counts * fraction, 0.0)
    share = np.minimum(np.floor(exact).astype(np.int64), room)
    missing = max(round(float(exact.sum())), 1) - int(share.sum())
    tie = np.random.default_rng(seed).permutation(len(counts))
    for label in np.lexsort((tie, -(exact - share))):
        if missing > 0 and share[label] < room[label]:
            share[label] += 1
            missing -= 1
    return share
