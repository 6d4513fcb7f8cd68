"""Multiply-accumulates of a forward pass: convolutions (depthwise too), linear layers, attention's products."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def macs_of(model: nn.Module, images: Tensor) -> int:
    """What `model(images)` takes, by torch's formulas; images B,C,H,W, on the meta device too."""
    with torch.no_grad(), _Counter() as counter:
        model(images)
    return counter.flops // 2


class _Counter(TorchDispatchMode):
    """Counts as `torch.utils.flop_counter.FlopCounterMode` does; that one imports torch's compiler on its first operation, two seconds."""

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # imports Triton

        self.formulas = flop_registry
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what is asked for so that the compiler leaves this class alone; nothing is compiled in here

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = func.decompose(*args, **kwargs)  # counted part by part, where it has parts
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        formula = self.formulas.get(func.overloadpacket)
        self.flops += formula(*args, **kwargs, out_val=out) if formula else 0
        return out
