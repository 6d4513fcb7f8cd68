"""Boxes, masks and class maps move with the pixels, exactly for evaluation and at random for training."""

import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from painted import extent, objects_of, painted, rectangles

from convmix.config import Augment, Size
from convmix.data.decode import BadImage, Image
from convmix.data.dense import DensePreprocess, DenseTransform, check_augment
from convmix.data.loaders import eval_batches, train_batches
from convmix.data.preprocessing import Preprocess
from convmix.data.targets import IGNORE, InstanceTargets, Objects, PerImage, Regions, Truth
from convmix.errors import ConfigError

FITS = ("crop", "letterbox", "stretch")
PLAIN = Preprocess(size=(96, 128), fit="letterbox", interpolation="nearest", crop_pct=1.0, mean=(0.5,), std=(1.0,), in_chans=1)
WILD = Augment(zoom=(0.4, 2.5), hflip=0.5, vflip=0.5)
CLASSES = (*range(20), *[IGNORE] * 236)  # value of a mask file -> class


def written(classes: np.ndarray, folder: Path) -> Regions:
    path = folder / "mask.png"
    PIL.Image.fromarray(classes).save(path)
    return Regions(str(path), CLASSES)


def drawn(
    transform: DenseTransform, image: Image, annotation: Objects | Regions, seed: int
) -> tuple[np.ndarray, InstanceTargets | torch.Tensor]:
    random.seed(seed)
    torch.manual_seed(seed)
    moved, target = transform.change(image, annotation)
    return np.asarray(moved), target


def difference(ours: np.ndarray, painted: np.ndarray) -> float:
    """The share of pixels that differ. Where the centre of a pixel falls between two of the image the nearest may be either, so a
    neighbour's value is right too, but not everywhere."""
    around = np.pad(painted, 1, mode="edge")
    height, width = painted.shape
    neighbours = [around[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert np.any([ours == n for n in neighbours], axis=0).all()
    return float((ours != painted).mean())


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(90, 160), (200, 120)])
def test_boxes_and_masks_follow_the_pixels(fit: str, size: Size, masks: bool) -> None:
    boxes = rectangles(size)
    image, objects = PIL.Image.fromarray(painted(size, boxes)), objects_of(size, boxes, masks=masks)
    transform = DenseTransform(replace(PLAIN, fit=fit), WILD, masks=masks)
    compared, differing = 0, []
    for seed in range(80):
        pixels, target = drawn(transform, image, objects, seed)
        assert isinstance(target, InstanceTargets) and target.boxes.dtype == torch.float32
        assert masks == (target.masks is not None)
        for i, (box, label) in enumerate(zip(target.boxes, target.labels.tolist(), strict=True)):
            own = pixels == 10 + 10 * label
            assert np.abs(box.numpy() - extent(own)).max() <= (1 if masks else 0.51)
            if target.masks is not None:
                differing.append(difference(target.masks[i].numpy(), own))
            compared += 1
    assert compared > 400 and (not masks or np.mean(differing) < 0.0005)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_smooth_resampling_keeps_edges_where_the_boxes_are(interpolation: str) -> None:
    """The edge is where the grey value is halfway: half a pixel of shift between the two resamplings would show."""
    size = (150, 200)
    box = np.asarray([[50, 40, 130, 110]])
    image, objects = PIL.Image.fromarray((painted(size, box) > 0).astype(np.uint8) * 255), objects_of(size, box)
    transform = DenseTransform(replace(PLAIN, interpolation=interpolation), replace(WILD, zoom=(0.3, 1.2)), masks=True)
    differing = []
    for seed in range(60):
        pixels, target = drawn(transform, image, objects, seed)
        assert isinstance(target, InstanceTargets) and target.masks is not None
        bright = pixels > 128  # the mean around the image is 128
        for mask, moved in zip(target.masks.numpy(), target.boxes.numpy(), strict=True):
            assert np.abs(moved - extent(bright)).max() <= 1
            differing.append((mask != bright).mean())
    assert len(differing) > 40 and max(differing) < 0.01 and np.mean(differing) < 0.002


