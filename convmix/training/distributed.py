"""Several processes, one mind: what the main process decides, and what all of them know together.

Alone, every function returns at once; clocks and file systems are asked by the main process only, because they answer others differently.
"""

import itertools
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from convmix.data.targets import PerImage, Targets
from convmix.errors import ConvmixError
from convmix.inference.batches import Outputs, in_order, joined

T = TypeVar("T")
SILENCE = timedelta(minutes=10)  # after which a process takes the others for lost; one that is killed is noticed at once
PATIENCE = timedelta(hours=6)  # while the main process reads the images


def from_main(decide: Callable[[], T], *, takes_long: bool = False) -> T:
    """What `decide` returns on the main process, on every process; a ConvmixError that it raises there is raised on all of them."""
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState()
    if state.num_processes == 1:
        return decide()
    said: list[Any] = [None, None]
    failed: ConvmixError | None = None
    if state.is_main_process:
        try:
            said = [decide(), None]
        except ConvmixError as error:
            said = [None, (type(error), str(error))]
            failed = error
    dist.broadcast_object_list(said, src=0, group=_patient() if takes_long else None, device=None if takes_long else state.device)
    if said[1] is not None:
        kind, text = said[1]
        raise failed or kind(text)
    return said[0]


def share_buffers(model: nn.Module) -> None:
    """Give every process the main one's buffers: each process's batch norms have seen their own part of the last batch."""
    from accelerate import PartialState
    from accelerate.utils import broadcast

    if PartialState().num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def from_all(value: T) -> list[T]:
    """Every process's value, in the order of the processes."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    return [value] if PartialState().num_processes == 1 else gather_object([value])


def lost_another(error: RuntimeError) -> bool:
    """Whether a process found the connection to another one broken, or silent for too long."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)


@cache
def _patient() -> Any:
    """All processes, through the CPU: a group has one time limit for everything, and that of the training is short."""
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=PATIENCE)


def gather_outputs(mine: Outputs) -> Outputs:
    """All processes' outputs, in the order of the split."""
    every = from_all(mine)
    bad = tuple(row for o in every for row in o.bad)
    some = [o for o in every if len(o.indices)] or [mine]
    order = torch.cat([o.indices for o in some]).argsort()
    values, targets, indices = (in_order(joined([getattr(o, name) for o in some]), order) for name in ("values", "targets", "indices"))
    return Outputs(values, targets, indices, bad)


def equal_parts(images: Tensor, targets: Targets, number: int) -> list[tuple[Tensor, Targets]]:
    """Images and targets in so many parts of nearly equal size, on every process as many: with FSDP each asks all for weights."""
    number = min(number, len(images))
    bounds = [len(images) * i // number for i in range(number + 1)]
    return [(images[a:b], targets[a:b] if isinstance(targets, Tensor) else PerImage(targets[a:b])) for a, b in itertools.pairwise(bounds)]
