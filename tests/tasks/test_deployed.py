"""Dense networks as exporters take them: fixed shapes, the network's own answers, and the way back to the image inside the graph."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convmix.config import Dense
from convmix.data.placement import Placement
from convmix.data.targets import PerImage, Truth
from convmix.data.traced_placement import TracedPlacement
from convmix.exporting import torch_program
from convmix.tasks import create_task, deployed_retinanet, retinanet
from convmix.tasks.base import Task
from convmix.tasks.retinanet import MIN_SCORE
from convmix.tasks.suppression import best_apart
from tests.tasks.test_suppression import random_boxes

LABELS = ("square", "disc", "ring")
NARROW = Dense(pyramid_channels=16, smallest_anchor=12.0)
BOXES = ("detect", "instances")
SIZES = [(1, (64, 64)), (3, (64, 96))]
SPREADS = {"detect": {"many": 4.0, "few": 1.6, "none": 0.0}, "instances": {"many": 2.0, "few": 0.3, "none": 0.0}}  # of the class weights
PLACEMENTS = {
    "letterbox": Placement((100, 200), (64, 64), (0.32, 0.32), (16, 0)),
    "crop": Placement((90, 120), (64, 64), (0.8, 0.8), (-4, -16)),
    "stretch": Placement((37, 150), (64, 64), (64 / 37, 64 / 150), (0, 0)),
}


def made(name: str, finds: str = "many") -> tuple[Task, Any]:
    """A task, and a network with random weights that finds so many objects in noise."""
    torch.manual_seed(0)
    task = create_task(name, LABELS)
    network: Any = task.build("convmixer_16_2_k3_p4", in_chans=3, dense=NARROW)
    if name == "detect":
        nn.init.normal_(network.head.classification_head.cls_logits.weight, std=SPREADS[name][finds])
        nn.init.constant_(network.head.classification_head.cls_logits.bias, -4.0)
        nn.init.normal_(network.head.regression_head.bbox_reg.weight, std=0.2)
    if name == "instances":
        nn.init.normal_(network.roi_heads.box_predictor.cls_score.weight, std=SPREADS[name][finds])
        network.roi_heads.box_predictor.cls_score.bias.data[0] = 4.0
        nn.init.normal_(network.roi_heads.box_predictor.bbox_pred.weight, std=0.1)
        nn.init.normal_(network.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1.0)  # another outline for every class
    if name == "segment":
        nn.init.normal_(network.conv_seg.weight, std=2.0)
    return task, network.eval()


def noise(n: int, size: tuple[int, int], *, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def assert_same_objects(deployed: dict[str, Tensor], own: list[dict[str, Tensor]]) -> None:
    """Every object of the network in its place, and zeros behind the last."""
    for i, found in enumerate(own):
        n = len(found["scores"])
        for name, wanted in found.items():
            torch.testing.assert_close(deployed[name][i, :n], wanted, rtol=1e-5, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
            assert not deployed[name][i, n:].any(), name


@torch.no_grad()
@pytest.mark.parametrize("finds", ["many", "few"])
@pytest.mark.parametrize(("n", "size"), SIZES)
@pytest.mark.parametrize("name", BOXES)
def test_answers_are_the_networks_own(name: str, n: int, size: tuple[int, int], finds: str) -> None:
    task, network = made(name, finds)
    images = noise(n, size)
    outputs, own = task.deployed(network)(images), network(images)
    counts = [len(found["scores"]) for found in own]
    assert all(counts) and (min(counts) < 100) == (finds == "few"), counts  # else nothing is compared, or no place is empty
    assert {name: t.shape[:2] for name, t in outputs.items()} == dict.fromkeys(outputs, (n, 100))
    assert outputs["labels"].dtype == torch.int64 and outputs["boxes"].dtype == torch.float32
    assert_same_objects(outputs, own)
    for ours, theirs in zip(task.observed_from(outputs), own, strict=True):
        assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}


@torch.no_grad()
def test_every_object_has_the_outline_of_its_own_class() -> None:
    """Random weights give every region the same class, unless what all regions have in common is taken off the logits."""
    task, network = made("instances")
    images, logits = noise(2, (64, 96)), []
    layer = network.roi_heads.box_predictor.cls_score
    watch = layer.register_forward_hook(lambda *called: logits.append(called[2]))
    network(images)
    watch.remove()
    layer.bias.sub_(logits[0].mean(0))
    outputs, own = task.deployed(network)(images), network(images)
    assert_same_objects(outputs, own)
    for found in own:
        assert min(found["labels"].bincount(minlength=3).tolist()) >= 10
        others = found["masks"].flip(0)
        assert float((found["masks"] - others).abs().amax((1, 2)).min()) > 0.1  # so another object's outline would be seen


@torch.no_grad()
@pytest.mark.parametrize("name", BOXES)
def test_images_without_objects_leave_every_place_empty(name: str) -> None:
    task, network = made(name, "none")
    images = noise(2, (64, 64))
    assert [len(found["scores"]) for found in network(images)] == [0, 0]
    outputs = task.deployed(network)(images)
    assert not any(t.any() for t in outputs.values()) and all(t.isfinite().all() for t in outputs.values())
    assert [len(found["boxes"]) for found in task.observed_from(outputs)] == [0, 0]


@torch.no_grad()
def test_thousands_of_candidates_change_nothing() -> None:
    """As after training on crowded pictures: many more above the least score than any level may put forward."""
    task, network = made("detect")
    images = noise(1, (160, 160))
    assert (network.class_logits(images).sigmoid() > MIN_SCORE).sum() > 5000
    assert_same_objects(task.deployed(network)(images), network(images))


@torch.no_grad()
@pytest.mark.parametrize(("name", "before", "after"), [("detect", 12, 0), ("instances", 12, 1000), ("instances", 1000, 12)])
def test_the_last_candidate_counts(name: str, before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few of every level before suppression, or of all after it, that one less would be seen in the answer."""
    for module in (retinanet, deployed_retinanet):
        monkeypatch.setattr(module, "CANDIDATES", before)
    task, network = made(name)
    if name == "instances":
        network.rpn._pre_nms_top_n["testing"], network.rpn._post_nms_top_n["testing"] = before, after
    images = noise(3, (64, 96))
    own = network(images)
    assert all(0 < len(found["scores"]) < 100 for found in own)
    assert_same_objects(task.deployed(network)(images), own)


