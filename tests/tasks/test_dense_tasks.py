"""What the dense tasks make of settings, weights and outputs; the networks themselves are tested beside them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convmix.config import Dense
from convmix.data import rle
from convmix.data.placement import Placement
from convmix.data.targets import IGNORE, PerImage, Truth
from convmix.errors import ModelError, WeightsError
from convmix.tasks import create_task
from convmix.tasks.dense import DenseTask
from convmix.tasks.detect import anchor_scale, paste
from convmix.tasks.pyramid import DenseBackbone
from convmix.tasks.retinanet import RetinaNet
from convmix.tasks.segment import Segment
from tests.tasks.test_mmlab import CONVMLP, WIDTH, K, _state
from tests.tiny_run import make_run

NARROW = Dense(pyramid_channels=16)
WHOLE = Placement((64, 64), (64, 64), (1.0, 1.0), (0, 0))


def dense_task(name: str, k: int = 3) -> DenseTask:
    task = create_task(name, tuple(f"class {i}" for i in range(k)))
    assert isinstance(task, DenseTask)
    return task


@pytest.mark.parametrize("name", ["detect", "instances", "segment"])
def test_a_classifiers_run_gives_its_backbone(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    task = dense_task(name)
    model = task.build("convmixer_8_1_k3_p4", in_chans=3, dense=NARROW)
    notes = task.start_from(model, run.path)
    theirs = run.model.state_dict()
    ours = {k.rsplit("features.", 1)[1].removeprefix("model."): v for k, v in model.state_dict().items() if "backbone.features." in k}
    assert ours and all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert any("start at random" in note for note in notes)
    other = task.build("convmixer_16_1_k3_p4", in_chans=3, dense=NARROW)
    with pytest.raises(WeightsError):
        task.start_from(other, run.path)


def test_a_published_detector_is_taken_whole(tmp_path: Path) -> None:
    state = _state(RetinaNet)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "retinanet.safetensors")
    task = dense_task("detect", K)
    model = task.build("convmlp", in_chans=3, dense=Dense(taps="authors", pyramid_channels=WIDTH), model_args=CONVMLP)
    (note,) = task.start_from(model, tmp_path / "retinanet.safetensors")
    assert "all weights" in note
    assert torch.equal(model.state_dict()["backbone.features.model.tokenizer.block.0.weight"], state["backbone.tokenizer.block.0.weight"])


def test_the_smallest_anchor_is_in_pixels_whatever_the_strides() -> None:
    for name, strides, finest in (("convmixer_8_1_k3_p8", (8, 16, 32), 4), ("convmlp_t", (8, 16, 32), 8), ("convmlp_t", (4, 8, 16, 32), 4)):
        backbone = DenseBackbone(name, strides=strides)
        assert anchor_scale(backbone, Dense(smallest_anchor=20.0), published=4.0) * finest == 20
        assert anchor_scale(backbone, Dense(), published=4.0) == 4


def test_the_loss_of_class_maps_counts_scored_pixels_alone() -> None:
    task = Segment(("a", "b"))
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = 3.0
    targets = torch.full((1, 16, 16), IGNORE, dtype=torch.uint8)
    assert float(task.loss(logits, targets)) == 0
    targets[:, :8] = 1
    right = math.log(1 + math.exp(-3))
    assert float(task.loss(logits, targets)) == pytest.approx(right, rel=1e-5)
    targets[:, 8:12] = 0
    assert float(task.loss(logits, targets)) == pytest.approx((2 * right + right + 3) / 3, rel=1e-5)


def test_class_maps_are_scored_in_the_images_own_pixels() -> None:
    task = Segment(("a", "b"))
    truth = np.zeros((48, 96), np.uint8)
    truth[:, 48:] = 1
    truth[:4] = IGNORE
    letterboxed = Placement((48, 96), (64, 64), (2 / 3, 2 / 3), (16, 0))  # 96 wide on 64; rows 16 to 48 of the input
    logits = torch.zeros(1, 2, 64, 64)
    logits[:, 0, :, :32], logits[:, 1, :, 32:] = 9, 9
    (scored,) = task.observe(logits, PerImage([Truth(truth, letterboxed)]))
    assert scored.confusion.tolist() == [[44 * 48, 0], [0, 44 * 48]] and scored.map.classes.shape == (48, 96)
    assert task.metrics([scored], PerImage([]))["miou"] == 1
    (unknown,) = task.observe(logits, PerImage([Truth(None, letterboxed)]))
    assert torch.equal(task.decode([unknown])[0].classes, scored.map.classes)


def test_found_boxes_come_back_to_the_image_and_those_beside_it_are_gone() -> None:
    task = dense_task("detect")
    letterboxed = Placement((100, 200), (64, 64), (0.32, 0.32), (16, 0))
    boxes = torch.tensor([[16.0, 24.0, 48.0, 40.0], [0.0, 0.0, 64.0, 10.0]])  # the second lies on the border above the image alone
    outputs = [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([2, 0])}]
    (found,) = task.observe(outputs, PerImage([Truth(None, letterboxed)]))
    assert found.boxes.tolist() == [pytest.approx([50, 25, 150, 75])] and found.columns.tolist() == [2]
    assert [len(f) for f in task.decode([found])] == [1] and [len(f) for f in task.decode([found], threshold=0.95)] == [0]


def test_outlines_are_pasted_into_their_boxes() -> None:
    half = torch.zeros(1, 28, 28)
    half[:, :, 14:] = 1
    (counts,) = paste(half, torch.tensor([[10.3, 20.0, 50.3, 40.0]]), (64, 64))
    (mask,) = rle.decode([counts], (64, 64))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1]) == (20, 39)
    assert (columns[0], columns[-1]) == (30, 49)  # the middle is at 30.3, before the centre of pixel 30


@pytest.mark.parametrize("name", ["detect", "instances", "segment"])
def test_evidence_of_every_class_can_be_differentiated(name: str) -> None:
    task = dense_task(name)
    model = task.explained(task.build("convmixer_16_2_k3_p4", in_chans=3, dense=NARROW)).eval()
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    evidence = model(images)
    assert evidence.shape == (2, 3)
    shares = task.evidence_shares(evidence)
    assert shares.min() >= 0 and shares.max() <= 1
    (gradient,) = torch.autograd.grad(evidence[:, 1].sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_dropout_is_refused() -> None:
    with pytest.raises(ModelError, match="dropout"):
        dense_task("segment").build("convmixer_8_1_k3_p4", in_chans=3, dense=NARROW, dropout=0.1)
