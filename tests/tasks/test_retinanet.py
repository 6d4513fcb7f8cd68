"""RetinaNet: parameters, anchors, losses and found boxes, and one image learned by heart."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.ops import box_iou

from convmix.tasks.anchors import Anchors
from convmix.tasks.pyramid import DenseBackbone
from convmix.tasks.retinanet import RetinaNet

CONVMLP = {"blocks": [1, 1, 1], "dims": [16, 24, 32], "mlp_ratios": [2, 2, 2], "channels": 8, "n_conv_blocks": 1}
BACKBONES = [
    ("convmlp", "authors", CONVMLP),
    ("convmlp", "blocks", CONVMLP),
    ("convmixer_16_2_k9_p7", "blocks", {}),
    ("resnet18", "blocks", {}),
    ("deit_tiny_patch16_224", "blocks", {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 1}),
]
EVERY = pytest.mark.parametrize(("name", "taps", "model_args"), BACKBONES, ids=[f"{n}-{t}" for n, t, _ in BACKBONES])
STEPS = 80  # in which an image is learned by heart


def _network(name="convmlp", taps="authors", model_args=CONVMLP, *, classes=3, seed=0, **changes) -> RetinaNet:
    torch.manual_seed(seed)
    backbone = DenseBackbone(name, taps=taps, strides=(8, 16, 32), model_args=model_args)
    return RetinaNet(backbone, classes, **{"pyramid_channels": 16, **changes})


def _talkative(network: RetinaNet) -> RetinaNet:
    """The network with scores all over 0..1 instead of all below 0.05."""
    head = network.head.classification_head.cls_logits
    nn.init.normal_(head.weight, std=2.0)
    nn.init.constant_(head.bias, -2.0)
    nn.init.normal_(network.head.regression_head.bbox_reg.weight, std=0.5)
    return network.eval()


def _objects(*boxes: tuple[float, ...], labels=None) -> dict:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
    }


@pytest.mark.parametrize(("size", "published"), [("s", 18_742_484), ("m", 27_130_068), ("l", 52_896_004)])
def test_parameters_are_the_published_ones(size, published):
    with torch.device("meta"):
        network = RetinaNet(DenseBackbone(f"convmlp_{size}", taps="authors", strides=(8, 16, 32)), 80)
    assert sum(p.numel() for p in network.parameters()) == published


def test_anchors_are_those_of_mmdetection():
    """Its AnchorGenerator(strides, ratios=[.5, 1, 2], octave_base_scale=4, scales_per_octave=3), by its own formula."""
    network = _network()
    assert network.anchors.strides == (8, 16, 32, 64, 128)
    images, maps = torch.zeros(2, 3, 75, 90), [torch.zeros(2, 1, -(-75 // s), -(-90 // s)) for s in (8, 16, 32, 64, 128)]
    first, second = network.anchors(_image_list(images), maps)
    assert torch.equal(first, second)
    assert len(first) == 9 * sum(m.shape[2] * m.shape[3] for m in maps)
    expected = []
    for h in (0.5**0.5, 1.0, 2**0.5):
        for scale in (4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)):
            w, h_ = 8 * scale / h / 2, 8 * scale * h / 2
            expected.append([-w, -h_, w, h_])
    torch.testing.assert_close(first[:9], torch.tensor(expected))
    torch.testing.assert_close(first[9:18], torch.tensor(expected) + torch.tensor([8.0, 0, 8, 0]))  # along the row first
    torch.testing.assert_close(first[9 * 12 : 9 * 13], torch.tensor(expected) + torch.tensor([0, 8.0, 0, 8]))  # 12 columns


def test_anchors_of_half_strides_are_not_rounded():
    (anchors,) = Anchors([3.5], [4.0])(_image_list(torch.zeros(1, 3, 7, 7)), [torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)])
    assert anchors.dtype == torch.float32
    torch.testing.assert_close(anchors[1], torch.tensor([-7.0, -7, 7, 7]))
    torch.testing.assert_close(anchors[4], torch.tensor([-3.5, -7, 10.5, 7]))


def _image_list(images):
    from torchvision.models.detection.image_list import ImageList

    return ImageList(images, [images.shape[-2:]] * len(images))


@pytest.fixture(scope="module")
def rival():
    """A network, torchvision's around the same parts, and what the heads say of an image."""
    network = _talkative(_network())
    network.backbone.out_channels = 16
    theirs = TorchvisionRetinaNet(network.backbone, 3, anchor_generator=network.anchors, head=network.head, detections_per_img=100).eval()
    images = torch.randn(1, 3, 75, 90)
    with torch.no_grad():
        maps = network.pyramid(network.backbone(images))
        return network, theirs, images, maps, network.head(maps), network.anchors(_image_list(images), maps)


