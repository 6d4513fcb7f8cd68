"""What a network knows of an image before its classifier: the features that the classifier's layers get.

    images -> network -> what enters every layer of the classifier -> n,v,d: images, fixed views, numbers

Works for every classifier that ends in linear layers, ours and timm's: the input of those layers is taken where it enters, so pooling,
norms and hidden layers in front of them are the network's own. A view is a fixed change of the image at the input size: as it is
evaluated, mirrored, and a part of it enlarged.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convmix.data.loaders import Batch
from convmix.errors import ModelError
from convmix.hardware import autocast

VIEWS = ("plain", "mirrored", "upper left", "lower right, mirrored")  # the first n are taken
PART = 0.8  # side of an enlarged part, as a share of the image's


@dataclass(frozen=True)
class Features:
    """Of n images, for every layer of the classifier."""

    layers: dict[str, Tensor]  # name of the layer -> n,v,d float32 on the CPU
    labels: Tensor  # n int64
    indices: Tensor  # n int64, positions in the split
    bad: tuple[tuple[int, str], ...]  # (position, reason) of images that could not be read

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def main(self) -> Tensor:
        """n,d: the plain view, at the layer that all of the network's answer goes through, or the first of several."""
        return next(iter(self.layers.values()))[:, 0]


def classifier_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that give the logits, by name: one, or two in distilled transformers; none where the classifier is another thing."""
    get, classes = getattr(model, "get_classifier", None), getattr(model, "num_classes", 0)
    if get is None or not classes:
        return {}
    found = get()
    modules = found if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    inside = {id(m) for module in modules if isinstance(module, nn.Module) for m in module.modules()}
    return {name: m for name, m in model.named_modules() if id(m) in inside and _gives_logits(m, classes)}


def gives_features(model: nn.Module) -> bool:
    """Whether `watched` finds a place where they pass."""
    return bool(_doors_of(model))


def _doors_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose input they are, by name; of an exported model, whose layers nobody sees, the place that it sends them through."""
    door = getattr(model, "features_door", None)
    return {"features": door} if isinstance(door, nn.Module) else dict(classifier_layers(model))


def _gives_logits(module: nn.Module, classes: int) -> bool:
    if isinstance(module, nn.Linear):
        return module.out_features == classes
    return isinstance(module, nn.Conv2d) and module.out_channels == classes and module.kernel_size == (1, 1) and module.groups == 1


@dataclass
class Doors:
    """What went into the layers, pass by pass."""

    taken: dict[str, list[Tensor]] = field(default_factory=dict)  # name of the layer -> B,d float32 each, on the CPU

    def main(self) -> Tensor:
        """n,d: of all passes, at the first layer."""
        return torch.cat(next(iter(self.taken.values())))


@contextmanager
def watched(model: nn.Module) -> Iterator[Doors]:
    """Inside, the inputs of the classifier's layers are kept; ModelError where there are no such layers."""
    doors = Doors()
    layers = _doors_of(model)
    if not layers:
        raise ModelError(f"{type(model).__name__} does not end in a linear classifier, so it has no features to take")

    def keeper(name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            doors.taken.setdefault(name, []).append(inputs[0].detach().float().flatten(1).cpu())  # of a convolution B,d,1,1 -> B,d

        return keep

    hooks = [layer.register_forward_pre_hook(keeper(name)) for name, layer in layers.items()]
    try:
        yield doors
    finally:
        for hook in hooks:
            hook.remove()


def extract(model: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str = "fp32", views: int = 1) -> Features:
    """The features of every image of `batches`, in evaluation and without gradients; the training mode is restored.

    Raises ModelError where the model does not end in a linear classifier.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {}
    labels, indices = [], []
    bad: list[tuple[int, str]] = []
    try:
        with watched(model) as doors, torch.inference_mode(), autocast(precision, device):
            for batch in batches:
                bad += batch.bad
                if not len(batch.images):
                    continue
                images = batch.images.to(device)
                doors.taken.clear()
                for view in VIEWS[:views]:
                    model(seen(images, view))
                for name, of_views in doors.taken.items():
                    parts.setdefault(name, []).append(torch.stack(of_views, 1))  # B,v,d
                labels.append(torch.as_tensor(batch.targets) if isinstance(batch.targets, Tensor) else torch.full((len(batch),), -1))
                indices.append(batch.indices)
    finally:
        model.train(was_training)
    nothing = torch.empty(0, dtype=torch.int64)
    return Features(
        {name: torch.cat(some) for name, some in parts.items()}, torch.cat(labels) if labels else nothing,
        torch.cat(indices) if indices else nothing, tuple(bad),
    )  # fmt: skip


def seen(images: Tensor, view: str) -> Tensor:
    """N,C,H,W in one of `VIEWS`, of the same shape."""
    if view == "plain":
        return images
    if view == "mirrored":
        return images.flip(-1)
    height, width = images.shape[-2:]
    h, w = max(1, round(PART * height)), max(1, round(PART * width))
    part = images[..., :h, :w] if view == "upper left" else images[..., -h:, -w:].flip(-1)
    return F.interpolate(part, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def joined(parts: Iterable[Features]) -> Features:
    """Those of several processes as one, in the order of the split."""
    some = [p for p in parts if len(p)]
    bad = tuple(row for p in parts for row in p.bad)
    if not some:
        nothing = torch.empty(0, dtype=torch.int64)
        return Features({}, nothing, nothing, bad)
    order = torch.cat([p.indices for p in some]).argsort()
    layers = {name: torch.cat([p.layers[name] for p in some])[order] for name in some[0].layers}
    return Features(layers, torch.cat([p.labels for p in some])[order], torch.cat([p.indices for p in some])[order], bad)
