"""What the front process gives a worker: light, so that reading it imports no network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageMessage:
    """One image, and what is asked of it."""

    data: bytes  # encoded
    name: str
    top: int
    threshold: float | None
    nearest: int = 0  # training images to be named


@dataclass(frozen=True)
class ExplainMessage:
    """One image, and what is to be shown in it."""

    data: bytes  # encoded
    method: str  # of `explanation.methods.NAMES`
    label: str | None  # None: the one that the model finds most probable
