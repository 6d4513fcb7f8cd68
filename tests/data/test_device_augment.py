"""What is drawn on the device has the workers' distributions, and every operation gives Pillow's pixels."""

import random
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scipy import stats
from torchvision.transforms import autoaugment

from convmix.config import Augment
from convmix.data.augment import device_draws as draws
from convmix.data.augment import device_geometry as geometry
from convmix.data.augment.device_augment import DeviceAugment, apply, for_transform
from convmix.data.augment.randaugment import rand_augment
from convmix.data.augment.training_transform import training_transform
from convmix.data.geometry import random_box
from convmix.data.preprocessing import Preprocess
from convmix.errors import ConfigError

SIZE = (32, 32)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
FILL = torch.tensor([128, 102, 76], dtype=torch.uint8)
TIMM = ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.8-mstdinf", "rand-m12-mmax15-mstd1-inc1"]


def preprocess(**changed: Any) -> Preprocess:
    return Preprocess(**{"size": SIZE, "fit": "crop", "interpolation": "bicubic", "crop_pct": 1.0, "mean": MEAN, "std": STD, **changed})


def augment(image: tuple[int, int] = SIZE, **settings: Any) -> DeviceAugment:
    return for_transform(training_transform(preprocess(), Augment(**settings)), image)


def photos(n: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    rng = np.random.default_rng(0)
    waves = (
        np.sin(np.arange(size[1]) * 0.3)[None, None, :, None] * 40
        + np.arange(size[1])[None, None, :, None] * 2
        + rng.normal(80, 20, (n, 1, 1, 3))
    )
    return (waves + rng.normal(0, 20, (n, *size, 3))).clip(0, 255).astype(np.uint8)


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def timm(text: str, *, interpolation: str | None = "bicubic") -> Any:
    return rand_augment(text, size=SIZE, mean=MEAN, interpolation=interpolation).change


@pytest.mark.parametrize("text", TIMM)
def test_timms_operations_come_as_often_and_as_strong(text: str) -> None:
    transform, rng, n = timm(text), np.random.default_rng(1), 30_000
    random.seed(2)
    layers = draws.timm_layers(transform, SIZE)(rng, n)
    assert len(layers) == transform.num_layers
    layer, prob = layers[-1], transform.ops[0].prob
    for kind in range(draws.AUTO_CONTRAST, draws.AFFINE + 1):
        ops = [op for op in transform.ops if draws._KINDS[op.name] == kind]
        share = len(ops) / len(transform.ops) * prob
        spread = (share * (1 - share) / n) ** 0.5
        assert (layer.kind == kind).mean() == pytest.approx(share, abs=5 * spread)
        said: list[float] = []
        for op in ops if ops[0].level_fn is not None else ():
            op.aug_fn = lambda image, value, said=said, **_: said.append(value)  # what timm would ask for
            op.prob = 1.0
            for _ in range(1500):
                op(None)
        if said:
            theirs, ours = np.maximum(said, 1) if kind == draws.POSTERIZE else np.array(said), layer.value[layer.kind == kind]
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-4, ops[0].name


@pytest.mark.parametrize("interpolation", ["bicubic", None])
@pytest.mark.parametrize("text", TIMM)
def test_timms_operations_give_pillows_pixels(text: str, interpolation: str | None) -> None:
    transform, n = timm(text, interpolation=interpolation), 400
    pixels = photos(n)
    (chosen,) = np.random.default_rng(3).integers(0, len(transform.ops), (1, n))
    for op in transform.ops:
        op.prob = 1.0
    resample = np.array([geometry.BICUBIC]) if interpolation else np.array([geometry.BILINEAR, geometry.BICUBIC])
    layer = draws._timm_layer(np.random.default_rng(4), transform.ops, chosen, SIZE, resample)
    x = as_batch(pixels)
    apply(x, layer, torch.tensor(transform.ops[0].kwargs["fillcolor"], dtype=torch.uint8))
    fill = transform.ops[0].kwargs["fillcolor"]
    wrong = 0
    for i, number in enumerate(chosen):
        op = transform.ops[number]
        value = layer.value[i] if draws._KINDS[op.name] not in (draws.POSTERIZE, draws.SOLARIZE_ADD) else int(layer.value[i])
        args = () if op.level_fn is None else (value,)
        kernel = PIL.Image.Resampling.BICUBIC if layer.resample[i] == geometry.BICUBIC else PIL.Image.Resampling.BILINEAR
        expected = np.asarray(op.aug_fn(PIL.Image.fromarray(pixels[i]), *args, fillcolor=fill, resample=kernel)).astype(int)
        difference = np.abs(x[i].permute(1, 2, 0).numpy().astype(int) - expected)
        assert difference.max() <= 1, op.name
        wrong += int((difference > 0).sum())
    assert wrong <= 1e-4 * pixels.size


@pytest.mark.parametrize("magnitude", [0, 12, 30])
def test_torchvisions_operations_give_pillows_pixels(magnitude: int) -> None:
    transform = rand_augment(f"torchvision-n2-m{magnitude}", size=SIZE, mean=MEAN, interpolation=None).change
    table = transform._augmentation_space(31, SIZE)
    pixels = photos(3)
    for name, (strengths, signed) in table.items():
        m = float(strengths[magnitude] if strengths.ndim else 0)
        kind, values, matrices = draws._torchvision_op(name, m, signed, SIZE)
        for i, sign in enumerate((1.0, -1.0) if signed else (1.0,)):
            n = len(pixels)
            layer = draws.DrawnOperation(
                np.full(n, kind), np.full(n, values[i]), np.tile(matrices[i], (n, 1)), np.full(n, geometry.NEAREST)
            )
            x = as_batch(pixels)
            apply(x, layer, torch.zeros(3, dtype=torch.uint8))
            for ours, p in zip(x, pixels, strict=True):
                theirs = autoaugment._apply_op(PIL.Image.fromarray(p), name, sign * m, transform.interpolation, None)
                assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(theirs)), (name, sign)


