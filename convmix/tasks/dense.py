"""What the dense tasks share: a network on a pyramid of a backbone's features, and targets that move with the image.

backbone -> maps at strides 4 to 32 (one stride for isotropic backbones) -> pyramid -> heads
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from convmix.config import Augment, Dense, Optim, Run
from convmix.data.decode import viewable
from convmix.data.dense import DensePreprocess, DenseTransform, check_augment
from convmix.data.examples import Examples
from convmix.data.preprocessing import Loads, Preprocess
from convmix.data.targets import Targets
from convmix.errors import ConfigError, ModelError
from convmix.models.macs import macs_of
from convmix.speed.backends import Finish, Outputs
from convmix.tasks.base import Task
from convmix.tasks.mmlab import is_mmlab, load_mmlab
from convmix.tasks.pyramid import DenseBackbone, DenseNetwork


class DenseTask(Task):
    """Abstract: a task gives its `network`, whether it learns `masks`, and the rest of the contract."""

    strides: ClassVar[tuple[int, ...]]  # of the backbone's maps, where it has several
    learns_masks: ClassVar[bool] = False
    pictured = 8
    places = True
    baselines = ("resnet18", "convnext_atto")  # those with a map at every stride

    @abstractmethod
    def network(self, backbone: DenseBackbone, dense: Dense) -> DenseNetwork:
        """Pyramid and heads on the backbone."""

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
        if dropout:
            raise ModelError(f"dropout {dropout:g} is for classifiers; the heads of the task {self.name} take none, leave it out")
        backbone = DenseBackbone(
            name, in_chans=in_chans, taps=dense.taps, strides=self.strides, pretrained=pretrained, drop_path=drop_path,
            model_args=model_args,
        )  # fmt: skip
        return self.network(backbone, dense)

    def start_from(self, model: nn.Module, path: str | Path) -> Sequence[str]:
        """A published detector or segmenter, whole; or a classifier's weights, into the backbone."""
        network = cast(DenseNetwork, model)
        if is_mmlab(path):
            return load_mmlab(network, path)
        return (*network.backbone.start_from(path), "pyramid and heads start at random")

    def architecture(self, model: nn.Module) -> tuple[str, dict[str, Any]]:
        backbone = cast(DenseNetwork, model).backbone
        return backbone.name, dict(backbone.model_args)

    def macs(self, model: nn.Module, run: Run, shape: tuple[int, int, int]) -> int:
        """Of an image in which nothing is found; counted, since pyramids and heads have no closed form."""
        return macs_of(copy.deepcopy(model).cpu().eval(), torch.zeros(1, *shape))

    def preprocessing(self, preprocess: Preprocess) -> Loads:
        return DensePreprocess(preprocess)

    def training_transform(self, preprocess: Preprocess, augment: Augment) -> Loads:
        check_augment(augment)
        return DenseTransform(preprocess, augment, masks=self.learns_masks)

    @classmethod
    def check_augment(cls, augment: Augment) -> None:
        check_augment(augment)

    def prepare_training(self, optim: Optim, augment: Augment, classes: Tensor) -> None:
        check_augment(augment)
        if optim.label_smoothing:
            raise ConfigError(f"optim.label_smoothing: {optim.label_smoothing} is for classification; leave it at 0 for {self.name}")
        if optim.class_weights != "none":
            raise ConfigError(f"optim.class_weights: {optim.class_weights} is for classification; leave it at none for {self.name}")

    def engine_part(self, model: nn.Module) -> nn.Module:
        return Trunk(cast(DenseNetwork, model))

    def engine_finish(self, model: nn.Module) -> Finish:
        return cast(DenseNetwork, model).finish

    def explained(self, model: nn.Module) -> nn.Module:
        return Evidence(model, self)

    @abstractmethod
    def evidence(self, model: nn.Module, images: Tensor) -> Tensor:
        """How strongly each class is seen anywhere in an image, before any choice: N,C,H,W -> N,k logits, differentiable."""


def frozen(model: nn.Module) -> nn.Module:
    """A copy for exporters: in evaluation, in float32, and without gradients, for which alone our own operators are taken."""
    return copy.deepcopy(model).eval().float().requires_grad_(False)


class Trunk(nn.Module):
    """Of a dense network what is the same work for every image: N,C,H,W -> a tensor with N rows, or several."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Outputs:
        return self.network.trunk(images)


class Evidence(nn.Module):
    """A dense network as a classifier: what attributions ask."""

    def __init__(self, model: nn.Module, task: DenseTask) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor) -> Tensor:
        return self.task.evidence(self.model, images)


def share(value: float | None) -> str:
    """A score for people."""
    return "-" if value is None else f"{100 * value:.1f} %"


def with_interval(scores: Mapping[str, Any], name: str) -> str:
    """'63.1 % (58.0 to 67.9)', the interval where there is one."""
    interval = scores.get(f"{name}_interval")
    between = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return share(scores.get(name)) + between


def beside_truth(
    examples: Examples, preprocess: Preprocess, targets: Targets, answers: Sequence[Any]
) -> Iterator[tuple[str, np.ndarray, Any, Any]]:
    """Name, whole image H,W,3 uint8, annotation and answer of every example, for pictures."""
    for i, (truth, answer) in enumerate(zip(targets, answers, strict=True)):
        image = viewable(
            examples.source(i), size=truth.placement.size, max_pixels=preprocess.max_pixels, value_range=preprocess.value_range
        )
        yield examples.name(i), image, truth.annotation, answer
