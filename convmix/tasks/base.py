"""What differs between tasks: the network, the loss, what outputs mean, how they are scored.

The training loop, evaluation and prediction know a task only through this contract.

    image, annotation -> `preprocessing` / `training_transform` -> batch -> `forward` -> outputs -> `loss`
                                                                              outputs, targets -> `observe` -> answers -> `metrics`
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from convmix.config import Augment, Dense, Optim, Run
from convmix.data.examples import Examples
from convmix.data.loaders import train_batches
from convmix.data.preprocessing import Loads, Preprocess
from convmix.data.targets import Targets
from convmix.data.traced_placement import TracedPlacement
from convmix.metrics.calibration import Calibration
from convmix.metrics.resampling import Sampled
from convmix.speed.backends import Finish
from convmix.speed.check import LIMITS, Limits
from convmix.tasks.label_calibration import AnyCalibration


class Task(ABC):
    """One kind of prediction over a fixed list of labels."""

    name: ClassVar[str]
    result: ClassVar[type]  # of `results`: what `decode` gives, or a list of
    noun: ClassVar[str]  # what a trained model of it is, with its article
    hub_tag: ClassVar[str]  # the Hub's name of the task
    score_name: ClassVar[str]  # the entry of `metrics` that training maximises on the validation split, 0..1
    score_title: ClassVar[str]  # the same in words
    recipe: ClassVar[str]  # the recipe where none is named
    intervals_are: ClassVar[str] = "Intervals are bootstrapped over the images"  # a sentence's beginning, for the model card
    baselines: ClassVar[tuple[str, ...]] = (  # of timm, beside which `compare` sets our own where nobody names models
        "resnet18", "deit_tiny_patch16_224", "mixer_s16_224", "resmlp_12_224", "convnext_atto",
    )  # fmt: skip
    single_label: ClassVar[bool] = False  # whether an answer is one label of the image, with a probability: `Classes`
    places: ClassVar[bool] = False  # whether answers are places in the image, which move where the image is moved
    engine_limits: ClassVar[Limits] = LIMITS  # what an engine's answers may differ by from the network's own
    opens_in_timm: ClassVar[bool] = False  # whether timm.create_model("local-dir:...") makes the whole network
    counts: ClassVar[bool] = False  # whether `count_correct` says anything
    calibrates: ClassVar[bool] = False  # whether training ends with `calibrate`
    calibratable: ClassVar[bool] = False  # whether `convmix calibrate` may ask for `calibrate` and `certainty`
    pictured: ClassVar[int] = 30  # answers in a run's picture
    finetunes: ClassVar[str | None] = None  # the recipe where none is named and there are weights to start from; None: `recipe`
    whole_input: ClassVar[bool] = False  # whether weights say the size and the geometry of the input too, not its normalisation alone
    compiles: ClassVar[bool] = False  # whether the forward pass of a training step is one graph that torch.compile may take

    def __init__(self, labels: tuple[str, ...], calibration: AnyCalibration | None = None) -> None:
        self.labels = labels
        self.calibration: Any = calibration  # of the kind that the task fits; None: outputs are taken as they are, and every answer is sure

    @classmethod
    def read_calibration(cls, values: object) -> AnyCalibration:
        """What `calibrate` gave, from its `to_dict`; RunError where it is none."""
        return Calibration.from_dict(values)

    # The network

    @abstractmethod
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
        """The network on the backbone `name`; ModelError where that cannot be. What its weights left to say is in `.load_notes`."""

    @abstractmethod
    def start_from(self, model: nn.Module, path: str | Path) -> Sequence[str]:
        """Load a weight file or a model directory into `model`, as far as it goes; what the user should know of it, a line each."""

    @abstractmethod
    def architecture(self, model: nn.Module) -> tuple[str, dict[str, Any]]:
        """The backbone's name and arguments, from which `build` makes the same network again."""

    @abstractmethod
    def macs(self, model: nn.Module, run: Run, shape: tuple[int, int, int]) -> int:
        """Multiply-accumulates for one image C,H,W through `model`, which was built for `run`."""

    # Pixels in

    def preprocessing(self, preprocess: Preprocess) -> Loads:
        """What evaluation and prediction do to an image and its annotation."""
        return preprocess

    @abstractmethod
    def training_transform(self, preprocess: Preprocess, augment: Augment) -> Loads:
        """What training does to them. ConfigError for an augmentation that the task does not have."""

    def trial_targets(self, examples: Examples, transform: Loads, n: int) -> Targets:
        """The targets of a batch of n, for trial steps whose images do not matter."""
        batches = train_batches(examples, transform, batch_size=n, seed=0, epoch=0, workers=0)
        return next(iter(batches)).targets

    # Learning

    @classmethod
    def check_augment(cls, augment: Augment) -> None:
        """ConfigError for an augmentation that the task does not have."""
        return

    @abstractmethod
    def prepare_training(self, optim: Optim, augment: Augment, classes: Tensor) -> None:
        """Set up loss weights and batch mixing from the settings and what is known of all training examples: n classes, or n,k labels."""

    def start_classifier(self, model: nn.Module, classes: Tensor) -> None:  # noqa: B027  # most tasks know nothing of use
        """Let a classifier that nothing has trained begin with what is known before any image is seen; `classes` as above."""

    def augment_batch(self, images: Tensor, targets: Targets, *, seed: int) -> tuple[Tensor, Targets]:
        """Mix a training batch N,C,H,W; a pure function of `seed`."""
        return images, targets

    def forward(self, model: Callable[..., Any], images: Tensor, targets: Targets) -> Any:
        """The forward pass of a training step, under autocast."""
        return model(images)

    @abstractmethod
    def loss(self, outputs: Any, targets: Targets) -> Tensor:
        """Mean training loss of a batch, a scalar."""

    def count_correct(self, outputs: Any, targets: Targets) -> Tensor:
        """How many images of a training batch are right, a scalar; what the progress bar shows where the task `counts`."""
        return torch.zeros(())

    # Answers

    @abstractmethod
    def observe(self, outputs: Any, targets: Targets) -> Any:
        """What is kept of a batch's outputs, on the CPU: a tensor or a list with a row per image."""

    @abstractmethod
    def metrics(self, answers: Any, targets: Targets, *, intervals: bool = True) -> dict[str, Any]:
        """Scores of a whole split, from what `observe` gave, as JSON values, `score_name` and n among them.

        intervals: also those that are costly, a bootstrap over the images.
        """

    @abstractmethod
    def sampled(self, answers: Any, targets: Targets) -> Sampled:
        """`score_name` of any part of the images, from what `observe` gave; for what is scored group by group."""

    @abstractmethod
    def decode(self, outputs: Any, *, threshold: float | None = None) -> Any:
        """Raw outputs as the task's type in `results.py`, calibrated; `threshold` (0..1) stands in for the calibration's own."""

    def everything(self, outputs: Any) -> Any:
        """The same however unsure, for those who compare answers: nothing is left out."""
        return self.decode(outputs, threshold=0.0)

    @abstractmethod
    def summary(self, scores: Mapping[str, Any]) -> dict[str, str]:
        """Of a split's scores what people read first, as title -> text."""

    def sentence(self, scores: Mapping[str, Any]) -> str:
        """The same on one line."""
        return ", ".join(f"{title} {text}" for title, text in self.summary(scores).items() if text != "-") + f", {scores['n']} images"

    @abstractmethod
    def picture(self, examples: Examples, preprocess: Preprocess, inputs: Tensor, answers: Any, targets: Targets, *, title: str) -> bytes:
        """A PNG of a few answers beside the truth. inputs: N,C,H,W as the model gets them, of `examples`, in their order."""

    def calibrate(self, outputs: Any, targets: Targets, *, split: str) -> AnyCalibration | None:
        """A calibration fitted on the raw outputs of a split, `split` being its name; None where the task has none."""
        return None

    def certainty(self, outputs: Any, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """How probable each answer is said to be, float64 0..1, and whether it is right: n each. Only for tasks that `calibrate`."""
        raise NotImplementedError(f"{self.name} has no calibration")

    # In faster engines: what `optimize` tries

    def engine_part(self, model: nn.Module) -> nn.Module:
        """What engines compute of the network: N,C,H,W -> a tensor with N rows, or several."""
        return model

    def engine_finish(self, model: nn.Module) -> Finish | None:
        """What makes the network's own outputs of them, with the height and width of the images; None: they are the network's own."""
        return None

    # Leaving Python: what `export` writes

    @abstractmethod
    def deployed(self, model: nn.Module) -> nn.Module:
        """The network in evaluation as a module N,C,H,W -> dict of tensors with N rows, whose shapes do not depend on what the images show.

        Without branches on values, so that it can be traced for any N; folded where the architecture can be.
        """

    @abstractmethod
    def finished(self, outputs: dict[str, Tensor], frame: TracedPlacement | None) -> dict[str, Tensor]:
        """Inside the exported graph: what `deployed` gives, made ready for programs that know nothing of convmix.

        frame: where the image lies on the input, where the graph itself has put it there; answers are then in the image's own pixels.
        The entries of `outputs` that `observed_from` asks for stay among the result; boxes alone are other numbers then, which whoever
        reads the graph's outputs brings back to the input first.
        """

    @abstractmethod
    def observed_from(self, outputs: Mapping[str, Tensor]) -> Any:
        """What an exported model gave for a batch, as the network's own outputs: what `observe` takes."""

    def explained(self, model: nn.Module) -> nn.Module:
        """A module N,C,H,W -> N,k, the evidence for every class in the whole image, that attributions can differentiate."""
        return model

    def thresholds_by_label(self) -> dict[str, float] | None:
        """From which probability on each label is said; None where one answer excludes the others."""
        return None

    def shown(self, shares: Tensor) -> Sequence[int]:
        """The columns of k evidence shares that an explanation is about where nobody asks for others, the first one above all."""
        return [int(shares.argmax())]

    @abstractmethod
    def evidence_shares(self, evidence: Tensor) -> Tensor:
        """Evidence N,k as how sure the model is of each class, 0..1."""
