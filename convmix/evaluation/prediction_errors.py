"""What becomes of the objects of an image: right, or missed, of the wrong class, badly placed, found twice, or nothing but background.

After TIDE (Bolya et al. 2020, arXiv 2008.08115), but counted instead of weighed by their cost in AP: an answer is right where it overlaps
a true object of its class by an IoU of at least .5, the surest first, each object once.
"""

from dataclasses import dataclass

import numpy as np

from convmix.data.targets import Objects
from convmix.metrics.matching import match_image, overlaps
from convmix.results import Boxes

RIGHT, MISSED, IGNORED = "right", "missed", "ignored"
WRONG_CLASS, BADLY_PLACED, TWICE, BACKGROUND = "wrong class", "badly placed", "found twice", "background"
KINDS = {
    WRONG_CLASS: "a true object, taken for another class",
    BADLY_PLACED: "a true object of the class, overlapped by less than half (IoU .1 to .5)",
    TWICE: "a true object that a surer answer has found already",
    BACKGROUND: "nothing of the sort is there, or it is not annotated",
}
ENOUGH, NEAR = 0.5, 0.1  # IoU of a right answer, and of one that means a true object at all


@dataclass(frozen=True)
class ErrorCounts:
    """One image: what its answers are, and what is found of its objects."""

    kinds: tuple[str, ...]  # n, of the answers: RIGHT, a key of KINDS, or IGNORED (a crowd or a difficult object)
    ious: np.ndarray  # n float64, with the object that the answer is about; 0 where there is none
    found: np.ndarray  # m bool, of the true objects: rightly
    touched: np.ndarray  # m bool: an answer is about it, right or not
    counted: np.ndarray  # m bool: neither a crowd nor difficult

    @property
    def missed(self) -> int:
        """True objects that no answer is about."""
        return int((self.counted & ~self.touched).sum())

    @property
    def right(self) -> int:
        return self.kinds.count(RIGHT)

    @property
    def answers(self) -> int:
        """Answers that count."""
        return len(self.kinds) - self.kinds.count(IGNORED)

    @property
    def objects(self) -> int:
        """True objects that count."""
        return int(self.counted.sum())

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall in this image; 1 where nothing is there and nothing is said."""
        total = self.objects + self.answers
        return 2 * self.right / total if total else 1.0

    @property
    def mean_iou(self) -> float | None:
        """Of the right answers."""
        right = [o for o, kind in zip(self.ious.tolist(), self.kinds, strict=True) if kind == RIGHT]
        return float(np.mean(right)) if right else None


def outcome(found: Boxes, truth: Objects, *, masks: bool = False) -> ErrorCounts:
    """What becomes of the answers, which are those worth showing, matched to the objects by boxes or by `masks`.

    Right, wrong class and missed are `matching.match_image`'s; what it calls false is told apart by what the answer overlaps.
    """
    verdict = match_image(found, truth, iou=ENOUGH, threshold=0.0, masks=masks)
    n, m = len(found), len(truth)
    overlap = overlaps(found, np.arange(n), truth, np.arange(m), masks)  # n,m
    counted, hit, touched = ~truth.crowd, np.zeros(m, bool), np.zeros(m, bool)
    kinds, about = [IGNORED] * n, verdict.partner.copy()
    for kind, which in ((RIGHT, verdict.right), (WRONG_CLASS, verdict.confused), (BACKGROUND, verdict.false)):
        for i in which:
            kinds[i] = kind
    hit[verdict.partner[verdict.right]] = True
    touched[verdict.partner[verdict.partner >= 0]] = True
    for i in verdict.false:
        own = (truth.labels == int(found.columns[i])) & counted
        for kind, objects, least in ((TWICE, own & hit, ENOUGH), (BADLY_PLACED, own & ~hit, NEAR)):
            near = np.flatnonzero(objects & (overlap[i] >= least))
            if len(near):
                kinds[i], about[i] = kind, near[overlap[i, near].argmax()]
                touched[about[i]] = True
                break
    ious = np.array([overlap[i, j] if j >= 0 else 0.0 for i, j in enumerate(about)])
    return ErrorCounts(tuple(kinds), ious, hit, touched, counted)
