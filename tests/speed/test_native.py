"""ConvMixer on our own kernels equals the model, borders included."""

import pytest
import torch
from torch import nn

from convmix.errors import ModelError
from convmix.models.convmixer import ConvMixer
from convmix.models.convmlp import ConvMLP
from convmix.ops import build
from convmix.speed.native import native

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler here")


def trained(act: str, kernel_size: int) -> ConvMixer:
    """A small model whose batch norms have statistics and affines far from their first values."""
    torch.manual_seed(kernel_size)
    model = ConvMixer(40, 3, kernel_size, 3, num_classes=7, act=act)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(4, 3, 31, 37))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("kernel_size", [5, 8, 9])
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_native_equals_the_model(act: str, kernel_size: int) -> None:
    model, images = trained(act, kernel_size), torch.randn(3, 3, 32, 41)
    with torch.no_grad():
        exact = model.double()(images.double())
        model.float()
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
            difference = (native(model, dtype)(images) - exact).abs().max() / exact.abs().max()
            assert difference <= tolerance, dtype


def test_a_scale_of_zero_is_not_divided_by() -> None:
    model, images = trained("gelu", 5), torch.randn(2, 3, 30, 30)
    for norm in (model.stem[2], model.blocks[1][3]):
        norm.weight.data[3] = 0
    with torch.no_grad():
        assert torch.allclose(native(model)(images), model(images), rtol=1e-4, atol=1e-4)


def test_what_it_cannot_run_is_refused() -> None:
    with pytest.raises(ModelError, match="ConvMLP"):
        native(ConvMLP((1, 1, 1), (8, 16, 16), mlp_ratios=(2, 2, 2), channels=8))
    with pytest.raises(ModelError, match="float16"):
        native(trained("relu", 3), torch.float16)
    with pytest.raises(ModelError, match="average"):
        native(ConvMixer(8, 1, 3, 2, num_classes=3, global_pool="max"))
