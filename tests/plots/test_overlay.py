"""Drawn results: what is found is seen where it is, labels can be read, every size of image and every number of classes can be drawn."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from convmix.data import rle
from convmix.data.targets import IGNORE, Objects
from convmix.plots import overlay
from convmix.results import Boxes, Classes, Masks, SemanticMap

LABELS = ("cat", "dog", "a name that is far too long for any label")


def boxes(found: list[tuple[int, int, int, int]], scores: list[float], size: tuple[int, int], columns: list[int] | None = None) -> Boxes:
    columns = columns or [i % len(LABELS) for i in range(len(found))]
    corners = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
    return Boxes(corners, torch.tensor(scores), torch.tensor(columns, dtype=torch.int64), LABELS, size)


def with_masks(of: Boxes) -> Masks:
    """Discs in the boxes."""
    y, x = np.mgrid[: of.size[0], : of.size[1]] + 0.5
    discs = [
        ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2 < 0.25
        for left, top, right, bottom in of.boxes.numpy()
    ]
    return Masks(of.boxes, of.scores, of.columns, of.labels, of.size, rle.encode(np.stack(discs)))


def grey(size: tuple[int, int]) -> np.ndarray:
    return np.full((*size, 3), 120, np.uint8)


def places(drawn: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (drawn == colour).all(-1)


def test_a_box_stands_where_it_was_found_and_the_legend_beneath() -> None:
    found = boxes([(100, 120, 300, 320)], [0.9], (400, 500))
    drawn = overlay.draw(grey((400, 500)), found)
    orange = overlay.palette(3)[0]
    rows, columns = np.nonzero(places(drawn[120:400], orange))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (0, 200, 100, 300)
    assert (drawn[200:300, 150:250] == 120).all()  # nothing inside
    assert drawn.shape[0] > 400 and drawn.shape[1] == 500
    assert places(drawn[400:], orange).any() and not places(drawn[400:], overlay.palette(3)[1]).any()


def test_what_is_below_the_threshold_is_not_drawn_and_truth_is_dashed() -> None:
    found = boxes([(100, 120, 300, 320), (20, 20, 60, 60)], [0.9, 0.2], (400, 500))
    image = grey((400, 500))
    sure = overlay.draw_boxes(image, found, threshold=0.5)
    assert (sure == overlay.draw(image, found.take(torch.tensor([0])))).all()
    truth = Objects((400, 500), np.array([[320, 100, 480, 380]], np.float32), np.array([1]), np.array([False]))
    both = overlay.draw_boxes(image, found, threshold=0.5, truth=truth)
    for side in (places(both, overlay.palette(3)[1])[100:380, 320], places(both, overlay.palette(3)[1])[100, 320:480]):
        assert 0.4 < side.mean() < 0.7
        assert np.abs(np.diff(side.astype(int))).sum() > 10
    assert (both[:400, :310] == sure[:400, :310]).all()


def test_scores_are_said_but_not_those_of_a_truth() -> None:
    truth = Objects((400, 500), np.array([[100, 120, 300, 320]], np.float32), np.array([0]), np.array([False]))
    as_result = overlay.truth_of(truth, LABELS)
    assert type(as_result) is Boxes and as_result.scores.tolist() == [1.0]
    found = boxes([(100, 120, 300, 320)], [0.9], (400, 500))
    widths = [places(overlay.draw(grey((400, 500)), r)[105:118], overlay.palette(3)[0]).any(0).sum() for r in (as_result, found)]
    assert 20 < widths[0] < widths[1]
    masks = with_masks(found)
    truth = Objects((400, 500), truth.boxes, truth.labels, truth.crowd, masks.masks)
    assert isinstance(overlay.truth_of(truth, LABELS), Masks)


def test_labels_stay_inside_and_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever forty boxes are, each label lies in the picture and covers no other."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 380, (40, 2))
    found = boxes(
        [(x, y, min(x + 90, 400), min(y + 70, 400)) for x, y in corner.tolist()], torch.linspace(0.99, 0.2, 40).tolist(), (400, 400)
    )
    placed = []
    spots = overlay._spots

    def noted(*args: object) -> object:
        for spot in spots(*args):  # type: ignore[arg-type]
            placed.append(spot)
            yield spot

    monkeypatch.setattr(overlay, "_spots", noted)
    overlay.draw(grey((400, 400)), found)
    assert placed and all(min(left, top) >= 0 and right <= 400 and bottom <= 400 for left, top, right, bottom in placed)
    kept = []
    real = overlay.ImageDraw.ImageDraw.rectangle

    def drawn(self: object, xy: tuple[float, ...], fill: object = None, outline: object = None, width: int = 1) -> None:
        if fill is not None and outline is None:
            kept.append(xy)
        real(self, xy, fill, outline, width)  # type: ignore[arg-type]

    monkeypatch.setattr(overlay.ImageDraw.ImageDraw, "rectangle", drawn)
    overlay.draw(grey((400, 400)), found)
    assert len(kept) > 20
    for a, b in itertools.combinations(kept, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (32, 32), (200, 3000), (900, 40), (480, 640)])
@pytest.mark.parametrize("n", [0, 1, 40])
def test_every_size_can_be_drawn(size: tuple[int, int], n: int) -> None:
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(0, 1, (n, 2, 2)), 1) * size[::-1]
    found = boxes([tuple(c) for c in corners.reshape(n, 4)], torch.linspace(1, 0, n).tolist(), size)
    classes = (np.arange(size[0] * size[1]).reshape(size) % 4).astype(np.uint8)
    results = [
        found,
        SemanticMap(torch.tensor(classes % 3), torch.ones(size), LABELS),
        overlay.truth_map(np.where(classes == 3, 255, classes).astype(np.uint8), LABELS),
    ]
    if n:
        results.append(with_masks(Boxes(found.boxes + torch.tensor([0, 0, 1, 1]), found.scores, found.columns, LABELS, size)))
    for result in results:
        drawn = overlay.draw(grey(size), result)
        factor = drawn.shape[1] // size[1]
        assert drawn.dtype == np.uint8 and drawn.shape[1] == factor * size[1] and drawn.shape[0] >= factor * size[0]
        assert factor == max(min(-(-360 // min(size)), 2400 // max(size)), 1)


def test_small_images_keep_their_pixels_sharp() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    drawn = overlay.draw(image, boxes([], [], (32, 40)))
    assert drawn.shape == (384, 480, 3)
    assert (drawn[6::12, 6::12] == image).all() and (drawn == image.repeat(12, 0).repeat(12, 1)).all()


def test_masks_are_filled_where_they_are_and_outlined() -> None:
    found = with_masks(boxes([(100, 100, 300, 300)], [0.9], (400, 500)))
    drawn = overlay.draw(grey((400, 500)), found)
    mask = rle.decode(found.masks, found.size)[0] > 0
    orange = np.array(overlay.palette(3)[0])
    np.testing.assert_allclose(drawn[200, 200], 0.6 * 120 + 0.4 * orange, atol=2)
    changed = (drawn[:400] != 120).any(-1)
    assert (changed[102:] == mask[102:]).all()  # the label ends above
    assert (drawn[200, 100:102] == orange).all()  # the outline


def test_neighbours_of_an_only_class_differ_in_colour_and_classes_do_not_change_theirs() -> None:
    two = with_masks(boxes([(50, 100, 200, 300), (200, 100, 350, 300)], [0.9, 0.8], (400, 400), [0, 0]))
    one_class = Masks(two.boxes, two.scores, two.columns, ("nucleus",), two.size, two.masks)
    image = grey((400, 400))
    assert (overlay.draw(image, two)[200, 120] == overlay.draw(image, two)[200, 270]).all()
    assert (overlay.draw(image, one_class)[200, 120] != overlay.draw(image, one_class)[200, 270]).any()


def test_a_map_is_tinted_by_class_and_what_is_not_scored_is_grey() -> None:
    classes = np.zeros((400, 400), np.uint8)
    classes[:, 200:] = 2
    classes[300:] = IGNORE
    drawn = overlay.draw_map(grey((400, 400)), classes, LABELS, alpha=0.5)
    for column, c in ((50, 0), (350, 2)):
        np.testing.assert_allclose(drawn[100, column], 60 + np.array(overlay.palette(3)[c]) / 2, atol=1)
    below = drawn[300:400].reshape(-1, 3)
    assert (below == below[:, :1]).all() and len(np.unique(below)) == 2  # grey, striped
    legend = drawn[400:]
    assert [places(legend, overlay.palette(3)[c]).any() for c in range(3)] == [True, False, True]
    bare = overlay.draw_map(grey((400, 400)), classes, LABELS, alpha=0.5, legend=False)
    assert (bare == drawn[:400]).all()


def test_colours_are_apart_and_stay_when_classes_are_added() -> None:
    all_of_them = overlay.palette(254)
    assert len(set(all_of_them)) == 254
    assert [tuple(c) for c in overlay.OKABE_ITO] == all_of_them[:7]
    assert overlay.palette(3) == all_of_them[:3] and overlay.palette(20) == all_of_them[:20]
    seen = overlay._perceived(np.array(all_of_them[:20], float))
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(20, 1)]
    assert apart.min() > 25  # a difference of 2.3 is just noticed
    np.testing.assert_allclose(overlay._perceived(np.array([[255.0, 255, 255], [255, 0, 0]])), [[100, 0, 0], [53.2, 80.1, 67.2]], atol=0.2)


def test_pages_of_pictures_are_900_pixels_wide_and_hold_all_of_them() -> None:
    red, blue = np.zeros((300, 200, 3), np.uint8), np.zeros((20, 90, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    png = overlay.grid_picture(
        [("one", [red, blue]), ("two", [blue, blue])], ["truth", "said"], title="x", legend=overlay.legend_of(LABELS, [2, 255])
    )
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.format == "PNG"
        page = np.asarray(opened)
    assert page.shape[1] == 900
    assert places(page[:, :450], (255, 0, 0)).sum() > 100_000 and not places(page[:, 450:], (255, 0, 0)).any()
    assert places(page[:, 450:], (0, 0, 255)).sum() > 2 * 35_000
    assert places(page[-30:], overlay.palette(3)[2]).sum() > 100 and places(page[-30:], overlay.UNSCORED).sum() > 100
    assert overlay.legend_of(LABELS, [1, 0]) == [(overlay.palette(3)[0], "cat"), (overlay.palette(3)[1], "dog")]
    with pytest.raises(ValueError, match="under 2 titles"):
        overlay.grid_picture([("one", [red])], ["truth", "said"], title="x")


def test_what_does_not_fit_is_refused() -> None:
    found = boxes([(1, 1, 3, 3)], [0.5], (10, 10))
    for image in (grey((10, 11)), grey((10, 10)).astype(float), np.zeros((10, 10), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8 10,10,3"):
            overlay.draw(image, found)
    with pytest.raises(TypeError, match="Classes"):
        overlay.draw(grey((10, 10)), Classes(torch.ones(1, 1), ("a",)))  # type: ignore[arg-type]
