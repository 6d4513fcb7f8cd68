"""Shapes on the meta device without torch's own rules for them: those are written in Python and import its compiler, two seconds.

The rules here are for what the models of this package are made of, and equal to torch's. An operation that has none, or none for its
arguments, is torch's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Result = Tensor | tuple[Tensor, ...] | None  # None: no rule for these arguments


class QuickShapes(TorchDispatchMode):
    """Inside, operations on meta tensors give what torch gives, sooner."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True has the compiler imported, to be told that it has no business here

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        rule = _RULES.get(func) if args and isinstance(args[0], Tensor) and args[0].is_meta else None
        found = None if rule is None else rule(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


def _like(x: Tensor, *settings: object, **named: object) -> Tensor:
    """As large as the input, and in its layout."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _itself(x: Tensor, *others: object, **named: object) -> Tensor:
    """What changes its input in place."""
    return x


def _broadcast(x: Tensor, y: Tensor, **named: object) -> Result:
    """A sum or product that is as large as its first part, the second being repeated where it is smaller: B,h,w,D and D."""
    if not isinstance(y, Tensor) or y.dtype != x.dtype or y.ndim > x.ndim:
        return None
    sides = zip(reversed(x.shape), reversed(y.shape), strict=False)
    return _like(x) if all(b in (a, 1) for a, b in sides) else None


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, *others: object,
) -> Result:  # fmt: skip
    sides = _sides(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return None if transposed or min(sides) < 1 else x.new_empty(x.shape[0], weight.shape[0], *sides)


def _max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int] = (0, 0), *others: object) -> Result:
    sides = _sides(x.shape[2:], kernel, stride, padding, (1, 1))
    if others or x.ndim != 4 or not x.is_contiguous() or len(stride) != 2 or min(sides) < 1:
        return None
    shape = *x.shape[:2], *sides
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _sides(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> list[int]:
    every = zip(size, kernel, stride, padding, dilation, strict=True)
    return [(length + 2 * zeros - apart * (k - 1) - 1) // step + 1 for length, k, step, zeros, apart in every]


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, training: bool, *others: object) -> Result:
    saved = x.shape[1] if training else 0
    return _like(x), x.new_empty(saved), x.new_empty(saved)


def _fixed_batch_norm(x: Tensor, *others: object) -> Result:
    return _like(x), x.new_empty(0), x.new_empty(0)


def _layer_norm(x: Tensor, shape: Sequence[int], *others: object) -> Result:
    saved = (*x.shape[: -len(shape)], *[1] * len(shape))
    return x.new_empty(x.shape), x.new_empty(saved), x.new_empty(saved)


def _product(x: Tensor, weight: Tensor) -> Result:
    return x.new_empty(x.shape[0], weight.shape[1]) if x.shape[1] == weight.shape[0] else None  # n,in @ in,out -> n,out


def _linear(bias: Tensor, x: Tensor, weight: Tensor) -> Result:
    return _product(x, weight)


def _mean(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Result:
    means = {d % x.ndim for d in dims}
    return x.new_empty([1 if i in means else n for i, n in enumerate(x.shape) if keepdim or i not in means])


_aten: Any = torch.ops.aten
_RULES: dict[object, Callable[..., Result]] = {
    _aten.convolution.default: _convolution,
    _aten.mm.default: _product,
    _aten.addmm.default: _linear,
    _aten.native_batch_norm.default: _batch_norm,
    _aten._native_batch_norm_legit_no_training.default: _fixed_batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.mean.dim: _mean,
    _aten.relu.default: _like,
    _aten.gelu.default: _like,
    _aten.leaky_relu.default: _like,
    _aten.add.Tensor: _broadcast,
    _aten.mul.Tensor: _broadcast,
    _aten.normal_.default: _itself,
    _aten.erfinv_.default: _itself,
    _aten.clamp_.default: _itself,
    _aten.mul_.Tensor: _itself,
    _aten.div_.Tensor: _itself,
}
