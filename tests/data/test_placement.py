"""Boxes and maps go from the image to the input, where the pixels go, and back."""

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import extent

from convmix.config import Size
from convmix.data.dense import placement
from convmix.data.placement import Placement
from convmix.data.preprocessing import Preprocess

FITS = ("crop", "letterbox", "stretch")
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


def preprocess(fit: str, size: Size, *, crop_pct: float = 1.0, interpolation: str = "nearest") -> Preprocess:
    return Preprocess(size=size, fit=fit, interpolation=interpolation, crop_pct=crop_pct, mean=(0.0,), std=(1.0,), in_chans=1)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), sizes, sizes, st.sampled_from(FITS), st.sampled_from((1.0, 0.9, 0.71)))
def test_boxes_lie_where_the_pixels_lie(data: st.DataObject, size: Size, input_size: Size, fit: str, crop_pct: float) -> None:
    """A pixel shows what its centre falls on, so a painted box begins and ends within half a pixel of its edges."""
    top, left = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    bottom, right = data.draw(st.integers(top + 1, size[0])), data.draw(st.integers(left + 1, size[1]))
    p = preprocess(fit, input_size, crop_pct=crop_pct)
    pixels = np.zeros(size, np.uint8)
    pixels[top:bottom, left:right] = 255
    painted = np.asarray(p.place(PIL.Image.fromarray(pixels))) == 255
    box = placement(p, size).boxes_to_input(torch.tensor([[left, top, right, bottom]], dtype=torch.float32))[0]
    width, height = (box[2:] - box[:2]).tolist()
    if min(width, height) > 1.01:
        assert painted.any()
    if painted.any():
        assert np.abs(box.numpy() - extent(painted)).max() <= 0.51


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), sizes, sizes, st.sampled_from(FITS))
def test_boxes_come_back_as_they_went(data: st.DataObject, size: Size, input_size: Size, fit: str) -> None:
    where = placement(preprocess(fit, input_size, crop_pct=0.8), size)
    xs, ys = ([data.draw(st.floats(0, length)) for _ in range(2)] for length in (size[1], size[0]))
    box = torch.tensor([[min(xs), min(ys), max(xs), max(ys)]], dtype=torch.float32)
    back = where.boxes_to_image(where.boxes_to_input(box))
    if fit != "crop":
        torch.testing.assert_close(back, box, atol=1e-3, rtol=1e-4)
    (sy, sx), (oy, ox) = where.scale, where.offset
    seen = torch.tensor([-ox / sx, -oy / sy, (input_size[1] - ox) / sx, (input_size[0] - oy) / sy])  # the input's edges on the image
    cut = torch.minimum(torch.maximum(box, seen[:2].repeat(2)), seen[2:].repeat(2))
    torch.testing.assert_close(back, cut, atol=1e-3, rtol=1e-4)


def test_boxes_beside_the_image_are_cut_to_it() -> None:
    where = placement(preprocess("letterbox", (40, 40)), (10, 20))  # twice as large, 10 free rows above and below
    assert (where.scale, where.offset, where.laid_size) == ((2.0, 2.0), (10, 0), (20, 40))
    assert where.boxes_to_image(torch.tensor([[-5.0, 0.0, 50.0, 40.0], [2.0, 12.0, 6.0, 16.0]])).tolist() == [[0, 0, 20, 10], [1, 1, 3, 3]]
    assert where.boxes_to_image(torch.zeros(0, 4)).shape == where.boxes_to_input(torch.zeros(0, 4)).shape == (0, 4)


def one_hot(classes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(classes).long()).permute(2, 0, 1).float()


@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("fit", FITS)
def test_an_enlarged_class_map_comes_back_the_same(fit: str, times: int) -> None:
    """The image is laid on the input so many times as large; around it lies a class of which nothing may be mixed in."""
    classes = np.random.default_rng(0).integers(0, 4, (12, 20))
    classes[0, 0] = 4
    input_size = (16 * times, 20 * times) if fit == "letterbox" else (12 * times, 20 * times)
    where = placement(preprocess(fit, input_size), (12, 20))
    seen = np.full(input_size, 4)
    top, left = where.offset
    seen[top : top + 12 * times, left : left + 20 * times] = classes.repeat(times, 0).repeat(times, 1)
    back = where.map_to_image(one_hot(seen))
    assert back.shape == (5, 12, 20)
    torch.testing.assert_close(back, one_hot(classes), atol=1e-4, rtol=0)


@pytest.mark.parametrize("times", [2, 3])
def test_between_the_cells_of_a_map_is_interpolated(times: int) -> None:
    where = placement(preprocess("letterbox", (20, 9)), (8 * times, 9 * times))  # on rows 6 to 13
    rows = torch.arange(20.0)[None, :, None].expand(1, 20, 9)
    expected = ((torch.arange(8 * times) + 0.5) / times - 0.5).clamp(0, 7) + 6
    torch.testing.assert_close(where.map_to_image(rows)[0, :, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_what_lies_beside_the_image_is_not_mixed_in(stride: int) -> None:
    where = placement(preprocess("letterbox", (64, 64)), (100, 200))
    assert (where.laid_size, where.offset) == ((32, 64), (16, 0))
    maps = torch.zeros(1, 64 // stride, 64 // stride)
    maps[:, 16 // stride : 48 // stride] = 1
    torch.testing.assert_close(where.map_to_image(maps), torch.ones(1, 100, 200))


def test_what_crop_cuts_off_repeats_the_nearest_border() -> None:
    where = placement(preprocess("crop", (20, 20)), (20, 60))
    columns = torch.arange(20.0).expand(1, 20, 20)
    back = where.map_to_image(columns)[0]
    expected = torch.cat([torch.zeros(20), torch.arange(20.0), torch.full((20,), 19.0)])
    torch.testing.assert_close(back, expected.expand(20, 60), atol=1e-4, rtol=0)


def test_maps_of_one_cell_and_images_of_one_pixel() -> None:
    where = Placement((5, 7), (8, 8), (1.0, 1.0), (1, 0))
    assert where.map_to_image(torch.full((2, 1, 1), 3.0)).unique().tolist() == [3.0]
    alone = placement(preprocess("letterbox", (8, 4)), (1, 1))
    assert alone.map_to_image(torch.rand(3, 8, 4)).shape == (3, 1, 1)
