"""Classification: one label per image, cross-entropy over hard or mixed targets."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convmix.config import Augment, Dense, Optim, Run, model_arguments
from convmix.data.augment.mixing import BatchMix
from convmix.data.augment.training_transform import training_transform
from convmix.data.examples import Examples
from convmix.data.preprocessing import Loads, Preprocess
from convmix.data.targets import Targets
from convmix.data.traced_placement import TracedPlacement
from convmix.errors import ModelError
from convmix.metrics.calibration import Calibration, calibrate_logits
from convmix.metrics.classification import classification_metrics
from convmix.metrics.resampling import Sampled
from convmix.models import catalog, weights
from convmix.models.describe import count_macs
from convmix.plots.curves import predictions_picture
from convmix.results import Classes
from convmix.speed.fold import fold
from convmix.tasks.base import Task


class Classify(Task):
    """Logits N,k against class indices N, or against soft targets N,k where batches are mixed."""

    name = "classify"
    result = Classes
    noun = "An image classifier"
    hub_tag = "image-classification"
    score_name = "accuracy"
    score_title = "accuracy"
    recipe = "default"
    intervals_are = "Intervals are Wilson's"
    opens_in_timm = True
    counts = True
    calibrates = True
    calibratable = True
    single_label = True
    compiles = True
    finetunes = "finetune"
    whole_input = True

    def __init__(self, labels: tuple[str, ...], calibration: Calibration | None = None) -> None:
        super().__init__(labels, calibration)
        self.mix: BatchMix | None = None
        self.class_weights: Tensor | None = None
        self.label_smoothing = 0.0

    def build(
        self,
        name: str,
        *,
        in_chans: int,
        dense: Dense,
        pretrained: bool = False,
        drop_path: float | None = None,
        dropout: float = 0.0,
        model_args: Mapping[str, object] | None = None,
    ) -> nn.Module:
        return catalog.create_model(
            name, num_classes=len(self.labels), in_chans=in_chans, pretrained=pretrained, drop_path=drop_path, dropout=dropout,
            model_args=model_args,
        )  # fmt: skip

    def start_from(self, model: nn.Module, path: str | Path) -> Sequence[str]:
        return weights.load_weights(model, path).notes

    def architecture(self, model: nn.Module) -> tuple[str, dict[str, Any]]:
        return catalog.timm_config(model)

    def macs(self, model: nn.Module, run: Run, shape: tuple[int, int, int]) -> int:
        in_chans, *size = shape
        return count_macs(
            run.model, size=(size[0], size[1]), num_classes=len(self.labels), in_chans=in_chans, model_args=model_arguments(run.net)
        )

    def training_transform(self, preprocess: Preprocess, augment: Augment) -> Loads:
        return training_transform(preprocess, augment)

    def trial_targets(self, examples: Examples, transform: Loads, n: int) -> Targets:
        return torch.as_tensor(examples.labels[:n])

    def prepare_training(self, optim: Optim, augment: Augment, classes: Tensor) -> None:
        self.label_smoothing = optim.label_smoothing
        self.mix = BatchMix(augment, num_classes=len(self.labels), label_smoothing=optim.label_smoothing)
        if optim.class_weights == "balanced":
            counts = torch.bincount(classes, minlength=len(self.labels)).clamp(min=1).float()
            self.class_weights = counts.sum() / (len(counts) * counts)  # k

    def augment_batch(self, images: Tensor, targets: Targets, *, seed: int) -> tuple[Tensor, Targets]:
        if self.mix is None or not self.mix.active:
            return images, targets
        return self.mix(images, _classes(targets), seed=seed)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        wanted = _classes(targets)
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        smoothing = self.label_smoothing if wanted.ndim == 1 else 0.0  # mixed targets carry their smoothing already
        return F.cross_entropy(outputs.float(), wanted, weight=weights, label_smoothing=smoothing)

    def count_correct(self, outputs: Tensor, targets: Targets) -> Tensor:
        wanted = _classes(targets)
        hard = wanted if wanted.ndim == 1 else wanted.argmax(1)
        return (outputs.detach().argmax(1) == hard).sum()

    def observe(self, outputs: Tensor, targets: Targets) -> Tensor:
        return outputs.float().cpu()

    def metrics(self, answers: Tensor, targets: Targets, *, intervals: bool = True) -> dict[str, Any]:
        return classification_metrics(answers, _classes(targets), self.labels)

    def sampled(self, answers: Tensor, targets: Targets) -> Sampled:
        return Sampled.share((answers.argmax(1) == _classes(targets)).numpy())

    def decode(self, outputs: Tensor, *, threshold: float | None = None) -> Classes:
        c = self.calibration
        probabilities = outputs.float().softmax(1) if c is None else c.apply(outputs)
        return Classes(probabilities, self.labels, c.threshold if threshold is None and c is not None else threshold)

    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        low, high = scores["accuracy_interval"]
        return {
            "accuracy": _percent(scores["accuracy"]),
            "95 % interval": f"{_percent(low)} to {_percent(high)}",
            "top-5 accuracy": _percent(scores["top5"]) if "top5" in scores and len(self.labels) > 5 else "-",
            "loss (nats)": f"{scores['loss']:.4f}",
        }

    def sentence(self, scores: Mapping[str, Any]) -> str:
        low, high = scores["accuracy_interval"]
        share = f"accuracy {scores['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}"
        return f"{share}, {scores['correct']} of {scores['n']} images"

    def picture(
        self, examples: Examples, preprocess: Preprocess, inputs: Tensor, answers: Tensor, targets: Targets, *, title: str
    ) -> bytes:
        probabilities, predicted = self.decode(answers).probabilities.max(1)
        shown = preprocess.denormalise(inputs)  # n,C,H,W uint8
        return predictions_picture(shown, _classes(targets), predicted, probabilities, self.labels, title=title)

    def calibrate(self, outputs: Tensor, targets: Targets, *, split: str) -> Calibration:
        return calibrate_logits(outputs, _classes(targets), split=split)

    def deployed(self, model: nn.Module) -> nn.Module:
        return Logits(model)

    def finished(self, outputs: dict[str, Tensor], frame: TracedPlacement | None) -> dict[str, Tensor]:
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return {"logits": outputs["logits"], "probabilities": (outputs["logits"] / temperature).softmax(1)}

    def observed_from(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["logits"]

    def evidence_shares(self, evidence: Tensor) -> Tensor:
        return self.decode(evidence).probabilities

    def certainty(self, outputs: Tensor, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        confidence, predicted = self.decode(outputs).probabilities.max(1)
        return confidence.double().numpy(), (predicted == _classes(targets)).numpy()


class Logits(nn.Module):
    """A classifier's network for other programs: N,C,H,W -> logits N,k; a copy, folded where its architecture can be."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        try:
            self.network: nn.Module = fold(model)
        except ModelError:
            self.network = copy.deepcopy(model).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(images)}


def _classes(targets: Targets) -> Tensor:
    """N class indices, or N,k shares of classes."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets are {type(targets).__name__}, expected a tensor of classes")
    return targets


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
