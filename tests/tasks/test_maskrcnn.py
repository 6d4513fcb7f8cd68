"""Mask R-CNN: parameters, regions, masks, losses and found objects, and one image learned by heart."""

import pytest
import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign, box_iou

from convmix.tasks.maskrcnn import MaskRCNN, RegionPool, masks_in_boxes
from convmix.tasks.pyramid import DenseBackbone

CONVMLP = {"blocks": [1, 1, 1], "dims": [16, 24, 32], "mlp_ratios": [2, 2, 2], "channels": 8, "n_conv_blocks": 1}
BACKBONES = [
    ("convmlp", "authors", CONVMLP),
    ("convmlp", "blocks", CONVMLP),
    ("convmixer_16_2_k9_p7", "blocks", {}),
    ("resnet18", "blocks", {}),
    ("deit_tiny_patch16_224", "blocks", {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 1}),
]
EVERY = pytest.mark.parametrize(("name", "taps", "model_args"), BACKBONES, ids=[f"{n}-{t}" for n, t, _ in BACKBONES])
STEPS = 120  # in which an image is learned by heart
LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}


def _network(name="convmlp", taps="authors", model_args=CONVMLP, *, classes=3, seed=0, **changes) -> MaskRCNN:
    torch.manual_seed(seed)
    backbone = DenseBackbone(name, taps=taps, strides=(4, 8, 16, 32), model_args=model_args)
    return MaskRCNN(backbone, classes, **{"pyramid_channels": 8, **changes})


def _talkative(network: MaskRCNN) -> MaskRCNN:
    """The network with class scores that differ from region to region."""
    nn.init.normal_(network.roi_heads.box_predictor.cls_score.weight, std=2.0)
    return network.eval()


