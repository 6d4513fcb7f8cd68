"""Boxes and masks move as torchvision's own do, and what is hardly left of them is not learned."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import objects_of, rectangles
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from convmix.data import geometry, rle
from convmix.data.decode import Image
from convmix.data.geometric_transform import GeometricTransform, move_objects
from convmix.data.placement import Placement
from convmix.data.targets import Objects


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("offset", [(-30, -40), (12, 9), (-30, 9)])
def test_objects_move_as_torchvisions_tensors_do(offset: tuple[int, int], hflip: bool, vflip: bool) -> None:
    size, laid, input_size = (60, 80), (120, 160), (96, 128)
    objects = objects_of(size, rectangles(size))
    motion = GeometricTransform(Placement(size, input_size, (2.0, 2.0), offset), hflip, vflip)
    moved = move_objects(objects, motion, masks=True)
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=size)
    masks = tv_tensors.Mask(torch.from_numpy(rle.decode(objects.masks or (), size)))
    steps = [lambda x: v2.resize(x, list(laid)), lambda x: v2.crop(x, -offset[0], -offset[1], *input_size)]
    steps += [v2.horizontal_flip] * hflip + [v2.vertical_flip] * vflip
    for step in steps:
        boxes, masks = step(boxes), step(masks)
    kept = moved.labels
    assert 0 < len(kept) <= 12
    assert torch.equal(moved.boxes, v2.clamp_bounding_boxes(boxes)[kept].as_subclass(torch.Tensor))
    assert moved.masks is not None and torch.equal(moved.masks, masks[kept].as_subclass(torch.Tensor))


@pytest.mark.parametrize("masks", [False, True])
def test_crowds_and_rims_are_not_learned(masks: bool) -> None:
    size = (100, 100)
    boxes = np.asarray(
        [[0, 0, 20, 20], [30, 30, 50, 50], [71, 40, 91, 60], [69, 10, 89, 30], [60, 60, 70, 61], [10, 80, 30, 95], [72, 64, 92, 80]]
    )
    objects = objects_of(size, boxes, masks=masks, crowd=(1,))
    motion = GeometricTransform(Placement(size, (90, 73), (1.0, 1.0), (0, 0)))  # columns 73 on and rows 90 on are cut off
    target = move_objects(objects, motion, masks=masks)
    assert target.labels.tolist() == [0, 2, 3, 4, 5]
    assert target.boxes.tolist() == [[0, 0, 20, 20], [71, 40, 73, 60], [69, 10, 73, 30], [60, 60, 70, 61], [10, 80, 30, 90]]
    half = move_objects(objects, GeometricTransform(Placement(size, (50, 36), (0.5, 0.5), (0, 0))), masks=masks)
    assert half.labels.tolist() == [0, 3, 5]  # of object 2 5 % are left, object 4 is half a pixel high


def test_a_cut_object_gets_the_box_of_what_is_left_of_its_mask() -> None:
    """An L whose long leg is cut off: the clipped box would still be as wide as the foot."""
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 0:30, 0:5] = 1
    mask[0, 25:30, 0:30] = 1
    objects = Objects((40, 40), np.asarray([[0, 0, 30, 30]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), rle.encode(mask))
    up = GeometricTransform(Placement((40, 40), (20, 40), (1.0, 1.0), (0, 0)))
    assert move_objects(objects, up, masks=True).boxes.tolist() == [[0, 0, 5, 20]]
    assert move_objects(objects, replace(up, hflip=True, vflip=True), masks=True).boxes.tolist() == [[35, 0, 40, 20]]
    assert move_objects(objects, up, masks=False).boxes.tolist() == [[0, 0, 30, 20]]
    beside = GeometricTransform(Placement((40, 40), (20, 20), (1.0, 1.0), (0, -6)))  # shows two thirds of the box, of the mask nothing
    assert len(move_objects(objects, beside, masks=True).boxes) == 0 and len(move_objects(objects, beside, masks=False).boxes) == 1


def test_a_tip_of_a_mask_is_not_learned() -> None:
    """The upper half of its box shows, but only 20 of the 820 pixels of its mask."""
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 20:40] = 1
    mask[0, :20, 3] = 1
    objects = Objects((40, 40), np.asarray([[0, 0, 40, 40]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), rle.encode(mask))
    upper = GeometricTransform(Placement((40, 40), (20, 40), (1.0, 1.0), (0, 0)))
    target = move_objects(objects, upper, masks=True)
    assert len(target.boxes) == len(target.labels) == 0 and target.masks is not None and target.masks.shape == (0, 20, 40)
    assert len(move_objects(objects, upper, masks=False).boxes) == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data(), st.tuples(st.integers(1, 60), st.integers(1, 60)), st.sampled_from((0.0, 0.02, 0.5, 0.98, 1.0)), st.integers(1, 9))
def test_a_part_of_a_mask_is_cut_from_its_runs(data: st.DataObject, size: tuple[int, int], density: float, times: int) -> None:
    rng = np.random.default_rng(size[0] * 61 + size[1])
    mask = (rng.random(size) < density).astype(np.uint8).repeat(times, 0).repeat(times, 1)
    height, width = mask.shape
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    bottom, right = data.draw(st.integers(top, height)), data.draw(st.integers(left, width))
    (count,) = rle.encode(mask[None])
    assert np.array_equal(rle.part(count, mask.shape, (top, left, bottom - top, right - left)), mask[top:bottom, left:right])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("size", [(35, 61), (180, 200), (90, 120)])
def test_a_part_of_a_resized_image_equals_the_whole_cut(size: tuple[int, int], as_array: bool, interpolation: str) -> None:
    y, x = np.mgrid[:90, :120] / 3
    picture = PIL.Image.fromarray((128 + 50 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2)).astype(np.uint8))
    image: Image = np.asarray(picture, np.float32) if as_array else picture
    for part in ((3, 5, 30, 41), (0, 0, *size), (0, 7, 1, 1), (5, 0, 30, size[1])):
        ours = np.asarray(geometry.resize_part(image, size, part, interpolation), np.float32)
        whole = np.asarray(geometry.crop(geometry.resize(image, size, interpolation), part), np.float32)
        assert ours.shape == whole.shape == (*part[2:], 3)
        assert np.abs(ours - whole).max() <= (0 if as_array else 1)
