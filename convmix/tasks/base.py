"""What differs between tasks: the loss, what outputs mean, how they are scored.

The training loop, evaluation and prediction know a task only through this contract.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from convmix.calibration import Calibration
from convmix.config import Augment, Optim


class Task(ABC):
    """One kind of prediction over a fixed list of labels."""

    name: ClassVar[str]
    score_name: ClassVar[str]  # the entry of `metrics` that training maximises on the validation split

    def __init__(self, labels: tuple[str, ...], calibration: Calibration | None = None) -> None:
        self.labels = labels
        self.calibration = calibration  # None: outputs are taken as they are, and every answer is sure

    @abstractmethod
    def prepare_training(self, optim: Optim, augment: Augment, targets: Tensor) -> None:
        """Set up loss weights and batch mixing from the settings and all training targets (n)."""

    @abstractmethod
    def augment_batch(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Mix a training batch N,C,H,W; a pure function of `seed`."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean training loss of a batch, a scalar."""

    @abstractmethod
    def count_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How many images of a training batch are right, a scalar; what the progress bar shows."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        """Scores of a whole split as JSON values, `score_name` among them."""

    @abstractmethod
    def decode(self, outputs: Tensor, *, threshold: float | None = None) -> Any:
        """Raw outputs as the task's type in `results.py`, calibrated; `threshold` (0..1) stands in for the calibration's own."""

    def calibrate(self, outputs: Tensor, targets: Tensor, *, split: str) -> Calibration | None:
        """A calibration fitted on the raw outputs of a split, `split` being its name; None where the task has none."""
        return None

    def certainty(self, outputs: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """How probable each answer is said to be, float64 0..1, and whether it is right: n each. Only for tasks that `calibrate`."""
        raise NotImplementedError(f"{self.name} has no calibration")
