"""Several processes, one mind: what the main process decides, and what all of them know together.

Alone, every function returns at once; clocks and file systems are asked by the main process only, because they answer others differently.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


def from_main(decide: Callable[[], T]) -> T:
    """What `decide` returns on the main process, on every process."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState()
    if state.num_processes == 1:
        return decide()
    value: Any = broadcast_object_list([decide() if state.is_main_process else None])[0]
    return value


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
