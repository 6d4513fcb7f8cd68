"""Shapes that are found quickly are those that torch finds."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from convmix.models import describe as described
from convmix.models.catalog import NAMED
from convmix.models.meta_shapes import QuickShapes

DEEPER = {"convmixer_1536_20", "convmixer_1024_20_ks9_p14", "convmlp_s", "convmlp_m", "convmlp_l", "multiscale_convmixer_m"}  # than another
VARIANTS = {
    "layer norms, no residual": ("convmixer", {"dim": 12, "depth": 2, "norm": "layer", "residual": "none"}),
    "even kernels, two residuals": ("convmixer", {"dim": 12, "depth": 2, "kernel_size": 4, "patch_size": 3, "residual": "both"}),
    "perceptrons, split branches": ("multiscale_convmixer", {"dim": 12, "depth": 4, "combine": "split", "channel_mixing": "mlp"}),
    "leaky, stochastic depth": ("multiscale_convmixer", {"dim": 12, "depth": 4, "act": "leaky_relu", "drop_path_rate": 0.2}),
    "both pools, dropout": ("convmixer", {"dim": 12, "depth": 2, "global_pool": "catavgmax", "drop_rate": 0.3}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "args"),
    [*((name, None) for name in NAMED if name not in DEEPER), *(pytest.param(*v, id=what) for what, v in VARIANTS.items())],
)
def test_a_quick_description_is_the_one_by_torchs_rules(name, args, monkeypatch):
    quick = described.describe(name, size=(70, 97), model_args=args)
    monkeypatch.setattr(described, "_quick", lambda name: nullcontext())
    assert quick == described.describe(name, size=(70, 97), model_args=args)


OPERATIONS = {
    "convolution": lambda x, w, c: F.conv2d(x, w, c, stride=2, padding=1, dilation=2),
    "transposed convolution": lambda x, w, c: F.conv_transpose2d(x, w, c, stride=2),
    "pooling": lambda x, w, c: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    "pooling, rounded up": lambda x, w, c: F.max_pool2d(x, 2, 2, 0, ceil_mode=True),
    "mean": lambda x, w, c: x.mean((-2, -1)),
    "mean, dimensions kept": lambda x, w, c: x.mean((2, 3), keepdim=True),
    "linear layer": lambda x, w, c: F.linear(x.flatten(1), x.new_empty(5, x[0].numel()), x.new_empty(5)),
    "linear layer over channels": lambda x, w, c: F.linear(x.permute(0, 2, 3, 1), x.new_empty(5, 8), x.new_empty(5)),
    "batch norm, training": lambda x, w, c: torch.native_batch_norm(x, c, c, c, c, True, 0.1, 1e-5),
    "batch norm": lambda x, w, c: F.batch_norm(x, c, c, c, c),
    "layer norm": lambda x, w, c: F.layer_norm(x.permute(0, 2, 3, 1), (8,), c, c),
    "channels last": lambda x, w, c: F.gelu(x.to(memory_format=torch.channels_last)),
    "broadcast": lambda x, w, c: x + c[:, None, None],
    "broadcast, the other way round": lambda x, w, c: c[:, None, None] * x,
    "two types": lambda x, w, c: x + c[:, None, None].double(),
    "a number": lambda x, w, c: x * 2,
    "twice the sum": lambda x, w, c: torch.add(x, x, alpha=2),
    "in place": lambda x, w, c: x.normal_().mul_(2).clamp_(-1, 1),
}


@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_gives_shapes_strides_and_types_of_torchs(operation, grad):
    x, w, c = (torch.empty(*shape, device="meta") for shape in ((2, 8, 11, 9), (8, 8, 3, 3), (8,)))
    with torch.set_grad_enabled(grad):
        expected = OPERATIONS[operation](x, w, c)
        with QuickShapes():
            found = OPERATIONS[operation](x, w, c)
    for ours, theirs in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
        assert (ours.shape, ours.dtype, ours.device, ours.stride()) == (theirs.shape, theirs.dtype, theirs.device, theirs.stride())


def test_real_tensors_are_computed():
    x = torch.ones(2, 3)
    with QuickShapes():
        assert torch.equal(torch.relu(-x), torch.zeros(2, 3)) and torch.equal(x + x, 2 * x)


def test_what_torch_refuses_is_refused():
    x, w = torch.empty(1, 3, 4, 4, device="meta"), torch.empty(8, 3, 7, 7, device="meta")
    with QuickShapes(), pytest.raises(RuntimeError):
        F.conv2d(x, w)
    with QuickShapes(), pytest.raises(RuntimeError):
        torch.mm(x[0, 0], w[0, 0])
