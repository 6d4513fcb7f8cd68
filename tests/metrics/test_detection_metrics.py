"""Scores of found objects: equal to pycocotools' on everything that occurs, sure of themselves only as far as the images allow."""

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
import torch

from convmix.data import rle
from convmix.data.targets import Objects
from convmix.metrics import detection as dm
from convmix.metrics.classification import headline
from convmix.metrics.matching import match
from convmix.results import Boxes, Masks
from tests.effort import lines_run

LABELS = ("cell", "platelet", "absent", "rare")
TWELVE = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def blobs(rng: np.random.Generator, boxes: np.ndarray, size: tuple[int, int]) -> tuple[bytes, ...]:
    """Ellipses in the boxes, with some noise."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    masks = []
    for left, top, right, bottom in boxes:
        middle = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2
        masks.append((middle < 0.25) & (rng.random(size) < 0.97))
    return rle.encode(np.stack(masks)) if masks else ()


def random_boxes(rng: np.random.Generator, n: int, size: tuple[int, int]) -> np.ndarray:
    side = np.exp(rng.uniform(np.log(6), np.log(150), (n, 2)))
    corner = rng.uniform(0, 1, (n, 2)) * (np.array(size[::-1]) - side).clip(1)
    return np.concatenate([corner, np.minimum(corner + side, size[::-1])], 1).astype(np.float32)


def scene(seed: int, n: int = 12, *, masks: bool = True, objects: int = 9, invented: int = 30) -> tuple[list[Boxes], list[Objects]]:
    """Images with moved, doubled, renamed and invented predictions; some images empty, some with nothing found; many equal scores."""
    rng = np.random.default_rng(seed)
    found: list[Boxes] = []
    truths = []
    for i in range(n):
        size = (int(rng.integers(160, 260)), int(rng.integers(160, 260)))
        count = 0 if i % 5 == 3 else int(rng.integers(1, objects))
        boxes = random_boxes(rng, count, size)
        labels = rng.choice([0, 1, 3], count, p=[0.6, 0.3, 0.1])
        crowd = rng.random(count) < 0.15
        truths.append(Objects(size, boxes, labels, crowd, blobs(rng, boxes, size) if masks else None))
        repeats = rng.integers(0, 4, count)
        moved = np.repeat(boxes, repeats, 0) + rng.normal(0, 3, (repeats.sum(), 4)).astype(np.float32)
        guesses = np.concatenate([moved, random_boxes(rng, int(rng.integers(0, invented)), size)])
        guesses = np.concatenate([np.minimum(guesses[:, :2], guesses[:, 2:] - 1), guesses[:, 2:]], 1)
        named = np.concatenate([np.repeat(labels, repeats), rng.integers(0, 4, len(guesses) - repeats.sum())])
        named = np.where(rng.random(len(named)) < 0.1, rng.integers(0, 4, len(named)), named)
        if i % 4 == 1:
            guesses, named = guesses[:0], named[:0]
        scores = np.sort(rng.integers(0, 40, len(guesses)) / 40)[::-1].astype(np.float32)
        order = rng.permutation(len(guesses))
        fields: dict[str, Any] = {
            "boxes": torch.tensor(guesses[order].astype(np.float32)), "scores": torch.tensor(scores.copy()),
            "columns": torch.tensor(named[order].astype(np.int64)), "labels": LABELS, "size": size,
        }  # fmt: skip
        found.append(Masks(**fields, masks=blobs(rng, guesses[order], size)) if masks else Boxes(**fields))
    return found, truths


def as_coco(found: list[Boxes], truths: list[Objects], kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth as a COCO data set, and results without what is not scored, as detectron2 hands them over."""
    annotations: list[dict[str, Any]] = []
    results = []

    def xywh(box: np.ndarray) -> list[float]:
        left, top, right, bottom = (float(v) for v in box)
        return [left, top, right - left, bottom - top]

    for i, (f, t) in enumerate(zip(found, truths, strict=True), start=1):
        size = [int(s) for s in t.size]
        areas = [w * h for *_, w, h in map(xywh, t.boxes)] if t.masks is None else rle.areas(t.masks, t.size).tolist()
        for j in range(len(t)):
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": int(t.labels[j]) + 1, "iscrowd": int(t.crowd[j])}
            entry |= {"bbox": xywh(t.boxes[j]), "area": areas[j]}
            annotations.append(entry | ({} if t.masks is None else {"segmentation": {"size": size, "counts": t.masks[j]}}))
        for j in range(len(f)):
            result = {"image_id": i, "category_id": int(f.columns[j]) + 1, "score": float(f.scores[j])}
            what = {"segmentation": {"size": size, "counts": f.masks[j]}} if kind == "segm" else {"bbox": xywh(f.boxes[j].numpy())}  # type: ignore[attr-defined]
            results.append(result | what)
    images = [{"id": i, "height": int(t.size[0]), "width": int(t.size[1])} for i, t in enumerate(truths, start=1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": c + 1, "name": n} for c, n in enumerate(LABELS)]}, results


def reference(found: list[Boxes], truths: list[Objects], kind: str) -> Any:
    """pycocotools' evaluation, accumulated and summarised."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, results = as_coco(found, truths, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_all_twelve_numbers_equal_pycocotools(seed: int, kind: str) -> None:
    found, truths = scene(seed)
    assert any(t.crowd.any() for t in truths) and any(len(t) == 0 < len(f) for f, t in zip(found, truths, strict=True))
    expected = reference(found, truths, kind)
    prefix = "mask_" if kind == "segm" else ""
    ours = dm.detection_metrics(found, truths, LABELS, masks=kind == "segm", intervals=False)
    for name, value in zip(TWELVE, expected.stats, strict=True):
        if value == -1:
            assert ours[prefix + name] is None
        else:
            assert ours[prefix + name] == pytest.approx(value, abs=1e-6), name
    for c, label in enumerate(LABELS):
        precision = expected.eval["precision"][:, :, c, 0, 2]  # t,101
        if label == "absent":
            assert ours["per_class"][label][prefix + "ap"] is None and (precision == -1).all()
        else:
            assert ours["per_class"][label][prefix + "ap"] == pytest.approx(precision.mean(), abs=1e-6)
            assert ours["per_class"][label][prefix + "ap50"] == pytest.approx(precision[0].mean(), abs=1e-6)


def test_every_precision_and_recall_equals_pycocotools() -> None:
    found, truths = scene(7)
    expected = reference(found, truths, "bbox").eval
    curves = dm.precision_recall(found, truths, LABELS)
    assert set(curves) == {"cell", "platelet", "rare"}
    once = np.ones((1, len(truths)), np.int64)
    for c, m in enumerate(match(found, truths, len(LABELS))):
        recall = dm.average_recall(m, once, 100)[0].T  # t,a
        np.testing.assert_allclose(np.nan_to_num(recall, nan=-1), expected["recall"][:, c, :, 2], atol=1e-9)
        average = dm.average_precision(m, once)[0].T
        np.testing.assert_allclose(np.nan_to_num(average, nan=-1), expected["precision"][:, :, c, :, 2].mean(1), atol=1e-9)
        if LABELS[c] in curves:
            assert curves[LABELS[c]]["recall"] == np.linspace(0, 1, 101).tolist()
            np.testing.assert_allclose(curves[LABELS[c]]["precision"], expected["precision"][0, :, c, 0, 2], atol=1e-9)


def test_of_equal_overlaps_the_same_object_is_taken_as_by_pycocotools() -> None:
    """A box midway between two objects: which of them it takes decides whether the next box, which lies on the left one, is right."""
    size, columns = (100, 100), torch.zeros(2, dtype=torch.int64)
    ours = []
    for left_first in (True, False):
        both = np.array([(0, 0, 20, 20), (8, 0, 28, 20)], np.float32)[:: 1 if left_first else -1]
        truth = Objects(size, both.copy(), np.zeros(2, np.int64), np.zeros(2, bool))
        found = Boxes(torch.tensor([(4.0, 0, 24, 20), (0, 0, 20, 20)]), torch.tensor([0.9, 0.8]), columns, LABELS, size)
        expected = reference([found], [truth], "bbox").stats
        ours.append(dm.detection_metrics([found], [truth], LABELS, intervals=False))
        assert [ours[-1][name] for name in TWELVE[:3]] == pytest.approx(expected[:3].tolist(), abs=1e-6)
    assert (ours[0]["ap50"], ours[1]["ap50"]) == pytest.approx((1.0, 51 / 101))


def test_more_than_a_hundred_of_a_class_are_cut_as_coco_cuts_them() -> None:
    found, truths = scene(8, masks=False, objects=40, invented=700)
    assert max(int(torch.bincount(f.columns, minlength=4).max()) for f in found if len(f)) > 100
    expected = reference(found, truths, "bbox").stats
    ours = dm.detection_metrics(found, truths, LABELS, intervals=False)
    assert [ours[name] for name in TWELVE] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_resample_scores_as_its_images_repeated() -> None:
    found, truths = scene(9, masks=False)
    found = [Boxes(f.boxes, f.scores - 0.01 * torch.rand(len(f)).sort().values, f.columns, f.labels, f.size) for f in found]  # no ties
    times = np.random.default_rng(1).integers(0, 4, len(truths))
    repeated = [i for i, t in enumerate(times) for _ in range(t)]
    again = dm.detection_metrics([found[i] for i in repeated], [truths[i] for i in repeated], LABELS, intervals=False)
    weighted = dm.scores(match(found, truths, len(LABELS)), np.stack([times, np.ones_like(times)]))
    for name in TWELVE:
        assert weighted[name][0] == pytest.approx(again[name], abs=1e-12), name


def test_intervals_hold_the_score_and_narrow_with_more_images() -> None:
    few, many = (dm.detection_metrics(*scene(3, n, masks=False), LABELS) for n in (12, 150))
    for metrics, names in ((few, ("ap", "ap50", "ar10", "ar100")), (many, TWELVE)):  # of 12 images, too few have large objects
        for name in names:
            low, high = metrics[f"{name}_interval"]
            assert 0 <= low < metrics[name] < high <= 1, name
    widths = [m["ap50_interval"][1] - m["ap50_interval"][0] for m in (few, many)]
    assert widths[1] < 0.6 * widths[0]
    assert many == dm.detection_metrics(*scene(3, 150, masks=False), LABELS)


@pytest.mark.slow
def test_intervals_cover_the_score_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of samples of 72 images, about 94 % have an interval around the AP of the 1,000 that they come from; the plain percentiles: 70 %."""
    monkeypatch.setattr(dm, "RESAMPLES", 300)  # the ends wobble a little more; held are 56 to 59, 47 with the plain percentiles
    found, truths = scene(4, 1000, masks=False, objects=5, invented=6)
    whole = dm.detection_metrics(found, truths, LABELS, intervals=False)
    rng = np.random.default_rng(0)
    inside = {"ap": 0, "ap50": 0, "ar100": 0}
    for _ in range(60):
        drawn = rng.choice(1000, 72, replace=False)
        metrics = dm.detection_metrics([found[i] for i in drawn], [truths[i] for i in drawn], LABELS)
        for name in inside:
            low, high = metrics[f"{name}_interval"]
            inside[name] += low <= whole[name] <= high
    assert min(inside.values()) >= 51  # of 60: fewer has a probability under 2 % where 93 % are held


def test_no_interval_where_no_resample_differs() -> None:
    found, truths = scene(0, 1, masks=False)
    alone = dm.detection_metrics(found, truths, LABELS)
    assert alone["ap"] > 0 and alone["ap_interval"] is None


def test_the_threshold_is_the_one_with_the_highest_f1() -> None:
    found, truths = scene(6, masks=False)
    metrics = dm.detection_metrics(found, truths, LABELS, intervals=False)["per_class"]
    for c, m in enumerate(match(found, truths, len(LABELS))):
        said = metrics[LABELS[c]]
        if not m.objects[0].sum():
            assert [said[k] for k in ("precision", "recall", "f1", "threshold")] == [None] * 4
            continue
        if not m.hit[0, 0].any():
            assert (said["precision"], said["recall"], said["f1"], said["threshold"]) == (0, 0, 0, None)
            continue
        best = (-1.0, 0.0, 0.0, 0.0)
        for threshold in np.unique(m.score):
            kept = m.counted[0, 0] & (m.score >= threshold)
            right = (m.hit[0, 0] & kept).sum()
            precision, recall = right / max(kept.sum(), 1), right / m.objects[0].sum()
            best = max(best, (2 * precision * recall / max(precision + recall, 1e-9), precision, recall, threshold))
        assert (said["f1"], said["precision"], said["recall"], said["threshold"]) == pytest.approx(best)


def test_a_threshold_parts_no_equal_scores() -> None:
    size = (100, 100)
    corners = np.array([[0, 0, 20, 20], [50, 50, 70, 70]], np.float32)
    truth = Objects(size, corners, np.zeros(2, np.int64), np.zeros(2, bool))
    guesses = torch.tensor(np.concatenate([corners, [[80, 0, 99, 20]]]).astype(np.float32))
    found = Boxes(guesses, torch.tensor([0.75, 0.5, 0.5]), torch.zeros(3, dtype=torch.int64), LABELS, size)
    said = dm.detection_metrics([found], [truth], LABELS)["per_class"]["cell"]
    assert (said["precision"], said["recall"], said["f1"], said["threshold"]) == pytest.approx((2 / 3, 1, 0.8, 0.5))


def test_nothing_found_and_nothing_to_find() -> None:
    found, truths = scene(0, masks=False)
    nothing = [f.above(2.0) for f in found]
    metrics = dm.detection_metrics(nothing, truths, LABELS)
    assert metrics["ap"] == metrics["ar100"] == 0
    assert metrics["per_class"]["cell"] | {"objects": 0} == {
        "objects": 0, "ap": 0, "ap_interval": None, "ap50": 0, "ap50_interval": None,
        "precision": None, "recall": 0, "f1": 0, "threshold": None,
    }  # fmt: skip
    empty = [Objects(t.size, t.boxes[:0], t.labels[:0], t.crowd[:0]) for t in truths]
    metrics = dm.detection_metrics(found, empty, LABELS)
    assert metrics["objects"] == 0 and all(metrics[name] is None and metrics[f"{name}_interval"] is None for name in TWELVE)
    with pytest.raises(ValueError, match="no images"):
        dm.detection_metrics([], [], LABELS)


def test_scores_are_plain_json_and_the_headline_leaves_out_the_classes(capfd: pytest.CaptureFixture[str]) -> None:
    metrics = dm.detection_metrics(*scene(2, 4), LABELS, masks=True)
    json.dumps([metrics, dm.precision_recall(*scene(2, 4), LABELS, masks=True)], allow_nan=False)
    assert {"n", "objects", *TWELVE, *(f"mask_{name}_interval" for name in TWELVE)} < set(headline(metrics))
    assert "per_class" not in headline(metrics)
    assert tuple(capfd.readouterr()) == ("", "")


def validation_set(n: int) -> tuple[list[Boxes], list[Objects]]:
    """n images with 14 objects and 100 found ones, as those of BCCD."""
    rng = np.random.default_rng(0)
    found, truths = [], []
    for _ in range(n):
        boxes = random_boxes(rng, 14, (480, 640))
        truths.append(Objects((480, 640), boxes, rng.integers(0, 3, 14), np.zeros(14, bool)))
        guesses = np.concatenate([boxes + rng.normal(0, 3, boxes.shape).astype(np.float32), random_boxes(rng, 86, (480, 640))])
        columns = torch.tensor(np.concatenate([truths[-1].labels, rng.integers(0, 3, 86)]))
        found.append(Boxes(torch.tensor(guesses), torch.tensor(rng.random(100, dtype=np.float32)), columns, LABELS[:3], (480, 640)))
    return found, truths


def test_the_effort_grows_with_the_images_and_hardly_with_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation set is scored after every epoch: no loop over the 1,000 resamples, which share the matches, nor over pairs of images."""
    matched = []
    monkeypatch.setattr(dm, "match", lambda *arguments, **settings: matched.append(1) or match(*arguments, **settings))
    few, many = (lines_run(lambda n=n: dm.detection_metrics(*validation_set(n), LABELS[:3], intervals=False)) for n in (20, 40))  # type: ignore[misc]
    assert many < 2.2 * few
    matched.clear()
    resampled = lines_run(lambda: dm.detection_metrics(*validation_set(20), LABELS[:3]))
    assert len(matched) == 1 and resampled < 3 * few
