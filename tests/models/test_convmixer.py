"""ConvMixer: shapes, sizes, arguments; the numbers against the originals are in test_golden.py."""

import pytest
import torch
from torch import nn

from convmix.benchmarking.process import plain
from convmix.errors import ModelError
from convmix.models.catalog import create_model, timm_config
from convmix.models.convmixer import ConvMixer
from convmix.speed.fold import fold
from convmix.speed.native import native


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("dim", "depth", "k", "p", "classes"), [(32, 3, 9, 7, 10), (16, 2, 8, 4, 5), (24, 1, 3, 1, 2)])
def test_parameters_follow_the_closed_form(dim, depth, k, p, classes):
    expected = 3 * dim * p**2 + 3 * dim + depth * (dim * k**2 + dim**2 + 6 * dim) + dim * classes + classes
    assert _parameters(ConvMixer(dim, depth, k, p, num_classes=classes)) == expected


def test_convmixer_256_8_has_the_papers_parameters():
    assert _parameters(ConvMixer(256, 8, 5, 2, num_classes=10)) == 594_186
    assert _parameters(ConvMixer(256, 8, 9, 1, num_classes=10)) == 706_570


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (33, 20)])
@pytest.mark.parametrize("in_chans", [1, 3, 12])
def test_any_image_size_and_channel_count(size, in_chans):
    model = ConvMixer(8, 2, 8, 4, in_chans=in_chans, num_classes=5)
    x = torch.randn(2, in_chans, *size)
    assert model.forward_features(x).shape == (2, 8, size[0] // 4, size[1] // 4)
    assert model(x).shape == (2, 5)


def test_too_small_an_image_says_what_is_needed():
    with pytest.raises(ModelError, match="at least 7x7 pixels, got 6x9"):
        ConvMixer(8, 1)(torch.randn(1, 3, 6, 9))


def test_wrong_channels_say_expected_and_got():
    with pytest.raises(ModelError, match=r"B,4,H,W, got 1,3,8,8"):
        ConvMixer(8, 1, in_chans=4)(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"kernel_size": 2.5}, "kernel_size is 2.5"),
        ({"act": "gellu"}, "did you mean gelu"),
        ({"act": "leaky_relu"}, "expected one of gelu, relu"),
        ({"norm": "layr"}, "norm is 'layr', did you mean layer"),
        ({"residual": "no"}, "residual is 'no', did you mean none\\? expected one of depthwise, none, both"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"drop_rate": 1.0}, "dropout is 1.0"),
        ({"global_pool": "mean"}, "global_pool 'mean'"),
        ({"global_pool": ""}, "needs pooled features"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ModelError, match=message):
        ConvMixer(**{"dim": 8, "depth": 1, **arguments})


def test_activation_is_the_one_asked_for():
    kinds = {type(m) for m in ConvMixer(8, 2, act="relu").modules()}
    assert nn.ReLU in kinds and nn.GELU not in kinds


def test_only_the_depthwise_convolution_has_a_residual():
    model = ConvMixer(8, 1, 3, 2).eval()
    block, x = model.blocks[0], torch.randn(1, 8, 4, 4)
    z = block[0].fn(x) + x
    assert torch.equal(block(x), block[3](block[2](block[1](z))))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("residual", ["depthwise", "none", "both"])
def test_norms_and_residuals_are_where_they_are_asked_for(norm, residual):
    model = ConvMixer(8, 1, 3, 2, norm=norm, residual=residual).eval()
    mix_space, pointwise, act, last = model.blocks[0]
    x = torch.randn(2, 8, 4, 4)
    y = mix_space.fn(x) + (0 if residual == "none" else x)
    z = last(act(pointwise(y))) + (y if residual == "both" else 0)
    torch.testing.assert_close(model.blocks[0](x), z)
    assert model.is_published is (norm == "batch" and residual == "depthwise")


def test_a_layer_norm_looks_at_the_channels_of_one_position():
    norm = ConvMixer(8, 1, 3, 2, norm="layer").stem[2]
    x = torch.randn(2, 8, 4, 4)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_other_norms_and_residuals_have_the_same_parameters():
    assert {_parameters(ConvMixer(8, 2, 3, 2, norm=n, residual=r)) for n in ("batch", "layer") for r in ("none", "both")} == {
        _parameters(ConvMixer(8, 2, 3, 2))
    }


@pytest.mark.parametrize("arguments", [{"norm": "layer"}, {"residual": "none"}, {"residual": "both"}])
def test_what_computes_in_its_place_refuses_what_it_does_not_know(arguments):
    model = ConvMixer(8, 1, 3, 2, num_classes=3, **arguments).eval()
    with pytest.raises(ModelError, match="paper's"):
        fold(model)
    with pytest.raises(ModelError, match="paper's"):
        native(model)
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    torch.testing.assert_close(plain(model)(x), expected)
    architecture, saved = timm_config(model)
    assert architecture == "convmixer" and saved.items() >= arguments.items()
    again = create_model(architecture, model_args=saved).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(x), expected)
