"""ConvMLP: features, stochastic depth, initialisation; the numbers against the original are in test_golden.py."""

import pytest
import timm.layers
import torch
from torch import nn

from convmix.errors import ModelError
from convmix.models import convmlp
from convmix.models.convmlp import ConvMLP
from convmix.models.layers import DropPath


def _small(**changes) -> ConvMLP:
    arguments = {"mlp_ratios": (2, 3, 2), "channels": 6, "num_classes": 5, **changes}
    return ConvMLP(arguments.pop("blocks", (2, 3, 1)), (8, 12, 16), **arguments)


def _rates(model: ConvMLP) -> list[list[float]]:
    return [[getattr(b.drop_path, "drop_prob", 0.0) for b in stage.blocks] for stage in model.stages]


@pytest.mark.parametrize("size", [(32, 32), (64, 80), (33, 47)])
def test_features_stand_at_strides_4_to_32(size):
    model = _small().eval()
    x = torch.randn(1, 3, *size)
    last, features = model.forward_intermediates(x)
    for info, feature in zip(model.feature_info, features, strict=True):
        assert feature.shape == (1, info["num_chs"], *(-(-s // info["reduction"]) for s in size))
    assert torch.equal(last, model.forward_features(x))
    assert model(x).shape == (1, 5)


def test_stride_4_feature_is_what_the_downsampling_takes():
    model = _small().eval()
    seen = {}
    model.conv_stages.downsample.register_forward_hook(lambda m, args, out: seen.update(taken=args[0]))
    features = model.forward_intermediates(torch.randn(1, 3, 32, 32), intermediates_only=True)
    assert torch.equal(seen["taken"], features[0])


def test_norm_applies_to_the_last_level_alone():
    model = _small().eval()
    nn.init.normal_(model.norm.weight)
    x = torch.randn(1, 3, 32, 32)
    plain = model.forward_intermediates(x, intermediates_only=True)
    normed = model.forward_intermediates(x, norm=True, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], normed[:3], strict=True))
    torch.testing.assert_close(normed[3], model.norm(plain[3].permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_too_small_an_image_says_what_is_needed():
    with pytest.raises(ModelError, match="at least 32x32 pixels, got 31x64"):
        _small()(torch.randn(1, 3, 31, 64))


def test_stochastic_depth_rises_within_each_stage():
    assert _rates(_small()) == [pytest.approx([0.0, 0.1]), pytest.approx([0.0, 0.05, 0.1]), [0.0]]
    assert _rates(_small(drop_path_rate=0.4)) == [pytest.approx([0.0, 0.4]), pytest.approx([0.0, 0.2, 0.4]), [0.0]]
    assert not any(isinstance(m, DropPath) for m in _small(drop_path_rate=0.0).modules())


def test_stochastic_depth_is_applied_when_training_only():
    model = _small(drop_path_rate=0.9)
    block, x = model.stages[1].blocks[2], torch.randn(64, 4, 4, 12)
    nn.init.normal_(block.channel_mlp1.fc2.weight)
    dropped = (block.channel_mlp1(block.norm1(x)) * 0).flatten(1)
    kept = block.drop_path(block.channel_mlp1(block.norm1(x))).flatten(1)
    share = (kept == dropped).all(1).float().mean()
    assert 0.7 < share < 1.0  # 0.9 of the samples lose the branch
    model.eval()
    assert torch.equal(block(x), block(x))
    model.train()
    assert not torch.equal(block(x), block(x))


def test_initialisation_is_the_authors():
    torch.manual_seed(0)
    model = ConvMLP((1, 1, 1), (64, 64, 64), mlp_ratios=(4, 4, 4), channels=64, num_classes=100)
    linear = model.stages[0].blocks[0].channel_mlp1.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05) and not linear.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05) and not model.head.bias.any()
    conv = model.conv_stages.conv_blocks[0][3]  # 3x3, 64 -> 64
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05) and conv.bias is None
    assert not model.conv_stages.downsample.bias.any()


def test_initialisation_draws_what_timms_truncated_normal_draws():
    theirs = torch.empty(9, 40)
    torch.manual_seed(0)
    timm.layers.trunc_normal_(theirs, std=0.02)
    ours = nn.Linear(40, 9)
    torch.manual_seed(0)
    convmlp._init(ours)
    assert torch.equal(ours.weight, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (1, 2)}, "three positive numbers"),
        ({"mlp_ratios": (2, 0, 2)}, "mlp_ratios"),
        ({"channels": 7}, "even number"),
        ({"drop_path_rate": 1.0}, "drop_path is 1.0"),
    ],
)
def test_impossible_arguments_are_named(changes, message):
    with pytest.raises(ModelError, match=message):
        _small(**changes)


@pytest.mark.parametrize("out_indices", [(0,), (1,), (0, 2), (3,)])
def test_pruned_model_gives_the_same_features_without_idle_parameters(out_indices):
    model = _small().eval()
    x = torch.randn(1, 3, 32, 32)
    expected = model.forward_intermediates(x, indices=list(out_indices), intermediates_only=True)
    model.prune_intermediate_layers(list(out_indices), prune_norm=True)
    features = model.forward_intermediates(x, indices=list(out_indices), intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=True))
    features[-1].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
