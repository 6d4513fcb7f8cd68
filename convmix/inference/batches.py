"""Images through a model without gradients, batch by batch: what validation, evaluation and prediction share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from convmix.data.loaders import Batch
from convmix.data.targets import PerImage, Targets
from convmix.errors import ConfigError, did_you_mean, first_line
from convmix.hardware import autocast, default_device, resolve_precision

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")  # int8: on the CPU, through `acceleration`


@dataclass(frozen=True)
class Outputs:
    """What is kept of the outputs for a split, in the order of `indices`."""

    values: Any  # as the task observes them: logits n,k float32 on the CPU, or a list with an entry per image
    targets: Any  # n int64, or one object per image
    indices: Tensor  # n int64, positions in the split
    bad: tuple[tuple[int, str], ...]  # (position, reason) of images that could not be read


def resolve(device: str | None, precision: str) -> tuple[torch.device, str]:
    """A user's words as a device and a precision that is not 'auto'; ConfigError where this machine has no such device."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision} is not one of {', '.join(PRECISIONS)}{did_you_mean(precision, PRECISIONS)}")
    if device is None:
        chosen = default_device()
    else:
        try:
            chosen = torch.device(device)
            torch.zeros(1, device=chosen).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"device: {device} cannot be used here ({first_line(error)}); leave it out, or give cpu") from None
    return chosen, resolve_precision(precision, chosen)


def as_logits(outputs: Tensor, targets: Targets) -> Tensor:
    """N,k float32 on the CPU: what is kept of a classifier's outputs."""
    return outputs.float().cpu()


def run_model(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: str = "fp32",
    observe: Callable[[Any, Any], Any] = as_logits,
) -> Outputs:
    """The model's outputs for every batch, as `observe` (outputs, targets) keeps them; the training mode is restored afterwards."""
    was_training = model.training
    model.eval()
    values, targets, indices = [], [], []
    bad: list[tuple[int, str]] = []
    try:
        with torch.inference_mode(), autocast(precision, device):
            for batch in batches:
                bad += batch.bad
                if len(batch.images):
                    values.append(observe(model(batch.images.to(device)), batch.targets))
                    targets.append(batch.targets)
                    indices.append(batch.indices)
    finally:
        model.train(was_training)
    if not values:
        empty = torch.empty(0, dtype=torch.int64)
        return Outputs(torch.empty(0, 0), empty, empty, tuple(bad))
    return Outputs(joined(values), joined(targets), torch.cat(indices), tuple(bad))


def joined(parts: Sequence[Any]) -> Any:
    """Tensors, lists or targets of several batches as one."""
    if all(isinstance(part, Tensor) for part in parts):
        if len({part.shape[1:] for part in parts}) == 1:
            return torch.cat(list(parts))
    elif all(isinstance(part, PerImage) for part in parts):
        return PerImage(chain.from_iterable(parts))
    return list(chain.from_iterable(parts))


def in_order(values: Any, order: Tensor) -> Any:
    """The rows of what `joined` gives, at these positions."""
    if isinstance(values, Tensor):
        return values[order]
    return type(values)(values[i] for i in order.tolist())
