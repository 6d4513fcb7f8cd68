"""How the classes are spread over the data set and its splits."""

from collections.abc import Iterator

import numpy as np

from convmix.audit.finding import Finding
from convmix.audit.image_facts import ImageFacts

FEW = 10  # images to learn a class from
UNEVEN = 10.0  # images of the largest class for one of the smallest
APART = 0.1  # share of a split's images that would have to change class for it to be spread like the training images


def class_counts(facts: ImageFacts) -> dict[str, np.ndarray]:
    """Split -> readable images per class, k int64."""
    ok = facts.ok
    of_parts = [ok & (facts.part == p) for p in range(len(facts.parts))]
    if facts.matrix is not None:
        counts = [(facts.matrix[some] == 1).sum(0) for some in of_parts]
    else:
        counts = [np.bincount(facts.label[some], minlength=len(facts.classes)) for some in of_parts]
    return {examples.split: of_part for examples, of_part in zip(facts.parts, counts, strict=True)}


def examine_balance(facts: ImageFacts) -> Iterator[Finding]:
    """Rare, missing and unevenly spread classes."""
    counts = class_counts(facts)
    learned_from = next((s for s in ("train", "all") if s in counts), None)
    if learned_from is None:
        return
    learned = counts[learned_from]
    for i in np.flatnonzero(learned < FEW).tolist():
        yield _of_class(facts, i, learned_from, f"{learned[i]} readable images to learn from; at least {FEW} are wanted")
    present = learned[learned > 0]
    if len(present) and present.max() >= UNEVEN * present.min():
        most, least = int(learned.argmax()), int(np.where(learned > 0, learned, learned.max() + 1).argmin())
        about = f"{learned[most]} images of {facts.classes[most]} for {learned[least]} of {facts.classes[least]}"
        yield Finding("class balance", "", learned_from, "", about)
    for split, of_split in counts.items():
        if split == learned_from or not of_split.any() or not learned.any():
            continue
        for i in np.flatnonzero((of_split == 0) & (learned > 0)).tolist():
            yield _of_class(facts, i, split, f"no image in {split}: what a model makes of this class stays unknown")
        apart = float(abs(of_split / of_split.sum() - learned / learned.sum()).sum() / 2)
        if apart > APART:
            yield Finding("class balance", "", split, "", f"classes are spread unlike {learned_from}: {apart:.0%} of the images apart")


def _of_class(facts: ImageFacts, i: int, split: str, about: str) -> Finding:
    return Finding("class balance", "", split, facts.classes[i], about)
