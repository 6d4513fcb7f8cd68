"""Mixup and CutMix: images of a batch mixed in pairs, with the targets that follow from it.

images N,C,H,W and targets N -> mixed images N,C,H,W and soft targets N,K
images N,C,H,W and labels N,K -> mixed images N,C,H,W and soft labels N,K
Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from convmix.config import Augment
from convmix.data.targets import UNKNOWN


class BatchMix:
    """timm's Mixup as a pure function of its inputs and `seed`.

    timm pairs image i with image N-1-i and takes even batches alone, so the last image of an odd batch stays as it is.
    """

    def __init__(self, augment: Augment, num_classes: int, label_smoothing: float = 0.0) -> None:
        self.active = augment.mix_prob > 0 and (augment.mixup > 0 or augment.cutmix > 0)  # else the loss does the smoothing
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self._mixup = _timm_mixup(augment, num_classes, label_smoothing) if self.active else None

    def __call__(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """N,C,H,W and N class numbers -> a new N,C,H,W and N,K float32 with rows that sum to 1, label smoothing inside."""
        if images.ndim != 4 or targets.shape != images.shape[:1]:
            raise ValueError(f"expected images N,C,H,W and targets N, got {tuple(images.shape)} and {tuple(targets.shape)}")
        soft = self._soft(targets)
        images = images.clone()  # timm mixes in place
        even = len(images) - len(images) % 2
        if self._mixup is not None and even:
            with _numpy_seeded(seed):
                _, soft[:even] = self._mixup(images[:even], targets[:even])
        return images, soft

    def _soft(self, targets: Tensor) -> Tensor:
        off = self.label_smoothing / self.num_classes
        soft = torch.full((len(targets), self.num_classes), off, device=targets.device)
        return soft.scatter_(1, targets[:, None], 1 - self.label_smoothing + off)


class LabelMix:
    """The same for images with several labels each: a label counts as much as the part of the mixed image that has it."""

    def __init__(self, augment: Augment) -> None:
        self.active = augment.mix_prob > 0 and (augment.mixup > 0 or augment.cutmix > 0)
        self.augment = augment

    def __call__(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """N,C,H,W and N,K of 1, 0 and UNKNOWN -> a new N,C,H,W and N,K float32 in 0..1, UNKNOWN where it is of an image that has a part."""
        if images.ndim != 4 or targets.ndim != 2 or len(targets) != len(images):
            raise ValueError(f"expected images N,C,H,W and targets N,K, got {tuple(images.shape)} and {tuple(targets.shape)}")
        images = images.clone()  # timm mixes in place
        shares = torch.eye(len(images), device=images.device)  # N,N: how much of every image is in each
        even = len(images) - len(images) % 2
        if self.active and even:
            with _numpy_seeded(seed):  # every image is a class of its own, so that timm says how much of it is where
                mixup = _timm_mixup(self.augment, even, 0.0)
                _, shares[:even, :even] = mixup(images[:even], torch.arange(even, device=images.device))
        known = (targets != UNKNOWN).float()
        soft = shares @ (targets.float() * known)  # N,K
        return images, torch.where(shares @ (1 - known) > 0, float(UNKNOWN), soft)


def _timm_mixup(augment: Augment, num_classes: int, label_smoothing: float):  # type: ignore[no-untyped-def]
    from timm.data.mixup import Mixup

    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mix_prob,
        switch_prob=augment.mix_switch_prob,
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """timm draws from numpy's global generator; the caller's state comes back."""
    state = np.random.get_state()
    np.random.seed(int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest()))
    try:
        yield
    finally:
        np.random.set_state(state)
