"""Classification: one label per image, cross-entropy over hard or mixed targets."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convmix.calibration import Calibration, calibrate_logits
from convmix.config import Augment, Optim
from convmix.data.mixing import BatchMix
from convmix.metrics import classification_metrics
from convmix.results import Classes
from convmix.tasks.base import Task


class Classify(Task):
    """Logits N,k against class indices N, or against soft targets N,k where batches are mixed."""

    name = "classify"
    score_name = "accuracy"

    def __init__(self, labels: tuple[str, ...], calibration: Calibration | None = None) -> None:
        super().__init__(labels, calibration)
        self.mix: BatchMix | None = None
        self.class_weights: Tensor | None = None
        self.label_smoothing = 0.0

    def prepare_training(self, optim: Optim, augment: Augment, targets: Tensor) -> None:
        self.label_smoothing = optim.label_smoothing
        self.mix = BatchMix(augment, num_classes=len(self.labels), label_smoothing=optim.label_smoothing)
        if optim.class_weights == "balanced":
            counts = torch.bincount(targets, minlength=len(self.labels)).clamp(min=1).float()
            self.class_weights = counts.sum() / (len(counts) * counts)  # k

    def augment_batch(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        if self.mix is None or not self.mix.active:
            return images, targets
        return self.mix(images, targets, seed=seed)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        smoothing = self.label_smoothing if targets.ndim == 1 else 0.0  # mixed targets carry their smoothing already
        return F.cross_entropy(outputs.float(), targets, weight=weights, label_smoothing=smoothing)

    def count_correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        hard = targets if targets.ndim == 1 else targets.argmax(1)
        return (outputs.argmax(1) == hard).sum()

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        return classification_metrics(outputs, targets, self.labels)

    def decode(self, outputs: Tensor, *, threshold: float | None = None) -> Classes:
        c = self.calibration
        probabilities = outputs.float().softmax(1) if c is None else c.apply(outputs)
        return Classes(probabilities, self.labels, c.threshold if threshold is None and c is not None else threshold)

    def calibrate(self, outputs: Tensor, targets: Tensor, *, split: str) -> Calibration:
        return calibrate_logits(outputs, targets, split=split)

    def certainty(self, outputs: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
        confidence, predicted = self.decode(outputs).probabilities.max(1)
        return confidence.double().numpy(), (predicted == targets).numpy()
