"""Several labels for one image, or none: a sigmoid per label, each with a threshold of its own.

images -> network -> logits N,k -> binary cross-entropy or asymmetric loss against N,k of 1, 0 and UNKNOWN       a training step
logits -> slope and offset per label -> probabilities -> thresholds -> ImageLabels                               an answer
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convmix.config import Augment, Optim
from convmix.data.augment.mixing import LabelMix
from convmix.data.examples import Examples
from convmix.data.preprocessing import Loads, Preprocess
from convmix.data.targets import UNKNOWN, Targets, as_batch
from convmix.data.traced_placement import TracedPlacement
from convmix.metrics.resampling import Sampled
from convmix.results import ImageLabels
from convmix.tasks.classify import Classify
from convmix.tasks.label_calibration import UNDECIDED, AnyCalibration, LabelCalibration, calibrate_labels
from convmix.tasks.label_losses import Asymmetric, label_loss
from convmix.tasks.label_metrics import Judged, multilabel_metrics
from convmix.tasks.label_picture import labels_picture


class Multilabel(Classify):
    """A classifier's network whose outputs are questions of their own."""

    name = "multilabel"
    result = ImageLabels  # type: ignore[assignment]
    noun = "A multi-label image classifier"
    score_name = "map"
    recipe = "multilabel"
    score_title = "mean AP"
    intervals_are = "Intervals are bootstrapped over the images"
    counts = False
    single_label = False

    def __init__(self, labels: tuple[str, ...], calibration: AnyCalibration | None = None) -> None:
        super().__init__(labels)
        self.calibration = calibration
        self.label_mix: LabelMix | None = None
        self.asymmetric: Asymmetric | None = None
        self.wanted_precision: float | None = None

    @classmethod
    def read_calibration(cls, values: object) -> LabelCalibration:
        return LabelCalibration.from_dict(values)

    def trial_targets(self, examples: Examples, transform: Loads, n: int) -> Targets:
        return as_batch([examples.annotation(i) for i in range(min(n, len(examples)))])

    def prepare_training(self, optim: Optim, augment: Augment, classes: Tensor) -> None:
        self.label_smoothing = optim.label_smoothing
        self.label_mix = LabelMix(augment)
        self.wanted_precision = optim.label_precision
        if optim.label_loss == "asymmetric":
            self.asymmetric = Asymmetric(optim.gamma_positive, optim.gamma_negative, optim.negative_margin)
        if optim.class_weights == "balanced":
            yes, no = (classes == 1).sum(0), (classes == 0).sum(0)
            self.class_weights = no.clamp(min=1).float() / yes.clamp(min=1).float()  # k

    def start_classifier(self, model: nn.Module, classes: Tensor) -> None:
        """Biases from which every label's probability is its frequency (Lin et al. 2017, Focal Loss, arXiv 1708.02002, section 3.3), or
        else many steps go into learning them.
        """
        classifier: Any = model.get_classifier()  # type: ignore[operator]  # timm's contract
        bias = getattr(classifier, "bias", None)
        if isinstance(bias, Tensor) and len(bias) == classes.shape[1]:
            yes, known = (classes == 1).sum(0).double(), (classes != UNKNOWN).sum(0)
            with torch.no_grad():
                bias.copy_(((yes + 1) / (known + 2)).logit())  # one more of either: finite for labels that all images have, or none

    def augment_batch(self, images: Tensor, targets: Targets, *, seed: int) -> tuple[Tensor, Targets]:
        if self.label_mix is None or not self.label_mix.active:
            return images, targets
        return self.label_mix(images, _labels(targets), seed=seed)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        return label_loss(
            outputs, _labels(targets), asymmetric=self.asymmetric, positive_weights=self.class_weights, smoothing=self.label_smoothing
        )

    def count_correct(self, outputs: Tensor, targets: Targets) -> Tensor:
        return torch.zeros(())

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Logits n,k -> n,k in 0..1, calibrated where the task is."""
        found: Tensor = outputs.float().sigmoid() if self.calibration is None else self.calibration.apply(outputs)
        return found

    @property
    def thresholds(self) -> Tensor:
        """From which probability on each label is said, k float64."""
        own = (UNDECIDED,) * len(self.labels) if self.calibration is None else self.calibration.thresholds
        return torch.tensor(own, dtype=torch.float64)

    def metrics(self, answers: Tensor, targets: Targets, *, intervals: bool = True) -> dict[str, Any]:
        return multilabel_metrics(self._judged(answers, targets), self.labels, intervals=intervals)

    def sampled(self, answers: Tensor, targets: Targets) -> Sampled:
        judged = self._judged(answers, targets)
        return Sampled(len(answers), lambda weights: judged.scores(weights)[self.score_name])

    def _judged(self, answers: Tensor, targets: Targets) -> Judged:
        return Judged(self.probabilities(answers).double().numpy(), _labels(targets).numpy(), self.thresholds.numpy())

    def decode(self, outputs: Tensor, *, threshold: float | None = None) -> list[ImageLabels]:  # type: ignore[override]  # an answer each
        thresholds = self.thresholds if threshold is None else torch.full((len(self.labels),), threshold, dtype=torch.float64)
        return [ImageLabels(row, thresholds, self.labels) for row in self.probabilities(outputs)]

    def everything(self, outputs: Tensor) -> list[ImageLabels]:
        return self.decode(outputs)  # holds every label, with the thresholds that belong to it

    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        names = {"map": "mean AP", "micro_f1": "micro F1", "macro_f1": "macro F1", "subset_accuracy": "all labels right"}
        return {title: _with_interval(scores, name) for name, title in names.items()}

    def sentence(self, scores: Mapping[str, Any]) -> str:
        return ", ".join(f"{title} {text}" for title, text in self.summary(scores).items()) + f", {scores['n']} images"

    def picture(
        self, examples: Examples, preprocess: Preprocess, inputs: Tensor, answers: Tensor, targets: Targets, *, title: str
    ) -> bytes:
        known = _labels(targets)
        true = [tuple(self.labels[c] for c in torch.nonzero(row == 1)[:, 0].tolist()) for row in known]
        open_ = [tuple(self.labels[c] for c in torch.nonzero(row == UNKNOWN)[:, 0].tolist()) for row in known]
        shown = preprocess.denormalise(inputs).numpy()  # n,C,H,W uint8
        return labels_picture(shown, [answer.said() for answer in self.decode(answers)], true, open_, title=title)

    def calibrate(self, outputs: Tensor, targets: Targets, *, split: str) -> Any:
        return calibrate_labels(outputs, _labels(targets), split=split, precision=self.wanted_precision)

    def finished(self, outputs: dict[str, Tensor], frame: TracedPlacement | None) -> dict[str, Tensor]:
        return {"logits": outputs["logits"], "probabilities": self.probabilities(outputs["logits"])}

    def thresholds_by_label(self) -> dict[str, float]:
        return dict(zip(self.labels, self.thresholds.tolist(), strict=True))

    def shown(self, shares: Tensor) -> Sequence[int]:
        said = torch.nonzero(shares.double() >= self.thresholds)[:, 0]
        ranked: list[int] = said[shares[said].argsort(descending=True)].tolist()
        return ranked or super().shown(shares)

    def evidence_shares(self, evidence: Tensor) -> Tensor:
        return self.probabilities(evidence)

    def certainty(self, outputs: Tensor, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """Of every known label of every image: the probability of what is said about it, and whether that is right."""
        known, p = _labels(targets) != UNKNOWN, self.probabilities(outputs).double()
        said = p >= self.thresholds
        right = said == (_labels(targets) == 1)
        return torch.where(said, p, 1 - p)[known].numpy(), right[known].numpy()


def _labels(targets: Targets) -> Tensor:
    """N,k: 1, 0 or UNKNOWN, or parts of 1 where batches are mixed."""
    if not isinstance(targets, Tensor) or targets.ndim != 2:
        raise TypeError(f"targets are {type(targets).__name__}, expected a tensor N,k of labels")
    return targets


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    value, interval = scores.get(name), scores.get(f"{name}_interval")
    if value is None:
        return "-"
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * value:.1f} %{ends}"
