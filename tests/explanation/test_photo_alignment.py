"""A map lies on the photo where its evidence is, also where the photo is three times as wide as high and cut or framed for the model."""

from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convmix.data.dense import placement
from convmix.data.preprocessing import Preprocess
from convmix.explanation.attribution import attribute

SPOT = (140, 30, 164, 54)  # left, top, right, bottom of a red spot on a grey photo of 300 x 100, inside the crop
SIZE = (100, 300)


class Redness(nn.Module):
    """Two outputs: how much clearly redder than grey the image is, beyond what the noise of a method may make of grey; and its opposite."""

    def forward(self, x: Tensor) -> Tensor:
        red = torch.relu(x[:, 0] - x[:, 1:].mean(1) - 2.4).mean((1, 2))
        return torch.stack([red, -red], 1)


def photo() -> Image.Image:
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    left, top, right, bottom = SPOT
    pixels[top:bottom, left:right] = (250, 20, 20)
    return Image.fromarray(pixels)


def centre(weights: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of gravity, counted from the edge."""
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return float((rows * weights).sum() / weights.sum()), float((columns * weights).sum() / weights.sum())


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_evidence_on_a_wide_photo_is_shown_where_it_is(fit: Literal["crop", "letterbox", "stretch"], method: str) -> None:
    preprocess = Preprocess((64, 64), fit, "bilinear", 0.9, (0.5,) * 3, (0.25,) * 3)
    x = preprocess(photo())
    heat = attribute(Redness(), x[None], [0], method=method, layer=None)[0]
    laid = placement(preprocess, SIZE)
    on_input = laid.boxes_to_input(torch.tensor([SPOT], dtype=torch.float32))[0].tolist()
    wanted_on_input = ((on_input[1] + on_input[3]) / 2, (on_input[0] + on_input[2]) / 2)
    shown = preprocess.denormalise(x).numpy().astype(float)  # what the map is drawn on
    redness = np.clip(shown[0] - shown[1:].mean(0), 0, None)
    assert np.allclose(centre(redness), wanted_on_input, atol=1.0)
    assert np.allclose(centre(heat.clamp(min=0).numpy()), wanted_on_input, atol=4.0 if method == "occlusion" else 1.5)
    on_photo = laid.map_to_image(heat.clamp(min=0)[None])[0].numpy()
    assert on_photo.shape == SIZE
    row, column = centre(on_photo)
    left, top, right, bottom = SPOT
    assert top <= row <= bottom and left - 3 <= column <= right + 3
