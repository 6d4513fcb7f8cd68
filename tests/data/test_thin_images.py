"""Very long and thin images cost no more memory than others, and show what the whole, enlarged, would show."""

import io
import random
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from convmix.config import Augment, Size
from convmix.data import geometry
from convmix.data.augment.training_transform import training_transform
from convmix.data.decode import BadImage, fits_in_memory
from convmix.data.preprocessing import Preprocess


def preprocess(size: Size = (32, 32), in_chans: int = 3, fit: str = "crop") -> Preprocess:
    half = (0.5,) * in_chans
    return Preprocess(size=size, fit=fit, interpolation="bicubic", crop_pct=0.9, mean=half, std=half, in_chans=in_chans)  # type: ignore[arg-type]


def strip(length: int, *, channels: int, tall: bool) -> np.ndarray:
    """length,1 or 1,length pixels of smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (length // 8 + 1, channels)).repeat(8, 0)[:length]
    return noise.astype(np.uint8)[:, None] if tall else noise.astype(np.uint8)[None]


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("pad", [None, 0, 3])
@pytest.mark.parametrize("channels", [3, 5])
def test_a_part_of_a_thin_image_is_what_the_whole_would_show(
    tall: bool, pad: int | None, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = strip(600, channels=channels, tall=tall)
    image = PIL.Image.fromarray(pixels) if channels == 3 else pixels.astype(np.float32) / 255
    prepared = preprocess(in_chans=channels)
    place = prepared if pad is None else training_transform(prepared, Augment(pad=pad))
    seen = []
    for largest in (2**24, 1):
        monkeypatch.setattr(geometry, "_LARGEST_WHOLE", largest)
        random.seed(3)
        seen.append(place(image))
    assert seen[0].shape == (channels, 32, 32)
    assert seen[0].std() > 0.1
    assert float((seen[0] - seen[1]).abs().max()) < 0.03  # 8-bit rounding in the other order; bicubic may be a few levels off


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
@pytest.mark.parametrize("channels", [3, 4, 5])
def test_a_thin_image_takes_little_memory(shape: Size, channels: int) -> None:
    pixels = strip(max(shape), channels=channels, tall=shape[1] == 1)
    image = PIL.Image.fromarray(pixels) if channels < 5 else pixels.astype(np.float32) / 255
    whole = geometry.covering_size(shape, (224, 224), 0.9)
    assert whole[0] * whole[1] > 3_000_000_000  # Pillow and numpy would fail or swap
    tracemalloc.start()
    x = preprocess((224, 224), channels)(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.shape == (channels, 224, 224)
    assert peak < 2**25


def test_a_padded_thin_image_wider_than_the_input_is_filled() -> None:
    image = PIL.Image.new("RGB", (9, 1), "red")
    for seed in range(5):
        random.seed(seed)
        assert training_transform(preprocess((8, 8)), Augment(pad=40))(image).shape == (3, 8, 8)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")])
def test_an_image_without_memory_is_a_bad_one(error: Exception) -> None:
    with pytest.raises(BadImage, match="too large for the memory"), fits_in_memory():
        raise error


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a bug"), fits_in_memory():
        raise RuntimeError("a bug")


def test_memory_that_ends_while_resizing_costs_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (40, 30)).save(file, "PNG")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(geometry, "resize", full)
    with pytest.raises(BadImage, match="memory"):
        preprocess().read(file.getvalue())