def _objects(size: tuple[int, int], *boxes: tuple[int, ...], labels=None) -> dict:
    """Objects that fill their boxes."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        "masks": masks,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("size", "published"), [("s", 28_659_920), ("m", 37_047_504), ("l", 62_231_808)])
def test_parameters_are_the_published_ones(size, published):
    with torch.device("meta"):
        network = MaskRCNN(DenseBackbone(f"convmlp_{size}", taps="authors", strides=(4, 8, 16, 32)), 80)
    assert sum(p.numel() for p in network.parameters()) == published


def test_anchors_are_one_size_and_three_ratios_per_level():
    anchors = _network().rpn.anchor_generator
    assert anchors.strides == (4, 8, 16, 32, 64)
    assert anchors.sizes == ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    assert anchors.num_anchors_per_location() == [3] * 5


def test_a_regions_level_is_that_of_its_size():
    pool = RegionPool((4.0, 8.0, 16.0, 32.0), 7)
    sides = torch.tensor([0.0, 10, 111.9, 112, 223.9, 224, 447.9, 448, 2000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], 1)
    assert pool.level_of(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]  # mmdetection: finest_scale 56
    assert RegionPool((3.5, 7.0), 7).level_of(boxes).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]  # 98 and above


def test_regions_are_read_from_the_levels_that_torchvision_reads():
    """Its pooling without the half-pixel alignment, on regions moved by the half pixel that this leaves."""
    torch.manual_seed(0)
    strides = (4.0, 8.0, 16.0, 32.0)
    maps = {str(i): torch.randn(2, 3, 512 // int(s), 512 // int(s)) for i, s in enumerate(strides)}
    corner, side = torch.rand(40, 2) * 100 + 50, torch.rand(40, 2) * 300 + 60
    regions = [torch.cat([corner, corner + side], 1)[:15], torch.cat([corner, corner + side], 1)[15:]]
    pool = RegionPool(strides, 7)
    assert len(pool.level_of(torch.cat(regions)).unique()) == 3
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio=0)
    theirs.scales, theirs.map_levels = None, None
    level = pool.level_of(torch.cat(regions)).split([15, 25])
    moved = [r - torch.tensor(strides)[at][:, None] / 2 for r, at in zip(regions, level, strict=True)]
    expected = theirs(maps, moved, [(512, 512)] * 2)
    torch.testing.assert_close(pool(maps, regions, [(512, 512)] * 2), expected, rtol=1e-4, atol=1e-4)


def test_a_region_of_one_cell_reads_that_cell():
    maps = {"0": torch.arange(16.0).reshape(1, 1, 4, 4)}
    pooled = RegionPool((3.5,), 1)(maps, [torch.tensor([[7.0, 3.5, 10.5, 7.0]])], [(14, 14)])
    assert pooled.item() == pytest.approx(6.0)  # row 1, column 2


def test_masks_are_cut_out_by_box():
    mask = torch.zeros(2, 56, 56, dtype=torch.uint8)
    mask[1, 28:, :28] = 1
    boxes = torch.tensor([[0.0, 0, 56, 56], [0, 28, 28, 56], [28, 0, 56, 28], [14, 0, 42, 56]])
    shown = masks_in_boxes(mask, boxes, torch.tensor([1, 1, 1, 1]))
    assert shown.shape == (4, 28, 28)
    assert torch.equal(shown[0], torch.nn.functional.pad(torch.ones(14, 14), (0, 14, 14, 0)))
    assert [s.mean().item() for s in shown[1:]] == [1.0, 0.0, 0.25]
    assert masks_in_boxes(mask, boxes, torch.tensor([0, 0, 0, 0])).max() == 0
    pixels = torch.randint(2, (1, 40, 40), dtype=torch.uint8)
    assert torch.equal(masks_in_boxes(pixels, torch.tensor([[5.0, 7, 33, 35]]), torch.tensor([0]))[0], pixels[0, 7:35, 5:33].float())


@EVERY
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_parameter_learns_from_any_batch(name, taps, model_args, precision):
    network = _network(name, taps, model_args)
    images = torch.randn(3, 3, 75, 90)
    size = (75, 90)
    targets = [_objects(size, (5, 5, 50, 60), (20, 30, 90, 75), labels=[1, 2]), _objects(size), _objects(size, (1, 1, 5, 9))]
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
        losses = network(images, targets)
    assert losses.keys() == LOSSES
    assert all(v.dtype == torch.float32 and v.isfinite() and v > 0 for v in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@EVERY
def test_without_targets_objects_on_the_input_come_out(name, taps, model_args):
    network = _talkative(_network(name, taps, model_args))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network(torch.randn(2, 3, 75, 90))
    for one in found:
        n = len(one["boxes"])
        assert 0 < n <= 100
        assert one["masks"].shape == (n, 28, 28)
        assert one["boxes"].dtype == one["scores"].dtype == one["masks"].dtype == torch.float32
        assert (one["boxes"][:, 0::2] <= 90).all() and (one["boxes"][:, 1::2] <= 75).all() and (one["boxes"] >= 0).all()
        assert (one["scores"].diff() <= 0).all() and (one["scores"] > 0.05).all()
        assert one["labels"].min() >= 0 and one["labels"].max() < 3
        assert one["masks"].min() >= 0 and one["masks"].max() <= 1


def test_masks_are_those_of_the_found_class():
    network = _talkative(_network())
    last = network.roi_heads.mask_predictor.mask_fcn_logits
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([-4.0, 0.0, 4.0])
    (found,) = network(torch.randn(1, 3, 64, 64))
    assert found["labels"].unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(found["masks"][:, 0, 0], torch.tensor([-4.0, 0.0, 4.0]).sigmoid()[found["labels"]])


def test_an_image_in_which_nothing_is_found():
    network = _network().eval()
    nn.init.constant_(network.roi_heads.box_predictor.cls_score.bias, -20)
    network.roi_heads.box_predictor.cls_score.bias.data[0] = 20  # background
    (found,) = network(torch.zeros(1, 3, 64, 64))
    shapes = {name: tuple(t.shape) for name, t in found.items()}
    assert shapes == {"boxes": (0, 4), "scores": (0,), "labels": (0,), "masks": (0, 28, 28)}


def test_images_without_objects_are_learned_from():
    network = _network()
    losses = network(torch.randn(2, 3, 64, 64), [_objects((64, 64)), _objects((64, 64))])
    assert losses["loss_objectness"] > 0
    assert losses["loss_classifier"] > 0
    assert losses["loss_box_reg"] == losses["loss_mask"] == losses["loss_rpn_box_reg"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_labels_count_from_zero_outside():
    """The loss of the classifier is lowest for the class that it is sure of."""
    network = _network()
    predictor = network.roi_heads.box_predictor.cls_score
    nn.init.zeros_(predictor.weight)
    predictor.bias.data = torch.tensor([0.0, 0.0, 9.0, 0.0])  # background, classes 0, 1, 2
    images, losses = torch.randn(1, 3, 64, 64), []
    for label in range(3):
        torch.manual_seed(1)
        losses.append(network(images, [_objects((64, 64), (8, 8, 56, 56), labels=[label])])["loss_classifier"].item())
    assert losses[1] < losses[0] == pytest.approx(losses[2])
    (found,) = network.eval()(images)
    assert found["labels"].unique().tolist() == [1]


def test_targets_and_not_the_mode_decide_what_comes_out():
    network, images = _network(), torch.randn(1, 3, 64, 64)
    assert isinstance(network.eval()(images, [_objects((64, 64))]), dict)
    assert isinstance(network.train()(images), list)


def test_a_target_per_image_is_asked_for():
    with pytest.raises(ValueError, match="1 targets for 2 images"):
        _network()(torch.randn(2, 3, 64, 64), [_objects((64, 64))])


def test_class_logits_are_per_proposed_region():
    network = _talkative(_network())
    images = torch.randn(2, 3, 64, 64)
    logits = network.class_logits(images)
    assert logits.shape[0] == 2 and logits.shape[2] == 3
    best = logits.flatten(1).amax(1)
    (alone,) = network.class_logits(images[:1])
    torch.testing.assert_close(alone.amax(), best[0], rtol=1e-3, atol=1e-3)
    best.sum().backward()
    assert network.roi_heads.box_head.fc6.weight.grad.abs().sum() > 0


def test_the_classifier_is_everything_but_the_backbone():
    network = _network()
    head = {id(p) for p in network.get_classifier().parameters()}
    assert head == {id(p) for n, p in network.named_parameters() if not n.startswith("backbone.")}


def learned_by_heart(name, taps, model_args, *, seed=0):
    """A bright disc, its box, and the corners that the mask leaves out of it: the label and score of the best object found, and how far
    its box and its mask are the disc's.
    """
    network = _network(name, taps, model_args, pyramid_channels=16, anchor_scale=4.0, seed=seed)
    network.rpn._post_nms_top_n["training"] = 200  # fewer regions than for images with many objects: more steps in the same time
    network.roi_heads.fg_bg_sampler.batch_size_per_image = 64
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc = (rows - 28) ** 2 + (columns - 36) ** 2 < 16**2
    image = disc.float().expand(1, 3, 64, 64)
    target = {"boxes": torch.tensor([[20.0, 12, 52, 44]]), "labels": torch.tensor([1]), "masks": disc[None].to(torch.uint8)}
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 - 2 * step / STEPS)  # a constant rate ends anywhere around the optimum
        loss = sum(network(image, [target]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = network.eval()(image)
    mask, wanted = found["masks"][0] >= 0.5, masks_in_boxes(target["masks"], found["boxes"][:1], torch.tensor([0]))[0] > 0
    overlap = (mask & wanted).sum() / (mask | wanted).sum()
    return int(found["labels"][0]), float(found["scores"][0]), float(box_iou(found["boxes"][:1], target["boxes"])), float(overlap)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "taps", "model_args"), BACKBONES[:3:2], ids=[f"{n}-{t}" for n, t, _ in BACKBONES[:3:2]])  # all: RetinaNet
def test_one_image_is_learned_by_heart(name, taps, model_args):
    """Of 16 trainings one ended with a box below 0.8 (0.76; ConvMixer, seed 0, an AMD processor with AVX-512), so three seeds may try."""
    found = []
    for seed in range(3):
        label, score, box, mask = learned_by_heart(name, taps, model_args, seed=seed)
        if label == 1 and score > 0.5 and box > 0.8 and mask > 0.85:
            return
        found.append((label, score, box, mask))
    pytest.fail(f"label, score, overlap of box and mask, by seed: {found}")


def test_what_engines_compute_leads_to_the_same_objects():
    network = _talkative(_network())
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps, proposals, _ = network._propose(images, None)  # torchvision's own way
        found, again = network.roi_heads.found(maps, proposals, [(64, 96)] * 2), network.finish(network.trunk(images), (64, 96))
    assert sum(len(one["boxes"]) for one in found) > 5
    for one, other in zip(found, again, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
