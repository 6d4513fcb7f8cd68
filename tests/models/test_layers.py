"""Depthwise convolution against PyTorch's padding="same", and checkpointing that changes no number."""

import copy

import pytest
import timm.layers
import torch
from torch import nn

from convmix.errors import ModelError
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.models.layers import POOLS, DepthwiseConv2d, DropPath, GlobalPool, activation
from convmix.models.multiscale import MultiScaleConvMixer

MODELS = {
    "convmixer": lambda: ConvMixer(8, 3, 4, 4, num_classes=5, drop_rate=0.2),
    "convmlp": lambda: ConvMLP((1, 2, 1), (8, 8, 12), mlp_ratios=(2, 2, 2), channels=4, num_classes=5, drop_path_rate=0.3),
    "multiscale": lambda: MultiScaleConvMixer(8, 3, num_classes=5, drop_path_rate=0.3, stem_dim=4),
    "multiscale mlp": lambda: MultiScaleConvMixer(8, 3, num_classes=5, channel_mixing="mlp", combine="split", stem_dim=4),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")  # PyTorch's own, from the reference
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, 8, 9])
def test_depthwise_equals_same_padding(kernel_size):
    ours = DepthwiseConv2d(6, kernel_size)
    theirs = nn.Conv2d(6, 6, kernel_size, groups=6, padding="same")
    theirs.load_state_dict(ours.state_dict())
    x, y = (torch.randn(2, 6, 7, 11, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    out, expected = ours(x), theirs(y)
    assert out.shape == x.shape
    torch.testing.assert_close(out, expected)
    for tensor in (out, expected):
        tensor.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("family", MODELS)
def test_checkpointing_changes_no_weight_gradient_or_statistic(family):
    torch.manual_seed(1)
    plain = MODELS[family]()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    x = torch.randn(4, 3, 32, 32)
    for _ in range(2):
        losses = []
        for model in (plain, saving):
            torch.manual_seed(2)  # the same dropout and stochastic depth in both
            loss = model(x).logsumexp(1).sum()
            loss.backward()
            losses.append(loss.detach())
            torch.optim.SGD(model.parameters(), lr=0.01).step()
        assert torch.equal(*losses)
    for (name, expected), value in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name
    for (name, expected), p in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(p.grad, expected.grad), name
    counters = [v for k, v in saving.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counters and all(int(c) == 2 for c in counters)


def test_checkpointing_recomputes():
    model = ConvMixer(8, 3, 3, 4, num_classes=5)
    calls = []
    model.blocks[1][1].register_forward_hook(lambda *_: calls.append(1))
    for enable, expected in ((False, 1), (True, 2)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        assert len(calls) == expected


def test_checkpointing_keeps_frozen_batchnorm_frozen():
    model = ConvMixer(8, 2, 3, 4, num_classes=5).eval()
    model.set_grad_checkpointing()
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("pool_type", ["", *POOLS])
def test_a_pool_is_timms_of_the_same_name(pool_type):
    ours, theirs = GlobalPool(pool_type), timm.layers.SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))
    x = torch.randn(3, 5, 7, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
    assert (ours.feat_mult(), ours.is_identity(), ours.pool_type) == (theirs.feat_mult(), theirs.is_identity(), theirs.pool_type)


@pytest.mark.parametrize("shape", [(6, 2, 2, 5), (6, 3, 2, 2)])
def test_stochastic_depth_draws_as_timms_and_only_in_training(shape):
    x, drawn = torch.randn(*shape), []
    for layer in (DropPath(0.4), timm.layers.DropPath(0.4)):
        torch.manual_seed(3)
        drawn.append(layer(x))
    assert torch.equal(*drawn)
    assert 0 < sum(not row.any() for row in drawn[0]) < len(x)
    assert DropPath(0.4).eval()(x) is x and DropPath(0.0)(x) is x


def test_unknown_activation_names_the_nearest():
    with pytest.raises(ModelError, match="'rellu', did you mean relu"):
        activation("rellu")
