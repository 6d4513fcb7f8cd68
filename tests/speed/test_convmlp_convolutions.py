"""Which convolutions of a model Winograd's algorithm takes over, and that the model stays what it is."""

import functools

import pytest
import torch
from torch import nn

from convmix.errors import ModelError
from convmix.models.catalog import create_model
from convmix.ops import build
from convmix.ops.winograd import WinogradConv2d
from convmix.speed.backends import EnginePlan
from convmix.speed.backends import build as build_runner
from convmix.speed.fold import fold
from convmix.speed.winograd import use_winograd

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")
SMALL = {"blocks": [1, 1, 1], "dims": [64, 64, 64], "mlp_ratios": [1, 1, 1], "channels": 64, "n_conv_blocks": 2}


def convmlp() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("convmlp", model_args=SMALL, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
    return model


def test_the_wide_convolutions_are_replaced_with_their_relu():
    model, x = convmlp(), torch.randn(2, 3, 40, 36)
    expected = model(x)
    folded = fold(model)
    assert use_winograd(folded, torch.float32) == 4  # two of the tokenizer, one per conv block
    assert sum(isinstance(m, WinogradConv2d) and m.relu for m in folded.modules()) == 4
    assert sum(isinstance(m, nn.ReLU) for m in folded.modules()) == sum(isinstance(m, nn.ReLU) for m in model.modules()) - 4
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)


def test_narrow_ones_stay_in_bf16():
    assert use_winograd(fold(convmlp()), torch.bfloat16) == 2  # the tokenizer has 32 channels


def test_a_batchnorm_in_between_keeps_its_place():
    model = convmlp()  # not folded: BatchNorm stands between the convolution and its ReLU
    x = torch.randn(1, 3, 32, 32)
    expected = model(x)
    use_winograd(model, torch.float32)
    assert not any(m.relu for m in model.modules() if isinstance(m, WinogradConv2d))
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("convmixer_16_2_k5_p4", torch.float32, "ConvMixer has no 3x3 convolution that gains"),
        ("convmlp_s", torch.float16, "float32 or bfloat16, not torch.float16"),
    ],
)
def test_models_without_gain_are_refused(name, dtype, message):
    with pytest.raises(ModelError, match=message):
        use_winograd(create_model(name).eval(), dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_the_native_backend_of_convmlp_equals_the_model(dtype, tolerance, monkeypatch):
    if dtype == "bf16":  # the graph alone; the code that inductor makes of it is looked at in fp32
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    model, x = convmlp(), torch.randn(3, 3, 40, 36)
    runner = build_runner(EnginePlan("native", dtype), model, x[:2])
    with torch.no_grad():
        expected = model(x)
    assert float((runner(x) - expected).abs().max() / expected.abs().max()) < tolerance
