"""What all three families share: depthwise convolution, stochastic depth, pooling, checkpointing, and timm's contract for a backbone.

A backbone is a chain of levels, each a map B,C,H,W -> B,C',H',W'; the output of every level is a feature.
    image -> level 0 -> level 1 -> ... -> finish -> pool -> head -> logits B,num_classes

timm and what comes with it take seconds to import, so a model is built and run without it.

torch.fx traces every network here: what arrives then is a proxy and no Tensor, so the layers run one after the other as plain modules, and
nothing asks for shapes or devices. TorchScript scripts that graph.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from convmix.errors import ModelError, did_you_mean
from convmix.ops.depthwise import depthwise_conv2d

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
POOLS = ("avg", "max", "avgmax", "catavgmax", "fast")  # timm's names; fast: the mean too, as a plain reduction
Level = Callable[[Tensor], Tensor]


def activation(name: str, choices: Sequence[str] = tuple(ACTIVATIONS)) -> nn.Module:
    """A new activation module; raises ModelError for a name outside `choices`."""
    if name not in choices:
        raise ModelError(f"unknown activation {name!r}{did_you_mean(str(name), choices)}; expected one of {', '.join(choices)}")
    return ACTIVATIONS[name]()


def check_positive(owner: str, **values: int) -> None:
    """Raises ModelError for a size or count that is no whole number above zero."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{owner}: {name} is {value!r}, expected a whole number of at least 1")


