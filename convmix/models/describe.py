"""What a model costs and sees, before anything is trained: counted on torch's meta device, so no arithmetic is done and nothing is loaded.

name -> model without storage -> parameters, MACs, receptive field, stages, memory of a training step; published results beside them
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from convmix.config import Size
from convmix.errors import ModelError, first_line
from convmix.models import catalog
from convmix.models.macs import macs_of
from convmix.models.meta_shapes import QuickShapes
from convmix.models.published import PUBLISHED, Published
from convmix.models.receptive import features_of, receptive_field

FLOAT_BYTES = 4
_ADAM_COPIES = 4  # weights, gradients and Adam's two moments


@dataclass(frozen=True)
class Stage:
    """One feature map that the model offers to detection and segmentation."""

    name: str
    channels: int
    height: int
    width: int
    reduction: int  # input pixels per unit


@dataclass(frozen=True)
class Description:
    """A model at one input size; nothing here is a measurement of speed or accuracy."""

    name: str
    size: Size
    in_chans: int
    num_classes: int
    parameters: int
    macs: int  # multiply-accumulates of one image: convolutions (depthwise too), linear layers, attention's products
    receptive_field: int | None  # side in pixels, may exceed the image; None: not known for this architecture
    stages: tuple[Stage, ...]
    weight_bytes: int  # parameters and buffers in float32
    training_bytes: int  # weights, gradients, Adam's moments and buffers in float32, whatever the batch size
    activation_bytes: int  # per image: what autograd keeps for the backward pass, in float32
    published: Published | None  # what others reported for their weights

    def memory(self, batch_size: int) -> int:
        """Bytes of one float32 Adam step; the allocator, convolution workspaces and the optimiser's scratch come on top."""
        return self.training_bytes + batch_size * self.activation_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Label and text, line by line, for a table."""
        h, w = self.size
        rows = [
            ("model", self.name),
            ("input", f"{self.in_chans} x {h} x {w}, {self.num_classes} classes"),
            ("parameters", f"{self.parameters:,}"),
            ("MACs", f"{self.macs:,} ({self.macs / 1e9:.3g} G)"),
            ("receptive field", self._receptive_text()),
        ]
        for label, stages in _runs_of_equal(self.stages):
            s = stages[0]
            rows.append((f"features {label}", f"{s.channels} x {s.height} x {s.width}, stride {s.reduction}"))
        rows += [
            ("weights", f"{_mib(self.weight_bytes)} in float32"),
            ("training memory", f"{_mib(self.training_bytes)} + {_mib(self.activation_bytes)} per image: estimate for float32 and Adam"),
            ("", "weights, gradients, moments + activations kept for backward; without workspaces and the allocator's reserve"),
        ]
        if self.published:
            p = self.published
            top5 = f", top-5 {p.top5:g} %" if p.top5 is not None else ""
            rows.append(("published accuracy", f"top-1 {p.top1:g} %{top5} (published, not measured here: {p.source})"))
        return rows

    def __str__(self) -> str:
        rows = self.to_rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)

    def _receptive_text(self) -> str:
        if self.receptive_field is None:
            return "not known for this architecture"
        h, w = self.size
        return f"{self.receptive_field} px" + (f" (the whole {h} x {w} image)" if self.receptive_field >= max(h, w) else "")


def describe(
    name: str,
    *,
    size: int | Size = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
    model_args: Mapping[str, object] | None = None,
) -> Description:
    """Describe a convmix or timm model at an input of `size` pixels (side, or height and width).

    A model made for a fixed size is built for `size` where it can be. Raises ModelError for an unknown name or argument, and for a size
    that the model cannot take.
    """
    h, w = (size, size) if isinstance(size, int) else size
    if min(h, w) < 1:
        raise ModelError(f"size: {h}x{w} is not an image size, both sides must be at least 1 pixel")
    with _quick(name):
        return _describe(name, (h, w), num_classes=num_classes, in_chans=in_chans, model_args=model_args)


def _describe(name: str, size: Size, *, num_classes: int, in_chans: int, model_args: Mapping[str, object] | None) -> Description:
    model, macs = _build_and_count(name, size, num_classes=num_classes, in_chans=in_chans, model_args=model_args)
    parameters = sum(p.numel() for p in model.parameters())
    buffer_bytes = sum(b.numel() * b.element_size() for b in model.buffers())
    activation_bytes = _activation_bytes(model, in_chans, size)
    return Description(
        name=name,
        size=size,
        in_chans=in_chans,
        num_classes=num_classes,
        parameters=parameters,
        macs=macs,
        receptive_field=_receptive_field(model, in_chans, size),
        stages=_stages(model, in_chans, size),
        weight_bytes=parameters * FLOAT_BYTES + buffer_bytes,
        training_bytes=parameters * FLOAT_BYTES * _ADAM_COPIES + buffer_bytes,
        activation_bytes=activation_bytes,
        published=PUBLISHED.get(name.split(".")[0]),
    )


def count_macs(name: str, *, size: Size, num_classes: int, in_chans: int = 3, model_args: Mapping[str, object] | None = None) -> int:
    """Only the MACs of `describe`, for searches over many sizes of a model."""
    with _quick(name):
        return _build_and_count(name, size, num_classes=num_classes, in_chans=in_chans, model_args=model_args)[1]


def _quick(name: str) -> AbstractContextManager[object]:
    """For the models that the quick rules were written for; timm has imported by itself what they spare."""
    return nullcontext() if catalog.find(name) is None else QuickShapes()


def _build_and_count(
    name: str, size: Size, *, num_classes: int, in_chans: int, model_args: Mapping[str, object] | None
) -> tuple[nn.Module, int]:
    """The model on the meta device in eval mode, and its MACs."""
    arguments = dict(model_args or {})
    model = _on_meta(name, num_classes, in_chans, arguments)
    try:
        return model, macs_of(model, _image(in_chans, size))
    except ModelError:
        raise
    except (AssertionError, RuntimeError, ValueError) as first:  # transformers and token mixers are built for one size
        if "img_size" not in arguments:
            try:
                model = _on_meta(name, num_classes, in_chans, {**arguments, "img_size": size})
                return model, macs_of(model, _image(in_chans, size))
            except (AssertionError, RuntimeError, ValueError, TypeError, ModelError):
                pass
        reason = first_line(first, 120)
        raise ModelError(f"{name} cannot take images of {size[0]}x{size[1]} pixels ({reason}); give another size") from None


def _on_meta(name: str, num_classes: int, in_chans: int, model_args: Mapping[str, object]) -> nn.Module:
    try:
        with torch.device("meta"):
            model = catalog.create_model(name, num_classes=num_classes, in_chans=in_chans, model_args=model_args)
    except (NotImplementedError, RuntimeError, ModelError):  # a constructor that computes with its tensors needs real ones
        model = catalog.create_model(name, num_classes=num_classes, in_chans=in_chans, model_args=model_args).to("meta")
    return model.eval()


def _image(in_chans: int, size: Size) -> Tensor:
    return torch.empty(1, in_chans, *size, device="meta")


def _receptive_field(model: nn.Module, in_chans: int, size: Size) -> int | None:
    image = _image(in_chans, size).requires_grad_()
    infos = _feature_info(model)
    if not infos:
        return None
    return receptive_field(features_of(model, image), image, reduction=infos[-1]["reduction"])


def _activation_bytes(model: nn.Module, in_chans: int, size: Size) -> int:
    """What autograd keeps of one image in a training-mode pass, each storage once, without parameters and buffers."""
    kept: dict[int, torch.UntypedStorage] = {}  # holding the storages keeps their addresses from being used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    batch = 2  # BatchNorm over a 1x1 map needs two images
    model.requires_grad_(True).train()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(torch.empty(batch, in_chans, *size, device="meta"))
    model.eval()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own) // batch


def _feature_info(model: nn.Module) -> list[dict[str, Any]]:
    info = getattr(model, "feature_info", None) or []
    return list(getattr(info, "info", info))


def _stages(model: nn.Module, in_chans: int, size: Size) -> tuple[Stage, ...]:
    """One per entry of feature_info; shapes as computed where the model gives intermediates, else by the stride."""
    infos = _feature_info(model)
    shapes: list[tuple[int, int]] = [(-(-size[0] // i["reduction"]), -(-size[1] // i["reduction"])) for i in infos]
    if hasattr(model, "forward_intermediates"):
        with torch.no_grad():
            maps: list[Tensor] = model.forward_intermediates(_image(in_chans, size), intermediates_only=True)  # type: ignore[operator]
        if len(maps) == len(infos) and all(m.ndim == 4 for m in maps):
            shapes = [(m.shape[2], m.shape[3]) for m in maps]
    return tuple(Stage(i["module"], i["num_chs"], h, w, i["reduction"]) for i, (h, w) in zip(infos, shapes, strict=True))


def _runs_of_equal(stages: tuple[Stage, ...]) -> list[tuple[str, list[Stage]]]:
    """Neighbouring stages of one shape together: an isotropic model has a single line."""
    runs = [list(g) for _, g in groupby(stages, key=lambda s: (s.channels, s.height, s.width, s.reduction))]
    return [(r[0].name if len(r) == 1 else f"{r[0].name} .. {r[-1].name}", r) for r in runs]


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
