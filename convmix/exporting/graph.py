"""The module that is exported, and the one trace of it that every format is written from.

images -> [resized] -> [normalised] -> task.deployed(network), in its precision -> task.finished -> named outputs, float32
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from convmix.artifacts.runtime.description import FEATURES
from convmix.data.decode import MODES
from convmix.data.preprocessing import Preprocess
from convmix.data.traced_placement import TracedPlacement
from convmix.errors import ConfigError, first_line
from convmix.exporting.preprocessing import Normalised, Placed
from convmix.models.features import classifier_layers
from convmix.speed.packages import quiet
from convmix.tasks.base import Task

_DTYPES = {"fp32": torch.float32, "int8": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST = 65536  # side of an image: what `Dim` counts with, and more than any camera has


class AsGiven(nn.Module):
    """Normalised images N,C,h,w: nothing is left to do."""

    def forward(self, images: Tensor) -> tuple[Tensor, TracedPlacement | None]:
        return images, None


class Graph(nn.Module):
    """Images -> the named outputs of the task's contract, float32 and int64."""

    def __init__(self, task: Task, model: nn.Module, preprocess: Preprocess, *, bake: str, weights: str, features: bool = False) -> None:
        """features: of a classifier, give what its last layer gets too."""
        super().__init__()
        self.task, self.dtype = task, _DTYPES[weights]
        self.entrance = {"none": lambda: AsGiven(), "normalise": lambda: Normalised(preprocess), "resize": lambda: Placed(preprocess)}[
            bake
        ]()
        self.network = (WithFeatures(model) if features else task.deployed(model)).eval().requires_grad_(False).to(self.dtype)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, frame = self.entrance(images)
        outputs = self.network(x.to(self.dtype))
        outputs = {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()}
        finished = self.task.finished(outputs, frame)
        return finished | {FEATURES: outputs[FEATURES]} if FEATURES in outputs else finished


class WithFeatures(nn.Module):
    """A classifier N,C,H,W -> logits N,k and features N,d: a copy that is not folded, for folding may scale the features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self.classifier = next(iter(classifier_layers(self.network)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        taken: list[Tensor] = []
        layer = self.network.get_submodule(self.classifier)
        hook = layer.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].flatten(1)))
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        return {"logits": logits, FEATURES: taken[0]}


def trace(graph: Graph, preprocess: Preprocess, *, bake: str, dynamic: tuple[str, ...]) -> ExportedProgram:
    """The graph as plain operations of PyTorch; ConfigError where it cannot be for sizes that change.

    dynamic: of batch, height, width, what may differ from call to call; the others are fixed at the preprocessing's size.
    """
    height, width = preprocess.size
    if bake == "resize":
        height, width = height + 13, width + 29  # an example like no input size, so that nothing is taken for fixed
    layout = ("batch", "channels", "height", "width") if bake == "none" else ("batch", "height", "width", "channels")
    lengths = {"batch": 2, "channels": preprocess.in_chans, "height": height, "width": width}
    takes_levels = bake != "none" and preprocess.in_chans in MODES
    example = torch.zeros([lengths[name] for name in layout], dtype=torch.uint8 if takes_levels else torch.float32)
    smallest = 1 if bake == "resize" else _smallest(graph)
    dims = {"batch": Dim("batch", min=1, max=_LARGEST)}
    dims |= {name: Dim(name, min=smallest, max=_LARGEST) for name in ("height", "width")}
    shapes = {axis: dims[name] for axis, name in enumerate(layout) if name in dynamic}
    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            return torch.export.export(graph.eval(), (example,), dynamic_shapes=(shapes,))
    except (torch._dynamo.exc.UserError, ValueError) as error:  # constraints violated: the network fixes a size
        if {"height", "width"} & set(dynamic) and bake != "resize":
            raise ConfigError(f"size: the network cannot be exported for sizes that change ({first_line(error)}); take fixed") from error
        raise


def _smallest(graph: Graph) -> int:
    """The least side of an input whose deepest map is no single pixel: torch.export traces one pixel and many apart."""
    described: list[Any] = [getattr(module, "feature_info", None) for module in graph.network.modules()]
    return 2 * max((int(level["reduction"]) for levels in described if isinstance(levels, list) for level in levels), default=32)
