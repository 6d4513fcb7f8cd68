"""Images through a model without gradients, batch by batch: what validation, evaluation and prediction share."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convmix.data.loaders import Batch
from convmix.errors import ConfigError, did_you_mean
from convmix.hardware import autocast, default_device, resolve_precision

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")  # int8: on the CPU, through `acceleration`


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a split, in the order of `indices`."""

    values: Tensor  # n,k float32 on the CPU
    targets: Tensor  # n int64
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
            raise ConfigError(f"device: {device} cannot be used here ({str(error).splitlines()[0]}); leave it out, or give cpu") from None
    return chosen, resolve_precision(precision, chosen)


def run_model(model: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str = "fp32") -> Outputs:
    """The model's outputs for every batch; the model's training mode is restored afterwards."""
    was_training = model.training
    model.eval()
    values, targets, indices = [], [], []
    bad: list[tuple[int, str]] = []
    try:
        with torch.inference_mode(), autocast(precision, device):
            for batch in batches:
                bad += batch.bad
                if len(batch.images):
                    values.append(model(batch.images.to(device)).float().cpu())
                    targets.append(batch.targets)
                    indices.append(batch.indices)
    finally:
        model.train(was_training)
    if not values:
        empty = torch.empty(0, dtype=torch.int64)
        return Outputs(torch.empty(0, 0), empty, empty, tuple(bad))
    return Outputs(torch.cat(values), torch.cat(targets), torch.cat(indices), tuple(bad))
