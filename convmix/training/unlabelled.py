"""Images without labels beside those with labels: what is learned of them is the teacher's answers alone.

    folder -> files, those that are exact copies of validation or test images left out -> so many a step, in an order of their own
    step -> images, changed at random as training images are -> `Batch.unlabelled`

Which images a step shows is a function of (seed, step), and how they are changed of (seed, image, how often it came before), so a resumed
training repeats them; `job.json` keeps a digest over the folder's images.
"""

import hashlib
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from convmix.config import Optim, Run
from convmix.data.loaders import Batch, keyed_batches
from convmix.data.preprocessing import Loads
from convmix.data.scan import digest_of
from convmix.data.targets import Targets
from convmix.errors import ConfigError
from convmix.inference.file_names import Files, find_files

_KEPT_BACK = ("val", "test")


@dataclass(frozen=True)
class Unlabelled:
    """The images of a folder that a training shows beside its own."""

    folder: str
    files: Files
    per_step: int  # images of all processes together
    labelled_per_step: int
    copies: int  # left out, for they are validation or test images
    digest: str  # of all images of the folder
    seed: int

    @property
    def sentence(self) -> str:
        """For the log, before the first step."""
        share = self.per_step / (self.per_step + self.labelled_per_step)
        left_out = f"; left out: {self.copies} that are validation or test images" if self.copies else ""
        return (
            f"{self.folder}: {len(self.files)} unlabelled images, {self.per_step} a step beside {self.labelled_per_step} with labels "
            f"({share:.0%} of what is shown){left_out}"
        )

    def outcome(self, bad: MutableMapping[str, str], *, steps: int) -> str:
        """For the log, after the last step. bad: name -> reason, of all images that could not be read."""
        broken = sum(name in bad for name in self.files.names)
        passes = steps * self.per_step / len(self.files)
        return f"unlabelled images: {passes:.1f} passes" + (f", {broken} could not be read, see bad_images.csv" if broken else "")

    def keys(self, step: int) -> list[tuple[int, int]]:
        """(file, how often it came before) of a step; every file comes once before any comes again."""
        n = len(self.files)
        positions = range(step * self.per_step, (step + 1) * self.per_step)
        orders = {k: np.random.default_rng([self.seed, k, 1]).permutation(n) for k in {at // n for at in positions}}
        return [(int(orders[at // n][at % n]), at // n) for at in positions]

    def beside(
        self,
        batches: Iterator[Batch],
        transform: Loads,
        bad: MutableMapping[str, str],
        *,
        steps: range,
        rank: int,
        world: int,
        workers: int | None,
        device: torch.device,
    ) -> Iterator[Batch]:
        """The batches of these steps, each with this process's part of the images for it; files that cannot be read go into `bad`."""
        mine = [self.keys(step)[self.per_step * rank // world : self.per_step * (rank + 1) // world] for step in steps]
        with closing(keyed_batches(self.files, transform, mine, seed=self.seed, workers=workers, device=device)) as others:
            for batch, other in zip(batches, others, strict=True):
                for i, reason in other.bad:
                    bad[self.files.names[i]] = reason
                yield replace(batch, unlabelled=other.images)


def shown_with(parts: Sequence[tuple[Tensor, Targets]], unlabelled: Tensor | None) -> list[tuple[Tensor, Targets, Tensor]]:
    """The parts of a batch, images n,C,H,W and targets, each with what the network is shown: the images, unlabelled ones behind them."""
    if unlabelled is None or not len(unlabelled):
        return [(x, y, x) for x, y in parts]
    more = unlabelled.tensor_split(len(parts))
    return [(x, y, torch.cat([x, u.to(x.dtype)])) for (x, y), u in zip(parts, more, strict=True)]


def open_unlabelled(run: Run, kept_back: Sequence[tuple[str, str, str, str]]) -> Unlabelled | None:
    """The folder that the settings name; None where they name none.

    kept_back: split, name, digest and label of the training's own images. Raises ConfigError where no teacher is named or no image is
    left, DataError where there is no such folder.
    """
    optim = run.optim
    if optim.unlabelled is None:
        return None
    if optim.teacher is None:
        raise ConfigError("optim.unlabelled: images without labels are learned from a teacher's answers; name one with --teacher")
    if not 0 < optim.unlabelled_share < 1:
        raise ConfigError(f"optim.unlabelled_share: {optim.unlabelled_share} is outside 0..1, both ends excluded")
    found = find_files([optim.unlabelled])
    digests = [digest_of(name) for name in found]
    theirs = {digest for split, _, digest, _ in kept_back if split in _KEPT_BACK and digest}
    names = tuple(name for name, digest in zip(found, digests, strict=True) if digest not in theirs)
    if not names:
        raise ConfigError(f"optim.unlabelled: {optim.unlabelled} holds no image that is not a validation or test image")
    everything = hashlib.blake2b("\n".join(f"{d} {n}" for d, n in zip(digests, found, strict=True)).encode("utf-8", "surrogatepass"))
    per_step = images_of_step(optim) - optim.batch_size
    return Unlabelled(
        optim.unlabelled, Files(names), per_step, optim.batch_size, len(found) - len(names), everything.hexdigest()[:16], run.seed
    )  # fmt: skip


def images_of_step(optim: Optim) -> int:
    """With labels and without."""
    if optim.unlabelled is None:
        return optim.batch_size
    share = optim.unlabelled_share
    return optim.batch_size + max(1, round(optim.batch_size * share / (1 - share)))
