"""The preprocessing equals timm's, keeps what each geometry promises, and augmentation stays inside its bounds."""

import io
import json
import pickle
import random
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import timm.data
import torch

from convmix.config import Augment
from convmix.data.augment.training_transform import TrainTransform, training_transform
from convmix.data.decode import BadImage, Image
from convmix.data.geometry import covering_size, random_box
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Preprocess(size=(32, 32), fit="crop", interpolation="bicubic", crop_pct=1.0, mean=MEAN, std=STD)
FITS = ("crop", "letterbox", "stretch")


def photo(height: int, width: int) -> PIL.Image.Image:
    """Smooth content with some detail, as a camera gives."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    bands = [127 + 80 * np.sin(x / 17 + k) * np.cos(y / 23 - k) + 40 * np.sin((x + 2 * y) / 5) for k in range(3)]
    return PIL.Image.fromarray(np.stack(bands, -1).clip(0, 255).astype(np.uint8))


def framed(height: int, width: int) -> PIL.Image.Image:
    """Grey with a white 12% square in every corner."""
    picture = np.full((height, width, 3), 90, np.uint8)
    h, w = round(height * 0.12), round(width * 0.12)
    for rows in (slice(0, h), slice(height - h, height)):
        for columns in (slice(0, w), slice(width - w, width)):
            picture[rows, columns] = 255
    return PIL.Image.fromarray(picture)


def as_array(image: PIL.Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / np.float32(255)


def run(transform: TrainTransform, image: Image, seed: int) -> torch.Tensor:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transform(image)


@pytest.mark.parametrize("size", [(224, 224), (192, 224), (64, 128)])
@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (97, 180), (40, 37)])
@pytest.mark.parametrize("crop_pct", [0.96, 0.875, 1.0])
def test_crop_equals_timms_evaluation(size: tuple[int, int], shape: tuple[int, int], crop_pct: float) -> None:
    image = photo(*shape)
    theirs = timm.data.create_transform(input_size=size, interpolation="bicubic", crop_pct=crop_pct, mean=MEAN, std=STD, is_training=False)
    ours = Preprocess(size=size, fit="crop", interpolation="bicubic", crop_pct=crop_pct, mean=MEAN, std=STD)
    one_level = 1 / 255 / min(STD)
    assert (ours(image) - theirs(image)).abs().max() < one_level * 1e-3


def test_224_at_crop_096_resizes_the_short_side_to_233() -> None:
    assert covering_size((400, 600), (224, 224), 0.96) == (233, 349)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_arrays_are_treated_as_pictures_are(fit: str, interpolation: str) -> None:
    p = replace(PLAIN, size=(48, 64), fit=fit, interpolation=interpolation, crop_pct=0.9)
    image = photo(150, 130)
    assert (p(image) - p(as_array(image))).abs().max() < 3 / 255 / min(STD)  # PIL rounds after each of its two passes


def test_nearest_works_for_pictures_and_arrays() -> None:
    p = replace(PLAIN, interpolation="nearest", fit="stretch")
    image = photo(64, 64)
    assert p(image).shape == p(as_array(image)).shape == (3, 32, 32)


def corners_white(x: torch.Tensor, p: Preprocess) -> list[bool]:
    picture = p.denormalise(x).float()
    return [bool(picture[:, i, j].min() > 200) for i, j in ((0, 0), (0, -1), (-1, 0), (-1, -1))]


def test_letterbox_keeps_the_whole_picture() -> None:
    p = replace(PLAIN, fit="letterbox", size=(60, 60))
    x = p.denormalise(p(framed(100, 200)))  # 30x60 in the middle
    assert (x[:, 15:45].float().amin(0) > 200).nonzero().shape[0] > 0
    for i, j in ((16, 1), (16, 58), (43, 1), (43, 58)):
        assert x[:, i, j].min() > 200
    assert (x[:, 0].float() - 255 * torch.tensor(MEAN)[:, None]).abs().max() <= 1
    assert p(framed(100, 200))[:, 2].abs().max() < 0.02  # the mean colour is zero for the model


def test_crop_keeps_the_centre_and_stretch_the_corners() -> None:
    image = framed(100, 200)
    image.paste((255, 0, 0), (90, 40, 110, 60))
    cropped, stretched = PLAIN(image), replace(PLAIN, fit="stretch")(image)
    assert corners_white(cropped, PLAIN) == [False] * 4
    assert corners_white(stretched, PLAIN) == [True] * 4
    red = [(PLAIN.denormalise(x)[1] < 60).nonzero() for x in (cropped, stretched)]
    (h, w), (sh, sw) = ((r.amax(0) - r.amin(0) + 1).tolist() for r in red)
    assert abs(h - w) <= 1  # the red square stays a square
    assert abs(sh - 2 * sw) <= 2  # and becomes twice as high as wide


@pytest.mark.parametrize("in_chans, mode", [(1, "L"), (4, "RGBA")])
@pytest.mark.parametrize("fit", FITS)
def test_grey_and_rgba_pictures(in_chans: int, mode: str, fit: str) -> None:
    p = replace(PLAIN, in_chans=in_chans, mean=(0.5,) * in_chans, std=(0.5,) * in_chans, fit=fit)
    x = p(PIL.Image.new(mode, (50, 40), "white"))
    assert x.shape == p.shape == (in_chans, 32, 32)
    assert x[:, 16, 16].tolist() == [1.0] * in_chans


def test_extreme_aspects_keep_at_least_a_pixel() -> None:
    for fit in FITS:
        assert replace(PLAIN, fit=fit)(PIL.Image.new("RGB", (2000, 1))).shape == (3, 32, 32)


def test_load_reads_bytes_and_passes_bad_images_on() -> None:
    stream = io.BytesIO()
    photo(40, 50).save(stream, "PNG")
    assert torch.equal(PLAIN.load(stream.getvalue()), PLAIN(photo(40, 50)))
    with pytest.raises(BadImage):
        PLAIN.load(b"no image")
    with pytest.raises(BadImage, match="max_pixels"):
        replace(PLAIN, max_pixels=1999).load(stream.getvalue())


def test_denormalise_undoes_normalise() -> None:
    image = photo(32, 32)
    x = torch.stack([PLAIN(image)] * 2)
    assert torch.equal(PLAIN.denormalise(x)[1].permute(1, 2, 0), torch.from_numpy(np.array(image)))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_normalising_leaves_its_input_as_it_was(in_chans: int) -> None:
    p = replace(PLAIN, in_chans=in_chans, mean=(0.5,) * in_chans, std=(0.25,) * in_chans)
    pixels = torch.rand(2, 32, 32, in_chans, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    x = p.normalise_batch(pixels)
    assert torch.equal(pixels, before)
    torch.testing.assert_close(x, (pixels.permute(0, 3, 1, 2) - 0.5) / 0.25)


def test_preprocess_survives_json_and_pickle() -> None:
    PLAIN(photo(9, 9))
    assert Preprocess.from_dict(json.loads(json.dumps(PLAIN.to_dict()))) == PLAIN == pickle.loads(pickle.dumps(PLAIN))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop_ptc": 1.0}, "unknown preprocessing setting crop_ptc, did you mean crop_pct"),
        ({"fit": "letterbx"}, "did you mean letterbox"),
        ({"mean": [0.5]}, "1 values for 3 channels"),
        ({"std": [1, 1, 0]}, "must be positive"),
        ({"mean": [1, 1, float("nan")]}, "not finite"),
        ({"size": [0, 3]}, "data.size"),
        ({"size": "big"}, "preprocessing"),
        ({"crop_pct": 1.2}, "outside 0..1"),
        ({"interpolation": "lanczos"}, "data.interpolation"),
    ],
)
def test_wrong_preprocessing_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess.from_dict(PLAIN.to_dict() | change)


def test_missing_preprocessing_is_named() -> None:
    with pytest.raises(ConfigError, match="without mean"):
        Preprocess.from_dict({k: v for k, v in PLAIN.to_dict().items() if k != "mean"})


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("crop_pct", [0.8, 1.0])
def test_without_augmentation_training_sees_what_evaluation_sees(fit: str, crop_pct: float) -> None:
    p = replace(PLAIN, fit=fit, crop_pct=crop_pct)
    image = photo(70, 45)
    assert torch.equal(training_transform(p, Augment())(image), p(image))


FULL = Augment(
    scale=(0.3, 1.0), ratio=(0.75, 4 / 3), pad=2, hflip=0.5, vflip=0.5, color_jitter=0.4, randaugment="rand-m9-mstd0.5-inc1",
    random_interpolation=True, erasing=0.5,
)  # fmt: skip


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("in_chans", [3, 1, 5])
def test_augmentation_is_a_function_of_the_seed(fit: str, in_chans: int) -> None:
    p = replace(PLAIN, fit=fit, in_chans=in_chans, mean=(0.4,) * in_chans, std=(0.2,) * in_chans, size=(24, 32))
    image: Image = {3: photo(50, 40), 1: photo(50, 40).convert("L")}.get(in_chans) or np.random.default_rng(0).random(
        (50, 40, 5), np.float32
    )
    t = training_transform(p, FULL if in_chans == 3 else replace(FULL, randaugment=""))
    t = pickle.loads(pickle.dumps(t))
    a, b, c = run(t, image, 1), run(t, image, 1), run(t, image, 2)
    assert a.shape == t.shape == (in_chans, 24, 32)
    assert a.dtype == torch.float32
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.isfinite(a).all()


def test_random_boxes_have_the_asked_area_and_aspect() -> None:
    random.seed(0)
    boxes = np.array([random_box((300, 400), aspect=1.0, scale=(0.1, 0.5), ratio=(0.75, 4 / 3)) for _ in range(2000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 300).all() and (left + w <= 400).all()
    area = h * w / 120_000
    assert 0.095 < area.min() < 0.12 and 0.47 < area.max() < 0.51
    assert 0.7 < (w / h).min() < 0.8 and 1.25 < (w / h).max() < 1.36
    assert abs(np.log(w / h).mean()) < 0.02


def test_an_impossible_box_becomes_the_largest_central_one() -> None:
    random.seed(0)
    assert random_box((10, 100), aspect=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0)) == (0, 45, 10, 10)


def test_training_letterbox_shows_the_whole_object_at_random_places_and_sizes() -> None:
    p = replace(PLAIN, fit="letterbox", size=(64, 64))
    t = training_transform(p, Augment(scale=(0.25, 1.0)))
    heights, tops = [], set()
    for seed in range(60):
        inside = (p.denormalise(run(t, PIL.Image.new("RGB", (200, 100), "white"), seed)).float().amin(0) > 200).nonzero()
        low, high = inside.amin(0), inside.amax(0) + 1
        h, w = (high - low).tolist()
        assert len(inside) == h * w
        assert abs(w - 2 * h) <= 2  # aspect kept
        heights.append(h)
        tops.add(low[0].item())
    assert 16 <= min(heights) < 20 < 28 < max(heights) <= 32
    assert len(tops) > 15


def test_training_stretch_crops_the_pictures_own_aspect() -> None:
    t = training_transform(replace(PLAIN, fit="stretch"), Augment(scale=(0.25, 0.25)))
    image = photo(100, 200)
    image.paste((255, 0, 0), (0, 0, 200, 100))
    image.paste((0, 0, 255), (0, 0, 100, 100))
    seen = {round((PLAIN.denormalise(run(t, image, seed))[2].float() > 128).float().mean().item(), 1) for seed in range(40)}
    assert {0.0, 1.0} & seen and len(seen) >= 4  # the window of half the width moves over the border


def test_pad_moves_the_picture_by_at_most_so_many_pixels() -> None:
    t = training_transform(PLAIN, Augment(pad=4))
    image = PIL.Image.new("RGB", (32, 32))
    image.putpixel((16, 16), (255, 255, 255))
    places = set()
    for seed in range(400):
        picture = PLAIN.denormalise(run(t, image, seed))
        places.add(tuple((picture.amin(0) > 200).nonzero()[0].tolist()))
    assert {y for y, _ in places} == {x for _, x in places} == set(range(12, 21))


def test_flips_turn_the_right_axes() -> None:
    image = photo(32, 32)
    plain = PLAIN(image)
    assert torch.equal(training_transform(PLAIN, Augment(hflip=1.0))(image), plain.flip(2))
    assert torch.equal(training_transform(PLAIN, Augment(vflip=1.0))(image), plain.flip(1))
    for augment, axes in ((Augment(hflip=1.0), (2,)), (Augment(vflip=1.0), (1,)), (Augment(vflip=1.0, hflip=1.0), (1, 2))):
        assert torch.allclose(training_transform(PLAIN, augment)(as_array(image)), plain.flip(axes), atol=1e-5), axes


def test_erasing_writes_noise_into_one_rectangle() -> None:
    changed = (run(training_transform(PLAIN, Augment(erasing=1.0)), photo(32, 32), 3) != PLAIN(photo(32, 32))).all(0).nonzero()
    h, w = (changed.amax(0) - changed.amin(0) + 1).tolist()
    assert len(changed) == h * w and 0.02 * 1024 * 0.8 < h * w < 1024 / 3 * 1.2


def test_colour_jitter_of_arrays_changes_brightness_and_contrast_alone() -> None:
    p = replace(PLAIN, in_chans=2, mean=(0.0, 0.0), std=(1.0, 1.0))
    image = np.random.default_rng(0).normal(5, 2, (32, 32, 2)).astype(np.float32)
    x, y = p(image), run(training_transform(p, Augment(color_jitter=0.5)), image, 0)
    for a, b in zip(x, y, strict=True):
        slope = (b.std() / a.std()).item()
        assert torch.allclose(b, a * slope + (b.mean() - a.mean() * slope), atol=1e-3)
        assert 0.25 <= slope <= 2.25


@pytest.mark.parametrize(
    "text",
    [
        "rnd-m9",
        "rand-m9-foo",
        "rand-mx",
        "rand-m9-mstd",
        "rand-n0",
        "rand-m9-inc2",
        "rand m9",
        "augmix-m5",
        "rand-tnone",
        "torchvision-n2",
        "torchvision-n0-m3",
        "torchvision-n2-m31",
    ],
)
def test_a_wrong_randaugment_string_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"rand-m9-mstd0\.5-inc1|magnitudes are 0\.\.30"):
        training_transform(PLAIN, Augment(randaugment=text))


@pytest.mark.parametrize(
    "text",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m12-n2",
        "rand-n1-m8",
        "rand",
        "rand-m9-p0.7-mmax12",
        "rand-m5-tweights",
        "rand-m9-mstdinf",
        "torchvision-n2-m12",
    ],
)
def test_randaugment_strings_work(text: str) -> None:
    t = training_transform(PLAIN, Augment(randaugment=text))
    assert len({run(t, photo(32, 32), seed).sum().item() for seed in range(12)}) > 4


@pytest.mark.parametrize("text", ["rand-m10-p1-inc1", "rand-m0-p1"])
def test_randaugment_survives_its_extreme_magnitudes(text: str) -> None:
    """Posterize to no bits is an error in Pillow 13, and rand-m9-mstd0.5-inc1 reaches it once in some hundred images."""
    t = training_transform(PLAIN, Augment(randaugment=text))
    for seed in range(150):
        assert torch.isfinite(run(t, photo(32, 32), seed)).all()


def test_randaugment_needs_rgb() -> None:
    p = replace(PLAIN, in_chans=1, mean=(0.5,), std=(0.5,))
    with pytest.raises(ConfigError, match='have 1 channels; set randaugment to ""'):
        training_transform(p, Augment(randaugment="rand-m9"))
    t = training_transform(PLAIN, Augment(randaugment="rand-m9"))
    assert t(as_array(photo(32, 32))).shape == (3, 32, 32)
    with pytest.raises(BadImage, match=r"outside 0\.\.1"):
        t(as_array(photo(32, 32)) * 3)


def test_an_impossible_ratio_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment\.ratio"):
        training_transform(PLAIN, Augment(ratio=(1.5, 1.0)))