def test_losses_of_one_image_are_torchvisions(rival):
    network, theirs, images, _, heads, anchors = rival
    target = _objects((10, 12, 60, 50), (0, 0, 30, 70), (70, 20, 74, 25), labels=[2, 0, 1])
    expected = theirs.compute_loss([target], heads, anchors)
    losses = network(images, [target])
    assert losses.keys() == expected.keys() == {"classification", "bbox_regression"}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_found_boxes_are_torchvisions(rival):
    network, theirs, images, maps, heads, anchors = rival
    per_level = [9 * m.shape[2] * m.shape[3] for m in maps]
    split = {name: list(t.split(per_level, 1)) for name, t in heads.items()}
    (expected,) = theirs.postprocess_detections(split, [list(anchors[0].split(per_level))], [(75, 90)])
    with torch.no_grad():
        (found,) = network(images)
    assert len(found["boxes"]) == 100  # the limit
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert found["labels"].unique().tolist() == [0, 1, 2]


def test_losses_are_divided_by_the_objects_anchors_of_the_whole_batch():
    network = _talkative(_network())
    images = torch.randn(2, 3, 64, 64)
    target, nothing = _objects((0, 0, 32, 32)), _objects()
    positive = int((network._match(network.anchors(_image_list(images), _maps(network, images))[0], target["boxes"]) >= 0).sum())
    assert positive > 1
    both = network(images, [target, nothing])
    first, second = network(images[:1], [target]), network(images[1:], [nothing])
    for name in both:
        torch.testing.assert_close(both[name], (positive * first[name] + second[name]) / (positive + 1))


def _maps(network, images):
    return network.pyramid(network.backbone(images))


@EVERY
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_parameter_learns_from_any_batch(name, taps, model_args, precision):
    network = _network(name, taps, model_args)
    images = torch.randn(3, 3, 75, 90)
    targets = [_objects((5, 5, 50, 60), (20, 30, 90, 75), labels=[1, 2]), _objects(), _objects((1, 1, 3, 3))]
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
        losses = network(images, targets)
    assert all(v.dtype == torch.float32 and v.isfinite() and v > 0 for v in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@EVERY
def test_without_targets_boxes_on_the_input_come_out(name, taps, model_args):
    network = _talkative(_network(name, taps, model_args))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network(torch.randn(2, 3, 75, 90))
    for one in found:
        assert 0 < len(one["boxes"]) <= 100
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        assert (one["boxes"][:, 0::2] <= 90).all() and (one["boxes"][:, 1::2] <= 75).all() and (one["boxes"] >= 0).all()
        assert (one["scores"].diff() <= 0).all() and (one["scores"] > 0.05).all()
        assert one["labels"].max() < 3


def test_heads_of_any_width_start_with_the_signal_of_the_published_one():
    """What four convolutions leave of their input, at 256 channels 0.01 of deviation each, as mmdetection has it."""
    left = []
    for width in (16, 256):
        head = _network(pyramid_channels=width).head.classification_head
        with torch.no_grad():
            left.append(head.conv(torch.randn(1, width, 32, 32)).square().mean().sqrt().item())
    assert head.conv[0][0].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert 0.3 < left[0] / left[1] < 3


def test_an_image_in_which_nothing_is_found():
    (found,) = _network().eval()(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(t.shape) for name, t in found.items()} == {"boxes": (0, 4), "scores": (0,), "labels": (0,)}


def test_images_without_objects_are_learned_from():
    losses = _network()(torch.randn(2, 3, 64, 64), [_objects(), _objects()])
    assert losses["classification"] > 0
    assert losses["bbox_regression"] == 0


def test_targets_and_not_the_mode_decide_what_comes_out():
    network, images = _network(), torch.randn(1, 3, 64, 64)
    assert isinstance(network.eval()(images, [_objects()]), dict)
    assert isinstance(network.train()(images), list)


def test_class_logits_are_the_scores_before_any_choice():
    network = _talkative(_network())
    images = torch.randn(1, 3, 64, 64)
    logits = network.class_logits(images)
    (found,) = network(images)
    torch.testing.assert_close(logits.amax().sigmoid(), found["scores"][0])
    assert logits.shape == (1, 9 * (64 + 16 + 4 + 1 + 1), 3)


def test_the_classifier_is_everything_but_the_backbone():
    network = _network()
    head = {id(p) for p in network.get_classifier().parameters()}
    backbone = {id(p) for p in network.backbone.parameters()}
    assert head | backbone == {id(p) for p in network.parameters()}
    assert not head & backbone


def learned_by_heart(name, taps, model_args, *, seed=0):
    """A bright square: the label and score of the best object found, and how far its box is the square's."""
    network = _network(name, taps, model_args, pyramid_channels=24, seed=seed)
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 12:44, 20:52] = 1
    target = _objects((20, 12, 52, 44), labels=[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 - 2 * step / STEPS)  # a constant rate ends anywhere around the optimum
        loss = sum(network(image, [target]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = network.eval()(image)
    return int(found["labels"][0]), float(found["scores"][0]), float(box_iou(found["boxes"][:1], target["boxes"]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "taps", "model_args"), BACKBONES[:3], ids=[f"{n}-{t}" for n, t, _ in BACKBONES[:3]])
def test_one_image_is_learned_by_heart(name, taps, model_args):
    label, score, box = learned_by_heart(name, taps, model_args)
    assert label == 1
    assert score > 0.5
    assert box > 0.8


def test_what_engines_compute_leads_to_the_same_objects():
    network = _talkative(_network())
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, again = network(images), network.finish(network.trunk(images), (64, 96))
    assert sum(len(one["boxes"]) for one in found) > 5
    for one, other in zip(found, again, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
