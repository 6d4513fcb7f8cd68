"""The methods are what they say: completeness, Grad-CAM's formula, occlusion of one place, and evidence that was planted."""

import contextlib

import pytest
import torch
from evidence import AREA, noise, share_on_patch
from torch import nn
from torch.nn import functional as F

from convmix.cli import main
from convmix.errors import ConfigError
from convmix.explanation import attribution
from convmix.explanation.attribution import METHODS, attribute, check_methods
from convmix.explanation.hooked_copy import specimen
from convmix.explanation.methods import NAMES, TITLES
from convmix.explanation.stages import Layer, map_layer

CPU = torch.device("cpu")


def test_integrated_gradients_add_up_to_the_difference_of_the_outputs(seeing):
    images, targets = noise(4, seed=7)
    maps = attribute(seeing, images, targets.tolist(), method="integrated_gradients", layer=None)
    with torch.no_grad():
        rows = torch.arange(4)
        difference = seeing(images)[rows, targets] - seeing(torch.zeros_like(images))[rows, targets]
    assert torch.allclose(maps.sum((1, 2)), difference, rtol=0.02, atol=0.02)


class Pooled(nn.Module):
    """A convolution, an activation, the mean and a linear head: B,1,H,W -> B,2, the map in one layout or the other."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.turn = nn.Identity()
        self.head = nn.Linear(3, 2)
        self.layout = layout

    def forward(self, x):
        maps = self.conv(x).tanh()
        if self.layout == "NCHW":
            return self.head(self.turn(maps).mean((2, 3)))
        return self.head(self.turn(maps.permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradcam_is_its_formula(layout):
    model = specimen(Pooled(layout), CPU)
    image = torch.randn(1, 1, 6, 8)
    heat = attribute(model, image, [1], method="gradcam", layer=Layer("turn", layout, 3, (6, 8)))[0]
    maps = model.conv(image).tanh()[0]  # 3,6,8
    weights = model.head.weight[1] / (6 * 8)  # the mean over the map passes an equal share of the gradient to every position
    assert torch.allclose(heat, F.relu((weights[:, None, None] * maps).sum(0)), atol=1e-6)


class Size(nn.Module):
    """The sum of the pixels' sizes: at zero the slope is as often 1 as it is -1."""

    def forward(self, x):
        return x.abs().sum((1, 2, 3))[:, None]


def test_slopes_that_differ_from_copy_to_copy_cancel():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 0, 0] = 1
    heat = attribute(Size(), image, [0], method="saliency", layer=None)[0]
    assert heat[0, 0] == 1 and heat.flatten()[1:].mean() < 0.25


class Corner(nn.Module):
    """Output 0 is the mean of the upper left quarter, output 1 its negative."""

    def forward(self, x):
        h, w = x.shape[2:]
        corner = x[:, :, : h // 2, : w // 2].mean((1, 2, 3))
        return torch.stack([corner, -corner], 1)


@pytest.mark.parametrize("size", [(16, 16), (30, 17), (3, 3)])
def test_occlusion_finds_the_quarter_that_counts_and_its_sign(size):
    image = torch.ones(1, 2, *size)
    for target, sign in ((0, 1), (1, -1)):
        heat = attribute(Corner(), image, [target], method="occlusion", layer=None)[0]
        assert heat[0, 0] * sign > 0 and heat[-1, -1] == 0


def test_saliency_is_the_squared_gradient():
    heat = attribute(Corner(), torch.randn(1, 2, 8, 8), [1], method="saliency", layer=None)[0]
    assert torch.allclose(heat[:4, :4], torch.full((4, 4), 2 / 32**2)) and not heat[4:].any()  # 2 channels of 1/32 each


def test_a_map_does_not_depend_on_its_neighbours_nor_on_the_random_state(seeing):
    images, targets = noise(2, seed=7)
    together = attribute(seeing, images, targets.tolist(), method="saliency", layer=None)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone = attribute(seeing, images[1:], targets[1:].tolist(), method="saliency", layer=None)
    assert torch.equal(together[1], alone[0]) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", METHODS)
def test_planted_evidence_is_found(seeing, method):
    images, targets = noise(8, seed=7)
    model = specimen(seeing, CPU)
    assert (model(images).argmax(1) == targets).all()
    layer = map_layer(model, images[:1])
    maps = attribute(model, images, targets.tolist(), method=method, layer=layer)
    shares = [share_on_patch(m) for m in maps]
    assert sum(shares) / len(shares) > 2.5 * AREA, shares


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"methods: gradcamm is not one of .*, did you mean gradcam\?"):
        check_methods(["gradcamm"])
    assert check_methods("saliency") == ("saliency",) and check_methods(["occlusion", "occlusion"]) == ("occlusion",)


def test_a_missing_captum_is_one_line_that_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"^captum is not installed.*pip install 'convmix\[explain\]'$"):
        check_methods(["saliency"])
    assert check_methods([]) == ()
    assert set(attribution.METHODS) == set(METHODS)


def test_there_is_one_list_of_methods():
    assert tuple(METHODS) == NAMES and set(TITLES) == set(NAMES)


def test_the_help_names_every_method(capsys):
    with contextlib.suppress(SystemExit):
        main(["explain", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)