def test_torchvisions_operations_come_equally_often() -> None:
    transform = rand_augment("torchvision-n2-m12", size=SIZE, mean=MEAN, interpolation=None).change
    n = 28_000
    for layer in draws.torchvision_layers(transform, SIZE)(np.random.default_rng(0), n):
        counts = np.bincount(layer.kind, minlength=draws.AFFINE + 1) / n
        assert counts[draws.AFFINE] == pytest.approx(5 / 14, abs=0.02) and counts[draws.NONE] == pytest.approx(1 / 14, abs=0.01)
        assert len(np.unique(layer.matrix, axis=0)) == 11  # five moves in both directions, and none


@pytest.mark.parametrize(("image", "scale"), [((32, 32), (0.08, 1.0)), ((20, 50), (0.75, 1.0)), ((60, 24), (0.9, 1.0))])
def test_boxes_are_the_workers(image: tuple[int, int], scale: tuple[float, float]) -> None:
    settings = Augment(scale=scale, ratio=(3 / 4, 4 / 3))
    ours = draws.boxes(np.random.default_rng(0), 4000, image, aspect=1.0, augment=settings)
    random.seed(0)
    theirs = np.array([random_box(image, aspect=1.0, scale=scale, ratio=settings.ratio) for _ in range(4000)])
    assert (ours[:, 0] + ours[:, 2] <= image[0]).all() and (ours[:, 1] + ours[:, 3] <= image[1]).all() and ours.min() >= 0
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing_is_timms(mode: str) -> None:
    device = augment(erasing=0.6, erasing_mode=mode)
    n = 3000
    x = torch.full((n, 3, *SIZE), 7.0)
    generator = torch.Generator().manual_seed(0)
    drawn = device.draw(n, seed=0, epoch=0, step=0)
    ours = device._erase(x, drawn.erased, lambda shape: torch.randn(shape, generator=generator))
    random.seed(0)
    torch.manual_seed(0)
    assert device.erasing is not None
    theirs = device.erasing(x.clone())
    erased = [(y != 7).any(1).flatten(1) for y in (ours, theirs)]
    shares = [e.float().mean(1) for e in erased]
    assert stats.ks_2samp(*(s.numpy() for s in shares)).pvalue > 1e-4
    assert float((shares[0] > 0).float().mean()) == pytest.approx(0.6, abs=0.04)
    places = [e.float().mean(0) for e in erased]
    assert (places[0] - places[1]).abs().max() < 0.06
    filled = [y[(y != 7).any(1)[:, None].expand_as(y)] for y in (ours, theirs)]
    assert filled[0].mean() == pytest.approx(float(filled[1].mean()), abs=0.1) and filled[0].std() == pytest.approx(
        float(filled[1].std()), abs=0.1
    )
    one = ours[int(shares[0].argmax())].flatten(1)[:, erased[0][int(shares[0].argmax())]]  # 3,pixels
    assert (one.std(1) > 0.5).all() if mode == "pixel" else (one.std(1) < 1e-6).all()


