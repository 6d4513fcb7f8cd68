"""Semantic FPN: parameters, sizes, gradients, and one image learned by heart."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convmix.tasks.pyramid import DenseBackbone
from convmix.tasks.semanticfpn import ConvNormAct, SemanticFpn

CONVMLP = {"blocks": [1, 1, 1], "dims": [16, 24, 32], "mlp_ratios": [2, 2, 2], "channels": 8, "n_conv_blocks": 1}
BACKBONES = [
    ("convmlp", "authors", CONVMLP, 4),
    ("convmlp", "blocks", CONVMLP, 4),
    ("convmixer_16_2_k9_p7", "blocks", {}, 3.5),
    ("multiscale_convmixer", "blocks", {"dim": 8, "depth": 4, "patch_size": 8}, 4),
    ("resnet18", "blocks", {}, 4),
    ("deit_tiny_patch16_224", "blocks", {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 1}, 8),
]
STEPS = 60  # in which an image is learned by heart
EVERY = pytest.mark.parametrize(("name", "taps", "model_args", "stride"), BACKBONES, ids=[f"{n}-{t}" for n, t, *_ in BACKBONES])


def _network(name="convmlp", taps="authors", model_args=CONVMLP, *, pyramid_channels=16, seed=0) -> SemanticFpn:
    torch.manual_seed(seed)
    backbone = DenseBackbone(name, taps=taps, strides=(4, 8, 16, 32), model_args=model_args)
    return SemanticFpn(backbone, 3, pyramid_channels=pyramid_channels)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "published"), [("s", 12_759_158), ("m", 21_146_742), ("l", 46_331_046)])
def test_parameters_are_the_published_ones(size, published):
    with torch.device("meta"):
        network = SemanticFpn(DenseBackbone(f"convmlp_{size}", taps="authors", strides=(4, 8, 16, 32)), 150)
    assert sum(p.numel() for p in network.parameters()) == published


@EVERY
def test_logits_stand_at_the_finest_stride(name, taps, model_args, stride):
    network = _network(name, taps, model_args).eval()
    assert network.pyramid.strides[0] == stride
    images = torch.randn(2, 3, 224, 112)
    with torch.no_grad():
        assert network(images).shape == (2, 3, 224 // stride, 112 // stride)


@EVERY
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_parameter_learns_from_images_of_any_size(name, taps, model_args, stride, precision):
    network = _network(name, taps, model_args)
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
        logits = network(torch.randn(2, 3, 75, 90))
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, torch.randint(3, (2, *logits.shape[2:]))).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


def test_levels_are_doubled_until_the_finest_and_added():
    network = _network().eval()
    assert [sum(isinstance(m, ConvNormAct) for m in head) for head in network.scale_heads] == [1, 1, 2, 3]
    images = torch.randn(1, 3, 64, 64)
    levels = network.pyramid(network.backbone(images))
    total = network.scale_heads[0](levels[0])
    for head, level in zip(list(network.scale_heads)[1:], levels[1:], strict=True):
        for layer in (m for m in head if isinstance(m, ConvNormAct)):
            level = F.interpolate(layer(level), scale_factor=2, mode="bilinear", align_corners=False)
        total = total + level
    torch.testing.assert_close(network(images), network.conv_seg(total))


def test_the_classifier_is_everything_but_the_backbone():
    network = _network()
    head = {id(p) for p in network.get_classifier().parameters()}
    assert head == {id(p) for n, p in network.named_parameters() if not n.startswith("backbone.")}


def learned_by_heart(name, taps, model_args, *, seed=0):
    """A bright square on a gradient, its right half reddish: three classes, the background three quarters of all. The IoU of each."""
    network = _network(name, taps, model_args, seed=seed)
    image = torch.linspace(-1, 1, 112).expand(1, 3, 112, 112).clone()
    image[:, :, 28:84, 28:84] += 3
    image[:, 1:, 28:84, 56:84] -= 2
    classes = torch.zeros(1, 112, 112, dtype=torch.int64)
    classes[:, 28:84, 28:84] = 1
    classes[:, 28:84, 56:84] = 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1.0, 2 - 2 * step / STEPS)  # a constant rate ends anywhere around the optimum
        logits = F.interpolate(network(image), (112, 112), mode="bilinear", align_corners=False)
        optimizer.zero_grad()
        F.cross_entropy(logits, classes).backward()
        optimizer.step()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # statistics of the image as the finished network sees it
        norm.reset_running_stats()
    with torch.no_grad():
        network(image)
        said = F.interpolate(network.eval()(image), (112, 112), mode="bilinear", align_corners=False).argmax(1)
    return [float(((said == c) & (classes == c)).sum() / ((said == c) | (classes == c)).sum()) for c in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "taps", "model_args", "stride"), BACKBONES[:3:2], ids=[f"{n}-{t}" for n, t, *_ in BACKBONES[:3:2]]
)  # all: RetinaNet
def test_one_image_is_learned_by_heart(name, taps, model_args, stride):
    assert min(learned_by_heart(name, taps, model_args)) > 0.85
