"""What a model is made of: receptive fields, activations, filters and kernels, each beside numbers worked out by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convmix.explanation.activations import activation_statistics
from convmix.explanation.hooked_copy import specimen
from convmix.explanation.receptive_field import receptive_fields, square_side
from convmix.explanation.weights import Depthwise, depthwise_layers, filters_picture, first_filters, kernels_picture
from convmix.models.catalog import create_model

CPU = torch.device("cpu")


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_the_effective_field_lies_inside_the_possible_one():
    torch.manual_seed(0)
    model = specimen(create_model("convmixer_8_4_k5_p2", num_classes=2), CPU)
    fields = receptive_fields(model, torch.randn(4, 3, 64, 64))
    assert [f.possible_px for f in fields] == [2 * (1 + 4 * n) for n in (1, 2, 3, 4)]  # patch 2, kernel 5
    for f in fields:
        outside = f.gradient.clone()
        first = max(0, 33 - f.possible_px // 2)  # unit 16 of 32 begins at pixel 32 and is 2 wide
        outside[first : first + f.possible_px, first : first + f.possible_px] = 0
        assert all(abs(c - 33) < 2 for c in f.centre)
        assert not outside.any() and 0 < f.half_px <= f.effective_px <= f.possible_px
        assert float(f.gradient.sum()) == pytest.approx(1, abs=1e-5)
    assert fields[-1].effective_px > fields[0].effective_px


def test_weights_decide_how_much_of_the_possible_field_is_used():
    """Kernels of 9 that are zero but for the middle see no further than the patch."""
    model = create_model("convmixer_8_2_k9_p2", num_classes=2)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.dirac_(layer.weight, groups=layer.groups)
    fields = receptive_fields(specimen(model, CPU), torch.randn(2, 3, 32, 32))
    assert [f.effective_px for f in fields] == [2, 2] and [f.possible_px for f in fields] == [18, 34]


def test_the_square_is_the_smallest_that_holds_the_share():
    mass = torch.zeros(9, 9)
    mass[4, 4], mass[4, 6], mass[0, 0] = 6, 3, 1
    centre = (4.5, 4.5)
    assert [square_side(mass, centre, share=s) for s in (0.5, 0.8, 0.95)] == [1, 5, 9]
    assert square_side(torch.zeros(9, 9), centre, share=0.5) == 0


class Known(nn.Module):
    """B,2,H,W: channel 0 is always negative, channel 1 as given; ReLU, then a sigmoid of a large and of a small number."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    def forward(self, x):
        y = self.relu(torch.stack([-x[:, 0].abs() - 1, x[:, 1]], 1))
        return self.sigmoid(torch.stack([y[:, 1] * 0 + 50, y[:, 1] * 0], 1)).mean((2, 3))


def test_zero_flat_and_dead_are_counted():
    x = torch.ones(1, 2, 8, 8)
    x[:, 1, :, :2] = -1  # a quarter of the second channel
    relu, sigmoid = activation_statistics(Known(), torch.cat([x, x]))
    assert (relu.layer, relu.kind) == ("relu", "ReLU")
    assert relu.mean == pytest.approx(0.375) and relu.std == pytest.approx(0.375**0.5 * 0.625**0.5)
    assert relu.zero == relu.saturated == pytest.approx(0.625) and relu.dead == 0.5
    assert sigmoid.mean == pytest.approx(0.75) and sigmoid.saturated == 0.5 and sigmoid.dead == 0.5 and sigmoid.zero == 0


def test_channels_last_blocks_have_their_channels_counted():
    """In ConvMLP's blocks the channels come last: one that is far below zero everywhere is dead, whatever the position."""
    torch.manual_seed(0)
    model = create_model(
        "convmlp", num_classes=2, model_args={"blocks": [1, 1, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 4}
    )
    hidden = model.stages[0].blocks[0].channel_mlp1.fc1
    with torch.no_grad():
        hidden.weight[:4] = 0
        hidden.bias[:4] = -50  # 4 of 16 hidden channels
    rows = {a.layer: a for a in activation_statistics(specimen(model, CPU), torch.randn(2, 3, 64, 64))}
    assert rows["stages.0.blocks.0.channel_mlp1.act"].dead == 0.25 and rows["stages.1.blocks.0.channel_mlp1.act"].dead == 0


@pytest.mark.parametrize(
    ("name", "arguments", "first", "kernels"),
    [
        ("convmixer_8_3_k5_p4", {}, ("stem.0", (8, 3, 4, 4)), [5, 5, 5]),
        ("multiscale_convmixer", {"dim": 8, "depth": 2, "stem_dim": 8}, ("stem.0", (8, 3, 7, 7)), [3, 5, 7, 3]),
        ("resnet18", {}, ("conv1", (64, 3, 7, 7)), []),
        ("vit_tiny_patch16_224", {"depth": 1}, ("patch_embed.proj", (192, 3, 16, 16)), []),
    ],
)
def test_filters_and_kernels_of_every_family(name, arguments, first, kernels):
    model = create_model(name, num_classes=2, model_args=arguments)
    found = first_filters(model)
    assert found is not None and (found[0], tuple(found[1].shape)) == first
    layers = depthwise_layers(model)
    assert [layer.kernels.shape[-1] for layer in layers] == kernels
    assert size_of(filters_picture(found[1]))[0] == 900
    if layers:
        assert size_of(kernels_picture(layers))[0] == 900


def test_a_model_of_linear_layers_has_neither():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    assert first_filters(model) is None and depthwise_layers(model) == []


@pytest.mark.slow
def test_pictures_take_any_channel_count_and_dead_filters():
    for shape in ((70, 1, 3, 3), (5, 12, 2, 2)):
        assert size_of(filters_picture(torch.zeros(shape)))[0] == 900
    assert size_of(kernels_picture([Depthwise(f"layer {i}", torch.zeros(3, 5, 5)) for i in range(40)])) == (900, 846)  # 16 of the 40 layers


def test_spread_is_the_distance_of_the_weights_from_the_middle():
    centre, ring = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)
    centre[:, 1, 1], ring[:, 1, 0] = 1, -2
    assert Depthwise("", centre).spread_px == 0 and Depthwise("", ring).spread_px == pytest.approx(1)
    assert Depthwise("", torch.ones(1, 3, 3)).spread_px == pytest.approx(np.sqrt(12 / 9))