@torch.no_grad()
@pytest.mark.parametrize("name", BOXES)
def test_boxes_that_are_moved_off_the_image_are_treated_alike(name: str) -> None:
    """Many have no area there: the one network leaves them out, the other has them as objects at the border."""
    task, network = made(name)
    moves = [m for n, m in network.named_modules() if n.endswith(("bbox_reg", "bbox_pred"))]
    assert len(moves) == (1 if name == "detect" else 2)
    for layer in moves:
        nn.init.normal_(layer.weight, std=10.0)
    images = noise(3, (64, 96))
    own = network(images)
    sides = torch.cat([found["boxes"][:, 2:] - found["boxes"][:, :2] for found in own])
    assert bool((sides.amin(1) < 0.01).any()) == (name == "detect") and len(sides) > 3
    assert_same_objects(task.deployed(network)(images), own)


@torch.no_grad()
def test_the_deployed_network_is_a_copy_in_float32() -> None:
    for name in (*BOXES, "segment"):
        task, network = made(name)
        half = task.deployed(network.bfloat16().train())
        assert network.training and all(p.requires_grad for p in network.parameters())
        assert not half.training and {p.dtype for p in half.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in half.parameters())


@torch.no_grad()
def test_maps_are_the_networks_own() -> None:
    task, network = made("segment")
    for n, size in SIZES:
        outputs = task.deployed(network)(noise(n, size))
        assert outputs.keys() == {"logits"}
        assert torch.equal(task.observed_from(outputs), network(noise(n, size)))


def frame_of(placement: Placement) -> TracedPlacement:
    scale = torch.tensor(placement.scale[0]), torch.tensor(placement.scale[1])
    offset = torch.tensor(float(placement.offset[0])), torch.tensor(float(placement.offset[1]))
    return TracedPlacement(placement.size, placement.input_size, scale, offset)