class DepthwiseConv2d(nn.Conv2d):
    """One k x k filter per channel at stride 1, output as large as the input: B,C,H,W -> B,C,H,W.

    The same numbers and state-dict keys as `nn.Conv2d(dim, dim, k, groups=dim, padding="same")`; even kernels pad one pixel more on the
    right and below, as "same" does. The operator has fast gradients where the device has kernels for them.
    """

    def __init__(self, dim: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(dim, dim, kernel_size, groups=dim, padding=kernel_size // 2 if kernel_size % 2 else 0, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting() or not isinstance(input, Tensor):
            even = self.kernel_size[0] % 2 == 0
            padded = F.pad(input, [self.kernel_size[0] // 2 - 1, self.kernel_size[0] // 2] * 2) if even else input
            return self._conv_forward(padded, self.weight, self.bias)
        return depthwise_conv2d(input, self.weight, self.bias)


class DropPath(nn.Module):
    """Stochastic depth in training: every image's branch is left out at rate `drop_prob`, else scaled up: maps of four axes, B first.

    Huang et al. 2016, arXiv 1603.09382.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        kept = 1 - self.drop_prob
        return x * x.new_empty([x.shape[0], 1, 1, 1]).bernoulli_(kept).div_(kept)  # B,1,1,1 against B,C,h,w or B,h,w,C

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3f}"


class GlobalPool(nn.Module):
    """One value per channel by timm's name for it: B,C,h,w -> B,C (catavgmax: B,2C); "" leaves the map as it is."""

    def __init__(self, pool_type: str) -> None:
        super().__init__()
        if pool_type not in ("", *POOLS):
            raise ModelError(f"unknown global_pool {pool_type!r}, expected avg, max, avgmax, catavgmax or '' for none")
        self.pool_type = pool_type

    def is_identity(self) -> bool:
        return not self.pool_type

    def feat_mult(self) -> int:
        """Pooled values per channel."""
        return 2 if self.pool_type == "catavgmax" else 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.pool_type:
            return x
        if self.pool_type == "fast":
            return x.mean((2, 3))  # B,C,h,w -> B,C
        if self.pool_type == "avg":
            pooled = F.adaptive_avg_pool2d(x, 1)  # B,C,h,w -> B,C,1,1
        elif self.pool_type == "max":
            pooled = F.adaptive_max_pool2d(x, 1)
        else:
            mean, largest = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
            pooled = 0.5 * (mean + largest) if self.pool_type == "avgmax" else torch.cat((mean, largest), 1)  # catavgmax: B,2C,1,1
        return pooled.flatten(1)  # B,C,1,1 -> B,C

    def extra_repr(self) -> str:
        return f"pool_type={self.pool_type}"


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """block(x) whose activations are recomputed in the backward pass instead of kept.

    Weights, gradients and BatchNorm statistics end as they do without it: the second pass updates throw-away copies of the statistics.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _batchnorm_statistics_kept(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _batchnorm_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm layers write to copies of running_mean, running_var and num_batches_tracked.

    Copies rather than track_running_stats=False, which saves fewer tensors for the backward pass and so fails the checkpoint's own check.
    """
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    originals = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, originals, strict=True):
            norm._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
        yield
    finally:  # also when the checkpoint stops its second pass early, by an exception
        for norm, buffers in zip(norms, originals, strict=True):
            norm._buffers.update(buffers)


class Backbone(nn.Module):
    """timm's contract, written once. Abstract: a family gives `levels`, `cut`, and `finish` where it has one.

    `arguments` holds the constructor's arguments as JSON values, so that a model can be rebuilt from a file.
    """

    def __init__(self, arguments: dict[str, Any], *, in_chans: int, num_classes: int, min_size: int) -> None:
        super().__init__()
        check_positive(type(self).__name__, in_chans=in_chans)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
            raise ModelError(f"num_classes is {num_classes!r}, expected a whole number, 0 for no classifier")
        self.arguments = arguments
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.min_size = min_size
        self.num_features = 0  # channels after the last level; `_add_head` sets it
        self.feature_info: list[dict[str, Any]] = []
        self.grad_checkpointing = False
        self.timm_entry: tuple[str, dict[str, Any] | None] | None = None  # name and description; None: timm's own description
        self._pretrained_cfg: dict[str, Any] | None = None

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """timm's description of the weights and the images they are for, made when somebody asks for it, since it takes timm."""
        if self._pretrained_cfg is None:
            if self.timm_entry is None:
                raise AttributeError("pretrained_cfg")  # of a network that no factory has built
            from timm.models._builder import resolve_pretrained_cfg

            name, description = self.timm_entry
            self._pretrained_cfg = resolve_pretrained_cfg(name, pretrained_cfg=description).to_dict()
        return self._pretrained_cfg

    @pretrained_cfg.setter
    def pretrained_cfg(self, value: dict[str, Any]) -> None:
        self._pretrained_cfg = value

    default_cfg = pretrained_cfg  # timm's older name

    def levels(self) -> list[Level]:
        """The chain of maps B,C,H,W -> B,C',H',W' whose outputs are the features, the deepest last."""
        raise NotImplementedError

    def cut(self, last: int) -> None:
        """Remove everything behind level `last`."""
        raise NotImplementedError

    def finish(self, x: Tensor) -> Tensor:
        """What stands between the last level and the pooling: B,C,H,W -> B,C,H,W."""
        return x

    def _add_head(self, num_features: int, *, global_pool: str, drop_rate: float) -> None:
        if not 0 <= drop_rate < 1:
            raise ModelError(f"dropout is {drop_rate}, expected a share of at least 0 and below 1")
        self.num_features = num_features
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(self.num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head with `num_classes` outputs; 0 leaves pooled features, and global_pool="" leaves the map B,C,H,W unpooled."""
        if global_pool is not None:
            self.global_pool = GlobalPool(global_pool)
        if num_classes > 0 and self.global_pool.is_identity():
            raise ModelError(f"a classifier over {num_classes} classes needs pooled features; give a global_pool such as avg")
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        like = next(self.parameters())
        self.head = (
            nn.Linear(self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype) if num_classes > 0 else nn.Identity()
        )
        self.init_head()

    def init_head(self) -> None:
        """Initialise a new head; torch's default unless the family's paper says otherwise."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """block(x), checkpointed where that is switched on and gradients are wanted."""
        wanted = self.grad_checkpointing and torch.is_grad_enabled() and isinstance(x, Tensor)
        return checkpointed(block, x) if wanted else block(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """B,in_chans,H,W -> B,num_features,h,w; raises ModelError for a wrong channel count or too small an image."""
        self._check(x)
        for level in self.levels():
            x = level(x)
        return self.finish(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """B,num_features,h,w -> B,num_classes; with pre_logits B,head_hidden_size."""
        x = self.global_pool(x)  # B,C,h,w -> B,C
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)  # B,C -> B,num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The outputs of chosen levels, B,C,H,W each: the last n for an int, all for None, else the listed ones.

        Returns (what forward_features returns, the list), or the list alone with intermediates_only. With stop_early nothing behind the
        last chosen level is computed. `norm` applies the final norm, where the family has one, to the last level's output.
        """
        if output_fmt != "NCHW":
            raise ModelError(f"output_fmt is {output_fmt!r}, expected NCHW")
        self._check(x)
        levels = self.levels()
        take, deepest = _chosen(len(levels), indices)
        taken = []
        for i, level in enumerate(levels[: deepest + 1] if stop_early else levels):
            x = level(x)
            if i in take:
                taken.append(self.final_norm(x) if norm and i == len(levels) - 1 else x)
        if intermediates_only:
            return taken
        return (x if stop_early and deepest < len(levels) - 1 else self.finish(x)), taken

    def final_norm(self, x: Tensor) -> Tensor:
        """The norm behind the last level, for the families that have one."""
        return x

    def prune_intermediate_layers(self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Remove what the chosen levels do not need; returns their indices, counted from the first level."""
        take, deepest = _chosen(len(self.levels()), indices)
        self.cut(deepest)
        if prune_norm:
            self.drop_norm()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def drop_norm(self) -> None:
        """Remove what stands between the last level and the pooling."""

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` compiles in this network's place: its graph, with the same names and the same parameters."""
        return fx.GraphModule(self, _LayerTracer().trace(self), type(self).__name__)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            return
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ModelError(f"{name} expects images as B,{self.in_chans},H,W, got {','.join(map(str, x.shape))}")
        if x.shape[2] < self.min_size or x.shape[3] < self.min_size:
            raise ModelError(
                f"{name} needs images of at least {self.min_size}x{self.min_size} pixels, got {x.shape[2]}x{x.shape[3]}; give a larger size"
            )


class _LayerTracer(fx.Tracer):
    """Traces through blocks and keeps layers whole, so that those that behave differently in training go on doing so."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (DepthwiseConv2d, DropPath)) or super().is_leaf_module(m, module_qualified_name)


def _chosen(count: int, indices: int | list[int] | None) -> tuple[list[int], int]:
    """Which of `count` levels are meant, and the last of them."""
    if indices is None:
        return list(range(count)), count - 1
    from timm.models._features import feature_take_indices

    return feature_take_indices(count, indices)
