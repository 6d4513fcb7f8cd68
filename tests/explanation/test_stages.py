"""Stages and the layer of class activation maps are found in every family and any timm model, without one being named."""

import pytest
import timm
import torch
from torch import nn

from convmix.explanation.attribution import METHODS, attribute
from convmix.explanation.hooked_copy import specimen
from convmix.explanation.stages import Layer, as_nchw, map_layer, spread, stage_maps
from convmix.models.catalog import create_model

CPU = torch.device("cpu")
CONVMLP = {"blocks": [1, 1, 1], "dims": [8, 12, 16], "mlp_ratios": [2, 2, 2], "channels": 4}
# model -> arguments, image side, the layer that maps are read from, its layout and grid
MODELS = {
    "convmixer_8_3_k3_p4": ({}, 32, "blocks.2", "NCHW", (8, 8)),
    "multiscale_convmixer": ({"model_args": {"dim": 8, "depth": 3, "stem_dim": 8}}, 32, "pointwise", "NCHW", (8, 8)),
    "convmlp": ({"model_args": CONVMLP}, 128, "norm", "NHWC", (4, 4)),
    "vit_tiny_patch16_224": ({"model_args": {"img_size": 64, "depth": 3}}, 64, "blocks.2.norm1", "NLC", (4, 4)),
    "resnet18": ({}, 128, "layer4", "NCHW", (4, 4)),
    "convnext_atto": ({}, 128, "norm_pre", "NCHW", (4, 4)),
    "mixer_s32_224": ({"model_args": {"img_size": 128}}, 128, "norm", "NLC", (4, 4)),
    "swin_tiny_patch4_window7_224": (
        {"model_args": {"img_size": 128, "window_size": 4, "depths": (1, 1, 1, 1)}},
        128,
        "norm",
        "NHWC",
        (4, 4),
    ),
}
SMALL = tuple(MODELS)[:4]  # every layout


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def built(name: str, **arguments: object) -> nn.Module:
    model = create_model(name, num_classes=2, **arguments)
    nn.init.normal_(model.get_classifier().weight)  # timm starts some at zero
    return specimen(model, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_method_runs_without_a_layer_being_named(name):
    arguments, side, expected, layout, grid = MODELS[name]
    model = built(name, **arguments)
    image = torch.randn(1, 3, side, side)
    layer = map_layer(model, image)
    assert layer is not None and (layer.name, layer.layout, layer.grid) == (expected, layout, grid)
    stages = stage_maps(model, image)
    assert all(s.maps.ndim == 4 and s.maps.shape[2] == side // s.stride for s in stages)
    assert stages[-1].maps.shape[1:] == (layer.channels, *grid)
    # Integrated gradients and occlusion take the same way through the larger models, many times: saliency and Grad-CAM suffice there.
    for method in METHODS if name in SMALL else ("saliency", "gradcam"):
        maps = torch.cat([attribute(model, image, [k], method=method, layer=layer) for k in range(2)])  # Grad-CAM may find nothing for one
        assert maps.shape == (2, side, side) and maps.isfinite().all() and maps.abs().max() > 0, method


def test_a_map_of_a_single_position_is_no_map():
    model = built("convmlp", model_args=CONVMLP)
    layer = map_layer(model, torch.randn(1, 3, 32, 32))  # strides 4, 8, 16, 32: 8x8, 4x4, 2x2, 1x1
    assert layer is not None and layer.grid == (4, 4) and layer.layout == "NHWC"


def test_a_head_of_zeros_hides_no_layer():
    model = built("convmixer_8_3_k3_p4")
    nn.init.zeros_(model.head.weight)
    layer = map_layer(model, torch.randn(1, 3, 32, 32))
    assert layer is not None and layer.name == "blocks.2"


def test_a_small_image_gets_the_largest_map_there_is():
    layer = map_layer(built("resnet18"), torch.randn(1, 3, 4, 4))
    assert layer is not None and layer.grid == (2, 2)


class Plain(nn.Module):
    """No contract at all: two convolutions and a head that never meet timm."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.relu(self.b(self.relu(self.a(x)))).mean((2, 3)))


def test_a_model_without_a_contract_is_watched():
    model = specimen(Plain(), CPU)
    image = torch.randn(1, 3, 16, 24)
    assert [(s.stride, tuple(s.maps.shape)) for s in stage_maps(model, image)] == [(2, (1, 4, 8, 12)), (4, (1, 5, 4, 6))]
    layer = map_layer(model, image)
    assert layer is not None and (layer.name, layer.grid) == ("relu", (4, 6))


def test_a_model_without_maps_has_no_layer():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    assert map_layer(flat, torch.randn(1, 3, 4, 4)) is None and stage_maps(flat, torch.randn(1, 3, 4, 4)) == []


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC"])
def test_layouts_go_to_nchw_and_back(layout):
    x = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    prefix = torch.full((2, 1, 3), -1.0)
    output = {"NCHW": x, "NHWC": x.permute(0, 2, 3, 1), "NLC": torch.cat([prefix, x.flatten(2).transpose(1, 2)], 1)}[layout]
    layer = Layer("", layout, 3, (4, 5), prefix=1 if layout == "NLC" else 0)
    assert torch.equal(layer.to_nchw(output), x)
    assert torch.equal(layer.from_nchw(x, output), output)


def test_the_passage_changes_no_output_and_leaves_no_hook():
    model = built("convmlp", model_args=CONVMLP)
    image = torch.randn(1, 3, 128, 128)
    before, layer = model(image), map_layer(model, image)
    seen = []
    with as_nchw(model, layer) as passage:
        passage.register_forward_hook(lambda m, args, y: seen.append(y.shape))
        assert torch.equal(model(image), before)
    assert seen == [(1, 16, 4, 4)]
    assert not any(m._forward_hooks for m in model.modules())


def test_stages_are_spread_over_the_depth():
    model = timm.create_model("convmixer", dim=4, depth=9, kernel_size=3, patch_size=4)
    names = [s.name for s in spread(stage_maps(model, torch.randn(1, 3, 16, 16)), 4)]
    assert names == ["blocks.0", "blocks.2", "blocks.5", "blocks.8"]