@torch.no_grad()
@pytest.mark.parametrize("fit", PLACEMENTS)
@pytest.mark.parametrize("name", BOXES)
def test_finished_boxes_are_those_of_the_pipeline(name: str, fit: str) -> None:
    task, network = made(name)
    outputs = task.deployed(network)(noise(2, (64, 64)))
    border = outputs["boxes"].clone()
    border[:, 3] = torch.tensor([10.0, 0.0, 20.0, 9.0])  # on the letterbox's border alone
    outputs = {**outputs, "boxes": border}
    wanted = task.observe(task.observed_from(outputs), PerImage([Truth(None, PLACEMENTS[fit])] * 2))
    finished = task.finished(outputs, frame_of(PLACEMENTS[fit]))
    assert finished.keys() == outputs.keys()
    for i, found in enumerate(wanted):
        n = len(found)
        assert 0 < n < 100 if fit == "letterbox" else n > 0
        torch.testing.assert_close(finished["boxes"][i, :n], found.boxes, rtol=1e-5, atol=1e-3)
        assert torch.equal(finished["scores"][i, :n], found.scores) and torch.equal(finished["labels"][i, :n], found.columns)
        assert not finished["scores"][i, n:].any()
    if name == "instances":
        kept = finished["scores"][0] > 0
        at = [int((outputs["scores"][0] == s).nonzero()[0, 0]) for s in finished["scores"][0][kept]]
        assert torch.equal(finished["masks"][0][kept], outputs["masks"][0][at])
    assert task.finished(outputs, None) == outputs


@torch.no_grad()
@pytest.mark.parametrize("fit", PLACEMENTS)
def test_finished_maps_are_those_of_the_pipeline(fit: str) -> None:
    task, network = made("segment")
    outputs = task.deployed(network)(noise(2, (64, 64)))
    wanted = task.decode(task.observe(outputs["logits"], PerImage([Truth(None, PLACEMENTS[fit])] * 2)))
    finished = task.finished(outputs, frame_of(PLACEMENTS[fit]))
    assert torch.equal(finished["logits"], outputs["logits"])
    for i, found in enumerate(wanted):
        assert finished["classes"].dtype == found.classes.dtype and finished["classes"][i].shape == PLACEMENTS[fit].size
        torch.testing.assert_close(finished["certainty"][i], found.certainty, rtol=1e-4, atol=1e-4)
        assert float((finished["classes"][i] == found.classes).float().mean()) > 0.999  # two classes may be as likely
    assert task.finished(outputs, None) == outputs


@pytest.mark.slow
@torch.no_grad()
def test_a_program_answers_as_pytorch_for_any_batch() -> None:
    """Every output in every place. Of Mask R-CNN alone: what exports of the others answer is in tests/exporting/test_dense_export.py, in
    every runtime, and so is what ONNX Runtime and OpenVINO make of this one."""
    task, network = made("instances", "few")
    deployed = task.deployed(network)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(deployed, (noise(2, (64, 64)),), dynamic_shapes=({0: batch},)).module()
    for n in (1, 3):
        images = noise(n, (64, 64), seed=n)
        for (output, value), got in zip(deployed(images).items(), program(images).values(), strict=True):
            torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-3, msg=lambda m, where=(output, n): f"{where}: {m}")


class Apart(nn.Module):
    """Boxes N,K,4, scores N,K, labels N,K -> the best ten, by the loop of every exported detector."""

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return best_apart(10, boxes, scores, labels, 0.3)


@pytest.mark.slow
def test_the_loop_is_compiled_as_a_package_for_any_batch(tmp_path: Path) -> None:
    """The one thing in a package of a detector that a classifier's, in tests/exporting/test_export.py, has not."""
    if not torch_program.has_compiler():
        pytest.skip("there is no C++ compiler")
    given = {}
    for n in (1, 2, 3):
        scores = torch.rand(n, 40, generator=torch.Generator().manual_seed(n))
        given[n] = random_boxes(n, 40, seed=n), scores, torch.arange(40).repeat(n, 1) % 3
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Apart(), given[2], dynamic_shapes=({0: batch},) * 3)
    torch_program.write_package(tmp_path, program)
    package = torch._inductor.aoti_load_package(str(tmp_path / torch_program.PACKAGE))
    for n, tensors in given.items():
        wanted = Apart()(*tensors)
        assert wanted["scores"].all(1).any()
        for name, value in package(*tensors).items():
            torch.testing.assert_close(value, wanted[name], msg=lambda m, where=(name, n): f"{where}: {m}")