RECIPES: dict[str, dict[str, Any]] = {
    "cifar_25": {"hflip": 0.5, "randaugment": "torchvision-n2-m12"},
    "cifar_100": {"hflip": 0.5, "randaugment": "torchvision-n2-m12", "color_jitter": 0.2, "erasing": 0.2, "erasing_mode": "const"},
    "cifar_200": {
        "scale": (0.75, 1.0), "ratio": (3 / 4, 4 / 3), "hflip": 0.5, "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25,
        "random_interpolation": True,
    },
    "pad": {"pad": 4, "vflip": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_whole_recipes_have_the_workers_statistics(name: str) -> None:
    """Mean and spread of every channel and of every position, over many draws of the same images."""
    transform = training_transform(preprocess(), Augment(**RECIPES[name]))
    device, n = for_transform(transform, SIZE), 1500
    pixels = photos(n)
    generator = torch.Generator().manual_seed(1)
    ours = device(
        torch.from_numpy(pixels), device.draw(n, seed=0, epoch=1, step=2), noise=lambda shape: torch.randn(shape, generator=generator)
    )
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    theirs = torch.stack([transform(PIL.Image.fromarray(p)) for p in pixels])
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    spread = theirs.std() / n**0.5
    for of in (lambda y: y.mean((2, 3)), lambda y: y.std((2, 3)), lambda y: y.diff(dim=3).abs().mean((2, 3))):
        a, b = of(ours), of(theirs)
        limit = 5 * (a.var(0) / n + b.var(0) / n).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= limit).all()
        assert stats.ks_2samp(a[:, 0].numpy(), b[:, 0].numpy()).pvalue > 1e-4
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 8 * spread


def test_nothing_asked_for_changes_nothing() -> None:
    device, pixels = augment(), photos(5)
    images = device(torch.from_numpy(pixels), device.draw(5, seed=0, epoch=0, step=0), noise=torch.randn)
    assert torch.equal(images, preprocess().normalise_batch(torch.from_numpy(pixels)))


@pytest.mark.parametrize(
    ("changed", "settings", "image", "reason"),
    [
        ({"in_chans": 1, "mean": (0.5,), "std": (0.5,)}, {}, SIZE, "RGB"),
        ({"fit": "letterbox"}, {}, SIZE, "no letterbox"),
        ({}, {}, (40, 32), "images of 40x32 are not 32x32"),
        ({"crop_pct": 0.9}, {}, SIZE, "set crop_pct to 1"),
        ({}, {"randaugment": "rand-m9-t3a"}, SIZE, "GaussianBlur is not computed on the device"),
        ({"interpolation": "nearest"}, {"scale": (0.5, 1.0)}, SIZE, "bilinear or bicubic"),
    ],
)
def test_what_the_device_does_not_do_is_said(
    changed: dict[str, Any], settings: dict[str, Any], image: tuple[int, int], reason: str
) -> None:
    transform = training_transform(preprocess(**changed), Augment(**settings))
    with pytest.raises(ConfigError, match=reason):
        for_transform(transform, image)
