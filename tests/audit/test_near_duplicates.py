"""Near copies of real pictures are found, whatever was done to them, and different pictures are left alone."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from planted import NEAR, encoded, mirrored, resized, shifted

from convmix.audit.image_facts import thumbnail
from convmix.audit.near_duplicates import ALIKE, near_copies
from convmix.config import Data
from convmix.data.sources import open_source

PER_CHANGE = 60
RECALL = 0.95


def thumbnails(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.frombuffer(thumbnail(x), np.uint8).reshape(16, 16) for x in pictures])


def changed(pictures: list[Image.Image], how: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(NEAR[how](x))).convert("RGB") for x in pictures]


def shares_found(pictures: list[Image.Image]) -> dict[str, float]:
    """Change -> share of its copies that are paired with their originals, all of them searched at once."""
    n = len(pictures)
    found = {}
    all_of_them = list(pictures)
    for i, how in enumerate(NEAR):
        all_of_them += changed(pictures[i * PER_CHANGE : (i + 1) * PER_CHANGE], how)
    like = near_copies(thumbnails(all_of_them))
    pairs = set(zip(like.first.tolist(), like.second.tolist(), strict=True))
    for i, how in enumerate(NEAR):
        copies = [(i * PER_CHANGE + k, n + i * PER_CHANGE + k) for k in range(PER_CHANGE)]
        found[how] = float(np.mean([pair in pairs for pair in copies]))
    return found


@pytest.fixture(scope="module")
def photos160(real_photos: list[Path]) -> list[Image.Image]:
    chosen = [real_photos[i] for i in np.random.default_rng(0).permutation(len(real_photos))[: PER_CHANGE * len(NEAR)]]
    return [Image.open(path).convert("RGB") for path in chosen]


@pytest.fixture(scope="module")
def cifar(shared: Path) -> list[Image.Image]:
    test = open_source(shared / "data" / "cifar10", Data()).splits["test"]
    chosen = np.random.default_rng(0).permutation(len(test))[: PER_CHANGE * len(NEAR)]
    return [Image.open(io.BytesIO(test.source(int(i)))).convert("RGB") for i in chosen]  # type: ignore[arg-type]


@pytest.mark.slow
def test_600_near_copies_of_photos_are_found(photos160: list[Image.Image]) -> None:
    found = shares_found(photos160)
    assert min(found.values()) >= RECALL, found


@pytest.mark.slow
def test_600_near_copies_of_32_px_pictures_are_found(cifar: list[Image.Image]) -> None:
    found = shares_found(cifar)
    assert np.mean(list(found.values())) >= 0.99, found
    tiny = found.pop("mirrored, half the size, JPEG q70")  # three changes at once to a picture of 16 px: 56 of 60
    assert min(found.values()) >= RECALL and tiny >= 0.9, (found, tiny)


def test_different_photos_are_no_copies(photos160: list[Image.Image]) -> None:
    like = near_copies(thumbnails(photos160))
    assert len(like.first) <= 1  # ImageNet has copies of its own
    assert like.limit == pytest.approx(ALIKE)


def test_a_shared_horizon_is_no_copy() -> None:
    """Sky above sea with a ship here or there: alike as wholes, and yet not the same."""
    pictures = []
    for ships in ([(2, 14)], [(17, 8)], [(33, 14)], [(47, 8)], [(8, 8), (40, 14)]):
        sea = np.full((64, 64, 3), 200, np.uint8)
        sea[34:] = (50, 80, 110)
        for x, height in ships:
            sea[34 - height : 36, x : x + 10] = 120
        pictures.append(Image.fromarray(sea))
    points = thumbnails(pictures).reshape(len(pictures), -1).astype(float)
    assert (np.corrcoef(points) > ALIKE).mean() > 0.5
    like = near_copies(thumbnails(pictures))
    assert len(like.first) == 0, like


def test_mirrored_copies_are_told_from_plain_ones(photos160: list[Image.Image]) -> None:
    pictures = [*photos160[:3], resized(photos160[0], 0.5), mirrored(photos160[1]), shifted(photos160[2], 1)]
    like = near_copies(thumbnails(pictures))
    assert list(zip(like.first.tolist(), like.second.tolist(), like.mirrored.tolist(), strict=True)) == [(0, 3, False), (1, 4, True)]


def test_where_all_pictures_are_alike_copies_must_be_nearer() -> None:
    """Scanned digits: different ones are as near as copies of photos; 40 copies are found among them, and few others."""
    from sklearn.datasets import load_digits

    scans = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)  # 1797,8,8
    pictures = [Image.fromarray(x) for x in scans]
    copies = [Image.open(io.BytesIO(encoded(resized(ImageEnhance.Brightness(x).enhance(0.9), 2), "PNG"))) for x in pictures[:40]]
    like = near_copies(thumbnails([*pictures, *copies]))
    pairs = set(zip(like.first.tolist(), like.second.tolist(), strict=True))
    assert like.limit > ALIKE + 0.01
    assert sum((i, 1797 + i) in pairs for i in range(40)) >= 38
    assert len(pairs) <= 160


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pictures(n: int) -> None:
    same = np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8).repeat(n, 0)
    assert len(near_copies(same).first) == (n == 2)