@pytest.mark.parametrize("fit", FITS)
def test_class_maps_follow_the_pixels(fit: str, tmp_path: Path) -> None:
    size = (90, 160)
    classes = painted(size, rectangles(size)) // 10  # 0 to 12
    image, regions = PIL.Image.fromarray(classes * 10), written(classes, tmp_path)
    transform = DenseTransform(replace(PLAIN, fit=fit), WILD, masks=False)
    differing = []
    for seed in range(60):
        pixels, target = drawn(transform, image, regions, seed)
        assert isinstance(target, torch.Tensor) and target.dtype == torch.uint8 and target.shape == (96, 128)
        assert np.array_equal(target.numpy() == IGNORE, pixels == 128)  # the mean beside the image
        differing.append(difference(np.where(pixels == 128, 128, target.numpy() * 10), pixels))
    assert np.mean(differing) < 0.005


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("in_chans", [1, 3, 5])
def test_without_augmentation_training_sees_what_evaluation_sees(fit: str, in_chans: int, tmp_path: Path) -> None:
    rng, size = np.random.default_rng(0), (70, 45)
    image: Image = rng.random((*size, 5), np.float32)
    if in_chans != 5:
        image = PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert("L" if in_chans == 1 else "RGB")
    p = replace(PLAIN, fit=fit, interpolation="bicubic", crop_pct=0.9, in_chans=in_chans, mean=(0.5,) * in_chans, std=(1.0,) * in_chans)
    evaluation, training = DensePreprocess(p), DenseTransform(p, Augment(), masks=False)
    objects = objects_of(size, rectangles(size))
    placed, truth = evaluation.change(image, objects)
    moved, target = training.change(image, objects)
    assert np.array_equal(np.asarray(moved), np.asarray(placed))
    assert torch.equal(training.normalise(moved), p(image))
    assert isinstance(target, InstanceTargets)
    expected = truth.placement.boxes_to_input(torch.from_numpy(objects.boxes))
    assert torch.equal(target.boxes, expected[target.labels])
    assert truth.annotation is objects
    regions = written(painted(size, rectangles(size)) // 10, tmp_path)
    assert np.array_equal(np.asarray(training.change(image, regions)[0]), np.asarray(placed))
    annotated = evaluation.change(image, regions)[1].annotation
    assert isinstance(annotated, np.ndarray) and np.array_equal(annotated, painted(size, rectangles(size)) // 10)
    assert evaluation.change(image, None)[1] == Truth(None, truth.placement)


def test_pictures_and_arrays_are_laid_alike() -> None:
    image = PIL.Image.fromarray((np.add.outer(np.arange(90) * 2, np.arange(160)) % 200).astype(np.uint8))
    as_array = np.asarray(image, np.float32)[:, :, None] / np.float32(255)
    transform = DenseTransform(replace(PLAIN, interpolation="bilinear"), WILD, masks=False)
    for seed in range(30):
        picture, _ = drawn(transform, image, objects_of((90, 160), np.zeros((0, 4))), seed)
        array, _ = drawn(transform, as_array, objects_of((90, 160), np.zeros((0, 4))), seed)
        assert array.shape == (96, 128, 1)
        assert np.abs(picture / 255 - array[:, :, 0]).max() < 3 / 255  # the picture is rounded after each of its two passes


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects_and_images_of_one_pixel(masks: bool) -> None:
    for size in ((50, 70), (1, 1), (1, 300)):
        image = PIL.Image.new("L", (size[1], size[0]), 255)
        for objects in (objects_of(size, np.zeros((0, 4))), objects_of(size, np.asarray([[0, 0, 1, 1]]), crowd=(0,))):
            for fit in FITS:
                pixels, target = drawn(DenseTransform(replace(PLAIN, fit=fit), WILD, masks=masks), image, objects, 0)
                assert pixels.shape == (96, 128) and (pixels == 255).any()
                assert isinstance(target, InstanceTargets) and target.boxes.shape == (0, 4) and target.labels.shape == (0,)
                assert target.masks is None or target.masks.shape == (0, 96, 128)


def test_zoom_is_drawn_evenly_over_its_octaves_and_the_place_over_the_room() -> None:
    size = (48, 64)  # at 2 it fits
    image, transform = PIL.Image.new("L", (64, 48), 255), DenseTransform(PLAIN, Augment(zoom=(0.25, 3.0)), masks=False)
    sides, shifts, whole = [], set(), np.asarray([[0, 0, 64, 48]])
    for seed in range(600):
        _, target = drawn(transform, image, objects_of(size, whole, masks=False), seed)
        assert isinstance(target, InstanceTargets)
        left, top, right, bottom = target.boxes[0].tolist()
        sides.append(right - left)
        if right - left < 60:  # smaller than 1/2
            shifts.add((left / (128 - right + left), top / (96 - bottom + top)))  # shares of the room
    octaves = np.log2(np.asarray(sides) / 32)
    assert 0 <= octaves.min() < 0.05 and octaves.max() == 2  # cut to the input from 1 on
    assert [abs((octaves < o).mean() - o / np.log2(12)) < 0.06 for o in (0.5, 1, 1.5)] == [True] * 3
    for shares in np.asarray(list(shifts)).T:
        assert shares.min() < 0.05 and shares.max() > 0.95 and abs(shares.mean() - 0.5) < 0.06


def test_windows_of_an_image_larger_than_the_input_reach_all_its_corners() -> None:
    corners = np.asarray([[0, 0, 32, 24], [96, 0, 128, 24], [0, 72, 32, 96], [96, 72, 128, 96]])
    image, transform = PIL.Image.new("L", (128, 96)), DenseTransform(PLAIN, Augment(zoom=(1.5, 1.5)), masks=False)
    seen = [drawn(transform, image, objects_of((96, 128), corners), seed)[1].labels.tolist() for seed in range(200)]  # type: ignore[union-attr]
    counts = [sum(corner in labels for labels in seen) for corner in range(4)]
    assert min(counts) > 50 and max(counts) < 200


def test_flips_happen_as_often_as_asked() -> None:
    image, objects = PIL.Image.new("L", (128, 96)), objects_of((96, 128), np.asarray([[0, 0, 10, 20]]))
    for augment, expected in ((Augment(hflip=0.25), {(0, 0): 300, (118, 0): 100}), (Augment(vflip=1.0), {(0, 76): 400})):
        transform = DenseTransform(PLAIN, augment, masks=False)
        corners = [tuple(drawn(transform, image, objects, seed)[1].boxes[0, :2].int().tolist()) for seed in range(400)]  # type: ignore[union-attr]
        assert set(corners) == set(expected)
        assert all(abs(corners.count(corner) - times) < 35 for corner, times in expected.items())


def test_a_crop_of_one_class_is_drawn_again(tmp_path: Path) -> None:
    """A twentieth of the image has another class: most windows miss it, most of ten do not."""
    classes = np.zeros((200, 200), np.uint8)
    classes[80:125, 80:125] = 1
    classes[:20] = 200  # not scored
    image, regions = PIL.Image.fromarray(classes), written(classes, tmp_path)
    p = replace(PLAIN, size=(64, 64))
    shares = {}
    for limit in (1.0, 0.75):
        transform = DenseTransform(p, Augment(zoom=(3.0, 3.0), max_class_share=limit), masks=False)
        largest = []
        for seed in range(150):
            target = drawn(transform, image, regions, seed)[1]
            assert isinstance(target, torch.Tensor)
            known = target[target != IGNORE]
            largest.append(known.bincount().max().item() / max(len(known), 1))
        shares[limit] = np.mean(np.asarray(largest) <= 0.75)
    assert shares[1.0] < 0.25
    assert shares[0.75] > 1 - (1 - shares[1.0]) ** 10 - 0.12


def test_what_is_not_scored_makes_no_crop_monotonous(tmp_path: Path) -> None:
    classes = np.full((200, 200), 200, np.uint8)
    classes[::20], classes[10::20] = 0, 1  # half of what is scored each
    image, regions = PIL.Image.fromarray(classes), written(classes, tmp_path)
    limits = (DenseTransform(PLAIN, Augment(zoom=(1.0, 2.0), max_class_share=share), masks=False) for share in (1.0, 0.75))
    free, limited = ([drawn(transform, image, regions, seed)[1] for seed in range(20)] for transform in limits)
    assert all(torch.equal(a, b) for a, b in zip(free, limited, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("in_chans", [1, 3, 5])
def test_augmentation_is_a_function_of_the_seed(in_chans: int) -> None:
    size = (60, 80)
    image: Image = np.random.default_rng(0).random((*size, 5), np.float32)
    if in_chans != 5:
        image = PIL.Image.fromarray(painted(size, rectangles(size))).convert("L" if in_chans == 1 else "RGB")
    p = replace(PLAIN, in_chans=in_chans, mean=(0.5,) * in_chans, std=(1.0,) * in_chans)
    transform = DenseTransform(p, replace(WILD, color_jitter=0.4, random_interpolation=True), masks=True)
    again = pickle.loads(pickle.dumps(transform))
    objects = objects_of(size, rectangles(size))
    (a, x), (b, y), (c, _) = (drawn(t, image, objects, seed) for t, seed in ((transform, 1), (again, 1), (transform, 2)))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert isinstance(x, InstanceTargets) and isinstance(y, InstanceTargets) and torch.equal(x.boxes, y.boxes)
    assert again == transform and again.shape == (in_chans, 96, 128)
    still = drawn(replace(transform, augment=replace(transform.augment, color_jitter=0.0)), image, objects, 1)[0]
    assert not np.array_equal(a, still)


@pytest.mark.parametrize("in_chans", [1, 3, 5])
def test_colours_change_only_where_the_image_is(in_chans: int) -> None:
    image: Image = np.full((60, 80, 5), 0.75, np.float32)
    if in_chans != 5:
        image = PIL.Image.new("L" if in_chans == 1 else "RGB", (80, 60), (191,) * in_chans if in_chans > 1 else 191)
    p = replace(PLAIN, in_chans=in_chans, mean=(0.5,) * in_chans, std=(1.0,) * in_chans)
    transform = DenseTransform(p, Augment(zoom=(0.5, 0.9), color_jitter=0.4), masks=False)
    levels = set()
    for seed in range(20):
        pixels, target = drawn(transform, image, objects_of((60, 80), np.asarray([[0, 0, 80, 60]])), seed)
        assert isinstance(target, InstanceTargets)
        left, top, right, bottom = target.boxes[0].int().tolist()
        inside = pixels[top:bottom, left:right].astype(np.float32)
        levels.add(float(inside.flat[0]))
        assert inside.std() < 1e-3
        outside = np.ones((96, 128), bool)
        outside[top:bottom, left:right] = False
        assert set(np.unique(pixels[outside]).tolist()) == {0.5 if in_chans == 5 else 128}
    assert len(levels) > 12


def test_random_interpolation_draws_the_filter() -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8))
    transform = DenseTransform(PLAIN, Augment(random_interpolation=True), masks=False)
    seen = {drawn(transform, image, objects_of((60, 80), np.zeros((0, 4))), seed)[0].tobytes() for seed in range(20)}
    filters = {np.asarray(replace(PLAIN, interpolation=name).place(image)).tobytes() for name in ("bilinear", "bicubic")}
    assert seen == filters


@pytest.mark.parametrize(
    "augment, advice",
    [
        (Augment(scale=(0.08, 1.0)), r"augment\.scale: 0\.08,1 is for classification; augment\.zoom"),
        (Augment(ratio=(0.75, 1.5)), r"augment\.ratio: 0\.75,1\.5 .*augment\.zoom"),
        (Augment(pad=4), r"augment\.pad: 4 .*augment\.zoom"),
        (Augment(randaugment="rand-m9"), r"augment\.randaugment: rand-m9 .*augment\.zoom and augment\.color_jitter"),
        (Augment(erasing=0.25), r"augment\.erasing: 0\.25 .*augment\.zoom"),
        (Augment(mixup=0.2), r"augment\.mixup: 0\.2 .*augment\.zoom"),
        (Augment(cutmix=1.0), r"augment\.cutmix: 1\.0 .*augment\.zoom"),
    ],
)
def test_settings_of_classification_are_refused(augment: Augment, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        DenseTransform(PLAIN, augment, masks=False)
    check_augment(replace(WILD, color_jitter=0.4, max_class_share=0.75, random_interpolation=True))


def test_an_annotation_of_another_size_is_a_bad_image(tmp_path: Path) -> None:
    image = PIL.Image.new("L", (40, 30))
    regions = written(np.zeros((40, 30), np.uint8), tmp_path)
    for change in (DensePreprocess(PLAIN).change, DenseTransform(PLAIN, WILD, masks=False).change):
        with pytest.raises(BadImage, match="annotated for 40x30, the image is 30x40"):
            change(image, objects_of((40, 30), np.zeros((0, 4))))
        with pytest.raises(BadImage, match="the mask is 40x30, the image 30x40"):
            change(image, regions)
    with pytest.raises(BadImage, match="no masks"):
        DenseTransform(PLAIN, WILD, masks=True).change(image, objects_of((30, 40), np.asarray([[0, 0, 9, 9]]), masks=False))


class Few:
    """Three images of which the second is annotated for another size."""

    labels = np.zeros(3, np.int64)
    sizes = ((60, 80), (50, 50), (90, 40))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for i, size in enumerate(self.sizes):
            PIL.Image.fromarray(painted(size, rectangles(size))).save(folder / f"{i}.png")

    def __len__(self) -> int:
        return 3

    def source(self, i: int) -> Path:
        return self.folder / f"{i}.png"

    def annotation(self, i: int) -> Objects:
        size = (51, 50) if i == 1 else self.sizes[i]
        return objects_of(size, rectangles(self.sizes[i]))


def test_loaders_give_a_target_per_image_and_list_the_bad_ones(tmp_path: Path) -> None:
    examples = Few(tmp_path)
    transform = DenseTransform(PLAIN, WILD, masks=True)
    (batch,) = train_batches(examples, transform, batch_size=3, seed=0, epoch=0, workers=0)
    assert batch.images.shape == (2, 1, 96, 128) and sorted(batch.indices.tolist()) == [0, 2]
    assert batch.bad == ((1, "annotated for 51x50, the image is 50x50"),)
    assert isinstance(batch.targets, PerImage) and all(t.masks.shape == (len(t.boxes), 96, 128) for t in batch.targets)
    (scored,) = eval_batches(examples, DensePreprocess(PLAIN), batch_size=3, workers=0)
    assert isinstance(scored.targets, PerImage) and [t.placement.size for t in scored.targets] == [(60, 80), (90, 40)]
