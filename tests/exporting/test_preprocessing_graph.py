"""The preprocessing inside the graph gives what Pillow and Preprocess give, for every fit, filter and kind of image."""

import random

import numpy as np
import PIL.Image
import pytest
import torch

from convmix.data.dense import placement
from convmix.data.preprocessing import Preprocess
from convmix.exporting.preprocessing import Normalised, Placed

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """H,W,C uint8: soft blotches with some noise; opaque, so that no colour is divided by a small opacity."""
    small = PIL.Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC)).astype(float)
    levels = (soft + rng.normal(0, 8, soft.shape)).clip(0, 255).astype(np.uint8)
    return np.concatenate([levels, np.full((height, width, 1), 255, np.uint8)], 2)[:, :, :channels]


def levels_apart(p: Preprocess, pixels: np.ndarray) -> np.ndarray:
    """|graph - Preprocess|, C,h,w, in levels of 255."""
    channels = pixels.shape[2]
    image = PIL.Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, MODES[channels])
    with torch.no_grad():
        found, _ = Placed(p)(torch.from_numpy(pixels)[None])
    return ((found[0] - p(image)).abs() * torch.tensor(p.std)[:, None, None] * 255).numpy()


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_resized_as_pillow_resizes_them(fit: str, interpolation: str) -> None:
    rng, chance = np.random.default_rng(0), random.Random(f"{fit} {interpolation}")
    columns_first, rows_first = [], []
    for _ in range(60):
        channels, size = chance.choice([1, 3, 4]), chance.choice([(32, 32), (24, 40), (33, 17)])
        height, width = chance.randint(1, 150), chance.randint(1, 150)
        p = Preprocess(
            size=size, fit=fit, interpolation=interpolation, crop_pct=chance.choice([1.0, 0.875]), mean=(0.4,) * channels,
            std=(0.25,) * channels, in_chans=channels,
        )  # type: ignore[arg-type]  # fmt: skip
        laid_h, laid_w = placement(p, (height, width)).laid_size
        # Pillow 13 begins with the rows where many more of them go than columns; the graph and older ones always with the columns
        some = rows_first if height - laid_h > 2 * max(width - laid_w, 0) else columns_first
        some.append(levels_apart(p, picture(rng, height, width, channels)).ravel())
    assert len(columns_first) > 20
    everything = np.concatenate(columns_first)
    assert everything.max() < 1.01
    assert (everything > 0.5).mean() < 0.02
    everything = np.concatenate(rows_first)
    assert everything.max() < 8
    assert everything.mean() < 0.4


def test_nearest_takes_the_same_pixels() -> None:
    rng = np.random.default_rng(1)
    p = Preprocess(size=(32, 32), fit="stretch", interpolation="nearest", crop_pct=1.0, mean=(0.4,) * 3, std=(0.25,) * 3)
    for height, width in ((17, 41), (64, 128), (101, 33), (31, 30)):  # no output pixel's centre falls between two pixels
        assert levels_apart(p, picture(rng, height, width, 3)).max() == 0


def test_transparent_pictures_are_resized_as_pillow_resizes_them() -> None:
    rng = np.random.default_rng(2)
    p = Preprocess(size=(20, 20), fit="stretch", interpolation="bilinear", crop_pct=1.0, mean=(0.4,) * 4, std=(0.25,) * 4, in_chans=4)
    pixels = picture(rng, 45, 50, 4)
    pixels[:, 25:, 3] = 120
    pixels[:20, :, 3] = 0
    plain = Placed(p)
    with torch.no_grad():
        unweighted = plain.normalised(plain._resized(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).float(), axes(plain, 45, 50)))
    apart = levels_apart(p, pixels)
    assert (apart > 2.5).mean() < 0.01  # a level of colour times opacity is two of colour at half opacity
    image = PIL.Image.fromarray(pixels, "RGBA")
    assert ((unweighted[0] - p(image)).abs() * 0.25 * 255 > 2.5).float().mean() > 0.02  # without opacity it would show
    same = picture(rng, 20, 20, 4)
    same[:, :, 3] = 3
    assert levels_apart(p, same).max() < 1e-3  # an image of the right size is left as it is


def axes(placed: Placed, height: int, width: int) -> list:  # type: ignore[type-arg]
    from convmix.exporting.preprocessing import Axis

    size = torch.tensor(height), torch.tensor(width)
    laid, offset = placed._place(size)
    return [Axis(*one, "bilinear") for one in zip(size, laid, offset, placed.preprocess.size, (height, width), strict=True)]


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_arrays_of_many_channels_are_resized_without_rounding(fit: str, interpolation: str) -> None:
    rng = np.random.default_rng(3)
    p = Preprocess(size=(16, 24), fit=fit, interpolation=interpolation, crop_pct=0.9, mean=(0.3,) * 5, std=(0.2,) * 5, in_chans=5)  # type: ignore[arg-type]
    for height, width in ((40, 31), (9, 77), (16, 24), (120, 50)):
        image = rng.random((height, width, 5), dtype=np.float32)
        with torch.no_grad():
            found, _ = Placed(p)(torch.from_numpy(image)[None])
        torch.testing.assert_close(found[0], p(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_frame_is_the_placement(fit: str, size: tuple[int, int]) -> None:
    p = Preprocess(size=size, fit=fit, interpolation="bilinear", crop_pct=0.875, mean=(0.4,) * 3, std=(0.25,) * 3)  # type: ignore[arg-type]
    for height in (1, 7, 30, 31, 64, 97, 192):
        for width in (3, 24, 63, 99, 195):
            with torch.no_grad():
                _, frame = Placed(p)(torch.zeros(1, height, width, 3, dtype=torch.uint8))
            expected = placement(p, (height, width))
            assert [float(v) for v in frame.scale] == pytest.approx(expected.scale, rel=1e-6), (height, width)
            assert [float(v) for v in frame.offset] == list(expected.offset), (height, width)


def test_normalising_is_what_the_loaders_do() -> None:
    p = Preprocess(size=(9, 11), fit="crop", interpolation="bilinear", crop_pct=1.0, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    pixels = torch.randint(0, 256, (2, 9, 11, 3), dtype=torch.uint8)
    torch.testing.assert_close(Normalised(p)(pixels)[0], p.normalise_batch(pixels), atol=1e-6, rtol=0)
