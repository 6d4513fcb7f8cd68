"""FSDP: every process holds a part of every weight, gradient, average and moment of the optimiser, and borrows the rest block by block.

model -> shard -> parameters that are parts (DTensors) -> optimiser over them
state -> whole -> the tensors that one process would have, in files that do not know the number of processes
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convmix.config import Optim
from convmix.errors import ConfigError, did_you_mean

# Those whose update of a weight asks its own gradient and moments only, elementwise or through norms that torch takes over all parts.
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "nadam", "nadamw", "rmsprop", "lion", "lamb")


def refuse_unshardable(optim: Optim) -> None:
    """ConfigError for an optimiser that FSDP would change or break."""
    if optim.optimizer not in OPTIMIZERS:
        near = did_you_mean(optim.optimizer, OPTIMIZERS)
        raise ConfigError(f"optim.optimizer: {optim.optimizer} is not tried with parallel fsdp{near}; expected {', '.join(OPTIMIZERS)}")


def shard(model: nn.Module, device: torch.device) -> None:
    """Leave this process its part of every parameter; repeated blocks are gathered one at a time, and so is what stands around them."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in list(_repeated(model)):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(value: Any) -> Any:
    """A part as the tensor it is part of, anything else as it is; every process has to ask."""
    full = getattr(value, "full_tensor", None)
    return value if full is None else full()


def part_like(value: Any, parameter: Tensor) -> Any:
    """`value`, the optimiser's about a parameter, in parts where the parameter is and where it has its shape."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), mesh, parameter.placements)  # type: ignore[attr-defined]


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    """The innermost modules that stand in a row with others of their class and have weights.

    Not the outermost: a stage of blocks may be no more than a container whose forward nobody calls, and the call is what gathers.
    """
    for child in module.children():
        row = list(child.children())
        inner = list(_repeated(child))
        if not inner and isinstance(child, (nn.Sequential, nn.ModuleList)) and len(row) > 1 and len({type(x) for x in row}) == 1:
            inner = [x for x in row if any(True for _ in x.parameters())]
        yield from inner
