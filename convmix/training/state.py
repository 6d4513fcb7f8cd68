"""Everything a training needs to go on exactly where it stopped, in one safetensors file that is replaced atomically.

Random numbers are functions of (seed, step) and (seed, epoch, example), so the position alone restores them.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convmix.atomic import write_tensors
from convmix.documents import checked, fields_of, parse_object
from convmix.errors import RunError, first_line
from convmix.models.stored import header_of
from convmix.training.schedule import StepPlan
from convmix.training.sharding import part_like, whole

_NEEDED = ("plan", "step", "images_seen", "history")
_LIKE_WEIGHTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg")  # of an optimiser's state
_KINDS: dict[str, Any] = {
    "optim_scalars": dict[str, dict[str, Any]], "param_groups": list[dict[str, Any]], "scaler": dict[str, Any] | None,
}  # fmt: skip


@dataclass
class TrainState:
    """Where a training stands; plain JSON values but for the plan."""

    plan: StepPlan
    step: int = 0  # optimiser steps done
    images_seen: int = 0
    elapsed_s: float = 0.0  # wall clock of all sittings, scan and validation included
    train_s: float = 0.0  # of which in training steps
    data_wait_s: float = 0.0  # of which, in the main process, waiting for the next batch
    best_score: float | None = None
    kept_epoch: int | None = None  # whose weights are in the model directory
    kept_metrics: dict[str, Any] = field(default_factory=dict)  # their validation scores
    stale_epochs: int = 0  # epochs since the best one
    stopped: str = ""  # why the training is over; empty while it runs
    epoch_loss: float = 0.0  # sums over the current epoch, for the line of the history
    epoch_correct: int = 0
    epoch_images: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per epoch; epoch 0: the classifier, fitted first
    bad: dict[str, str] = field(default_factory=dict)  # images that broke after the scan: name -> reason

    @property
    def epochs_done(self) -> int:
        """Epochs of optimiser steps; row 0 of the history is the classifier fitted before them, where it was."""
        return sum(row["epoch"] > 0 for row in self.history)


@dataclass(frozen=True)
class SavedState:
    """What the file holds; the same whatever the number of processes."""

    tensors: dict[str, Tensor]  # "model.NAME", "ema.NAME" and "optim.INDEX.NAME", whole, on the CPU or not
    meta: dict[str, Any]


def gather_state(position: TrainState, *, model: nn.Module, optimizer: Any, ema: nn.Module | None, scaler: Any) -> SavedState:
    """The state as it stands; every process has to ask, since each may hold a part of it."""
    optim = optimizer.state_dict()
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in optim["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optim.{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    meta = {
        "position": asdict(position),
        "optim_scalars": scalars,
        "param_groups": optim["param_groups"],
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    return SavedState({k: whole(v.detach()).contiguous() for k, v in tensors.items()}, meta)


def write_state(path: Path, state: SavedState) -> None:
    """Replace the state file; a killed process leaves the previous one."""
    write_tensors(path, state.tensors, {"state": json.dumps(state.meta)})


def read_state(path: Path) -> SavedState:
    """RunError where the file is none, or says what no training says."""
    from safetensors import SafetensorError, safe_open

    try:
        header_of(path)  # a regular file, for one
        with safe_open(path, framework="pt") as file:
            meta = parse_object((file.metadata() or {}).get("state", ""), where="its description", finite=False)
            state = SavedState({k: file.get_tensor(k) for k in file.keys()}, meta)  # noqa: SIM118 (safe_open is no mapping)
        position_of(state)
        for key, kind in _KINDS.items():
            checked(meta.get(key), kind, where=key)
        return state
    except (SafetensorError, OSError, RunError, ValueError) as error:
        raise RunError(f"{path} cannot be resumed from: {first_line(error)}") from None


def position_of(state: SavedState) -> TrainState:
    """Where the training stood; RunError for what is no position."""
    values = checked(state.meta.get("position"), dict[str, Any], where="position")
    if missing := [name for name in _NEEDED if name not in values]:
        raise RunError(f"position has no {', '.join(missing)}")
    position = TrainState(**fields_of(TrainState, values, where="position"))
    if position.step < 0 or position.plan.steps_per_epoch < 1 or position.plan.total_steps < 0:
        raise RunError(f"position: step {position.step} of {position.plan} is none")
    for row in position.history:
        checked(row.get("epoch"), int, where="position.history: epoch")
        for name, value in row.items():
            checked(value, float | None, where=f"position.history: {name}")
    return position


def restore_weights(state: SavedState, *, model: nn.Module, ema: nn.Module | None) -> None:
    """Model and averages in place, before they are sharded; RunError where they are another network's."""
    for prefix, module in (("model.", model), ("ema.", ema)):
        if module is not None:
            tensors = _under(prefix, state.tensors)
            for name, own in module.state_dict().items():
                if name in tensors and tensors[name].dtype != own.dtype:
                    raise RunError(f"the saved state: {prefix}{name} is {tensors[name].dtype}, expected {own.dtype}")
            try:
                module.load_state_dict(tensors)
            except RuntimeError as error:
                raise RunError(f"the saved state is of another network: {' '.join(str(error).split())[:300]}") from None


def restore_optimizer(saved: SavedState, *, optimizer: Any, scaler: Any) -> TrainState:
    """Optimiser and loss scale in place; the position. The optimiser's parameters may be sharded by now. RunError where they do not fit."""
    try:
        return _restored(saved, optimizer, scaler)
    except RunError:
        raise
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise RunError(
            f"the saved state does not fit the optimizer: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None


def _restored(saved: SavedState, optimizer: Any, scaler: Any) -> TrainState:
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in saved.meta["optim_scalars"].items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in _under("optim.", saved.tensors).items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if name in _LIKE_WEIGHTS and (value.shape != parameter.shape or not value.is_floating_point()):
            raise RunError(f"the saved state: optim.{key} is {value.dtype} {list(value.shape)}, its weights are {list(parameter.shape)}")
        state.setdefault(int(index), {})[name] = part_like(value, parameter)
    groups = [_tuples(group) for group in saved.meta["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if scaler is not None and saved.meta["scaler"]:
        scaler.load_state_dict(saved.meta["scaler"])
    return position_of(saved)


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of everything random inside one training step (dropout, stochastic depth, mixing)."""
    import numpy as np

    return int(np.random.SeedSequence((seed, step, rank, 0x57E9)).generate_state(1)[0])


def seed_step(seed: int, step: int, rank: int) -> int:
    """Seed torch for one training step and return the seed."""
    value = step_seed(seed, step, rank)
    torch.manual_seed(value)
    return value


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON made lists of tuples such as Adam's betas."""
    return {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
