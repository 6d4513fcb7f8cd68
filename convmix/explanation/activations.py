"""How alive the layers are: mean and spread of every activation function's output, and how much of it is zero, flat or dead."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convmix.explanation.hooked_copy import images_per_pass
from convmix.explanation.stages import channel_axis

FLAT = 0.01  # slope below which an activation function passes no gradient on worth the name
ZERO = 0.01  # an output smaller than this share of the layer's standard deviation counts as zero
_FILES = ("torch.nn.modules.activation", "timm.layers.activations")
_NOT_ELEMENTWISE = ("Softmax", "Softmin", "LogSoftmax", "Softmax2d", "MultiheadAttention", "GLU")


@dataclass(frozen=True)
class Activation:
    """One activation function of a model, over some images."""

    layer: str
    kind: str  # "GELU"
    mean: float  # of the outputs
    std: float
    zero: float  # share of outputs that are next to nothing
    saturated: float  # share of inputs where the function is flat: a ReLU's negative ones, both ends of a sigmoid
    dead: float  # share of channels that are flat at every position of every image


@dataclass
class _Sums:
    kind: str
    axis: int  # of the channels; as the first map tells it, for a head runs over maps down to a few pixels, which tell nothing
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    flat: int = 0
    alive: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    sizes: list[Tensor] = field(default_factory=list)  # of a sample of the outputs: how many are zero is known once the spread is

    def add(self, output: Tensor, slope: Tensor) -> None:
        y = output.detach().cpu().double()
        self.count += y.numel()
        self.total += float(y.sum())
        self.squares += float(y.square().sum())
        is_flat = slope.abs() < FLAT
        self.flat += int(is_flat.sum())
        alive = ~is_flat.movedim(self.axis, 0).flatten(1).all(1).cpu()
        self.alive = alive if not len(self.alive) else self.alive | alive
        flat_output = output.detach().flatten()
        self.sizes.append(flat_output[:: max(1, len(flat_output) // 20_000)].abs().cpu())


def activation_statistics(model: nn.Module, images: Tensor) -> list[Activation]:
    """One row per activation function of a specimen, in the order in which they are first used, over images N,C,H,W."""
    sums: dict[str, _Sums] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            with torch.enable_grad():
                x = args[0].detach().requires_grad_()
                (slope,) = torch.autograd.grad(module.forward(x).sum(), x)
            sums.setdefault(name, _Sums(type(module).__name__, channel_axis(output, images))).add(output, slope)

        handles.append(module.register_forward_hook(note))

    try:
        for name, module in model.named_modules():
            if type(module).__module__.startswith(_FILES) and type(module).__name__ not in _NOT_ELEMENTWISE:
                watch(name, module)
        step = images_per_pass(*images.shape[2:])
        with torch.no_grad():
            for start in range(0, len(images), step):
                model(images[start : start + step])
    finally:
        for handle in handles:
            handle.remove()
    return [_row(name, s) for name, s in sums.items()]


def _row(name: str, s: _Sums) -> Activation:
    mean = s.total / s.count
    std = max(s.squares / s.count - mean**2, 0.0) ** 0.5
    zero = float((torch.cat(s.sizes) <= ZERO * std).double().mean())
    return Activation(name, s.kind, mean, std, zero, s.flat / s.count, float((~s.alive).double().mean()))
