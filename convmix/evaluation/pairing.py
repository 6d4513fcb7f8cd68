"""Two runs on the same images: whether one is really better, by the images on which they differ.

An exact McNemar test: were the runs equally good, an image that one of them alone gets right would be as likely to be the one's as the
other's.
"""

from dataclasses import dataclass

import numpy as np

from convmix.evaluation.intervals import ENDS

CONVINCING = 0.05  # a smaller p is called a real difference
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pairing:
    """What n images say about a run and its rival."""

    rival: str  # the other run's directory
    n: int  # images that both were scored on
    left_out: int  # images that the first run was scored on and the rival was not
    accuracy: float  # of the run, on these images
    rival_accuracy: float
    only_run: int  # images that the run alone gets right
    only_rival: int
    difference: float  # accuracy - rival_accuracy
    difference_interval: tuple[float, float]  # 95 %, paired bootstrap over the images
    p_value: float  # exact McNemar, two-sided
    convincing: bool
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Whether the difference is real, in one plain sentence."""
        by = f"{100 * abs(self.difference):.2f} percentage points"
        if not self.convincing:
            return f"Not distinguishable on {self.n} images: the difference of {by} may be chance (p = {_p(self.p_value)})."
        how = "better" if self.difference > 0 else "worse"
        return f"A convincing difference: on the same {self.n} images this run is {how} than {self.rival} by {by} (p = {_p(self.p_value)})."


def pair(
    correct: np.ndarray, rival_correct: np.ndarray, *, rival: str, left_out: int, notes: tuple[str, ...] = (), seed: int = 0
) -> Pairing:
    """Compare two runs by n bools each, the same images in the same order."""
    from scipy.stats import binomtest

    n = len(correct)
    if n == 0 or len(rival_correct) != n:
        raise ValueError(f"{n} and {len(rival_correct)} images, expected the same number of at least 1")
    ours, theirs = int((correct & ~rival_correct).sum()), int((rival_correct & ~correct).sum())
    p = float(binomtest(ours, ours + theirs, 0.5).pvalue) if ours + theirs else 1.0
    # resampling images is drawing how many are the one's alone, the other's alone, and neither's
    drawn = np.random.default_rng(seed).multinomial(n, [ours / n, theirs / n, 1 - (ours + theirs) / n], size=RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / n, ENDS)
    return Pairing(
        rival=rival,
        n=n,
        left_out=left_out,
        accuracy=float(correct.mean()),
        rival_accuracy=float(rival_correct.mean()),
        only_run=ours,
        only_rival=theirs,
        difference=(ours - theirs) / n,
        difference_interval=(float(low), float(high)),
        p_value=p,
        convincing=p < CONVINCING,
        notes=notes,
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
