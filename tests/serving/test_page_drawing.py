"""Boxes, masks and class maps are drawn where the objects are, and texts stay texts."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from convmix.data import rle
from convmix.inference.prediction_files import DetectionFile
from convmix.inference.result_files import classes_png
from convmix.plots.overlay import palette
from convmix.results import Boxes, Masks, SemanticMap
from tests.dense_scenes import CLASSES, scene
from tests.serving.live import Live
from tests.serving.tab import Tab, as_json, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.slow  # a server and a browser

HOSTILE = '<img src=x onerror="window.harmed=1">\'&amp;'
SIZE = (48, 96)  # height, width of the scenes here


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels, _ = scene(1, side=96, objects=2)
    file = tmp_path / "scene.png"
    Image.fromarray(pixels[: SIZE[0]]).save(file)
    return file


def found(result: Boxes | SemanticMap) -> dict[str, Any]:
    """The row of the server."""
    return DetectionFile("scene.png", "", result).to_dict() | {"width": SIZE[1], "height": SIZE[0]}


def masks(labels: tuple[str, ...] = CLASSES) -> tuple[Masks, np.ndarray]:
    """Two objects that overlap, a square and a ring with a hole, and their 2,H,W masks; scores 0.875 and 0.625."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(rows - 24, columns - 60)
    both = np.stack([(rows >= 10) & (rows < 31) & (columns >= 20) & (columns < 51), (distance < 20) & (distance > 8)])
    return Masks(
        boxes=torch.tensor([[20.0, 10.0, 51.0, 31.0], [40.5, 4.25, 80.0, 44.0]]), scores=torch.tensor([0.875, 0.625]),
        columns=torch.tensor([0, 1]), labels=labels, size=SIZE, masks=rle.encode(both),
    ), both  # fmt: skip


def served(tab: Tab, row: dict[str, Any], model: dict[str, Any], labels: tuple[str, ...]) -> None:
    colours = [list(c) for c in palette(len(labels))]
    tab.answer("/v1/model", as_json(model | {"labels": list(labels), "palette": colours, "threshold": None}))
    tab.answer("/v1/predict", as_json({"predictions": [row]}))


def drawn(tab: Tab) -> np.ndarray:
    """H,W,4 of the canvas over the image."""
    data = tab.page.evaluate("regions.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))))


def test_boxes_lie_over_their_objects(browser: "Browser", server: Live, image: Path) -> None:
    result, _ = masks()
    row = found(Boxes(result.boxes, result.scores, result.columns, CLASSES, SIZE))
    with opened(browser, server.address, before=lambda tab: served(tab, row, server.get("/v1/model").json, CLASSES)) as tab:
        tab.drop(image)
        tab.done()
        picture = tab.page.locator("#image").bounding_box()
        assert picture is not None
        assert picture["width"] / picture["height"] == pytest.approx(2, rel=0.01)
        x, y, scale = picture["x"], picture["y"], picture["width"] / SIZE[1]
        for i, (left, top, right, bottom) in enumerate(result.boxes.tolist()):
            place = tab.page.locator(f"#boxes rect:not(.edge)[data-object='{i}']").evaluate(
                "r => { const b = r.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }"
            )
            expected = [x + left * scale, y + top * scale, x + right * scale, y + bottom * scale]
            assert place == pytest.approx(expected, abs=4)  # half a line's width and rounding
        assert tab.page.locator(".tag:visible").all_inner_texts() == ["square 87.5 %", "disc 62.5 %"]
        assert tab.bars == [("square", "87.5 %"), ("disc", "62.5 %")]
        assert tab.page.is_hidden("#regions")
        assert tab.short_answers == ["1 square, 1 disc"]
        assert tab.page.is_hidden("#why")  # labels of whole images alone can be explained


def test_masks_cover_the_pixels_that_their_run_lengths_say(browser: "Browser", server: Live, image: Path) -> None:
    result, both = masks()
    row = found(result)
    colours = np.array(palette(2), np.uint8)
    with opened(browser, server.address, before=lambda tab: served(tab, row, server.get("/v1/model").json, CLASSES)) as tab:
        tab.drop(image)
        tab.done()
        canvas = drawn(tab)
        assert canvas.shape == (*SIZE, 4)
        assert (canvas[..., 3] == 255 * both.any(0)).all()
        assert (canvas[both[0], :3] == colours[0]).all()  # the surer one is in front
        assert (canvas[both[1] & ~both[0], :3] == colours[1]).all()
        assert tab.page.locator("#regions").bounding_box() == tab.page.locator("#image").bounding_box()
        tab.slide("#opacity", 0.25)
        assert tab.page.locator("#regions").evaluate("c => getComputedStyle(c).opacity") == "0.25"


def test_the_threshold_hides_objects_at_once_and_asks_the_server_for_more(browser: "Browser", server: Live, image: Path) -> None:
    result, both = masks()
    fields: list[str] = []

    def answered(route: "Route") -> None:
        body = route.request.post_data_buffer or b""
        wanted = body.partition(b'name="threshold"\r\n\r\n')[2].partition(b"\r\n")[0].decode()
        fields.append(wanted)
        as_json({"predictions": [found(result.above(float(wanted or 0.8)))]})(route)

    model = server.get("/v1/model").json | {"labels": list(CLASSES), "threshold": 0.8}
    with opened(browser, server.address, before=lambda tab: tab.answer("/v1/model", as_json(model))) as tab:
        tab.answer("/v1/predict", answered)
        tab.drop(image)
        tab.done()
        assert (tab.verdict, fields) == ("1 object", [""])
        tab.slide("#threshold", 0.95)
        assert (tab.verdict, fields) == ("Nothing found", [""])
        assert not drawn(tab).any()
        tab.slide("#threshold", 0.86)
        assert (tab.verdict, fields) == ("1 object", [""])
        tab.slide("#threshold", 0.5)
        tab.page.wait_for_selector(".verdict:has-text('2 objects')")
        assert fields == ["", "0.5"]
        assert (drawn(tab)[..., 3] == 255 * both.any(0)).all()
        tab.slide("#threshold", 0.7)
        assert (tab.verdict, fields) == ("1 object", ["", "0.5"])


@pytest.mark.parametrize("count", [2, 4, 11, 40, 300])  # PNGs of 1, 2, 4, 8 and 16 bits
def test_a_class_map_has_the_colour_of_every_pixels_class(browser: "Browser", server: Live, image: Path, count: int) -> None:
    classes = np.random.default_rng(count).integers(0, count, SIZE)
    classes[:, :40] = 1
    labels = tuple(f"class {i}" for i in range(count))
    result = SemanticMap(torch.from_numpy(classes).to(torch.int16 if count > 255 else torch.uint8), torch.full(SIZE, 0.75), labels)
    row = found(result) | {"map": base64.b64encode(classes_png(result, palette(count))).decode()}
    with opened(browser, server.address, before=lambda tab: served(tab, row, server.get("/v1/model").json, labels)) as tab:
        tab.drop(image)
        tab.done()
        tab.page.wait_for_selector("#regions", state="visible")
        assert (drawn(tab)[..., :3] == np.array(palette(count), np.uint8)[classes]).all()
        assert tab.bars[0] == ("class 1", f"{int(1000 * (classes == 1).mean()) / 10:.1f} %")
        dot = tab.page.locator(".dot").first.evaluate("d => getComputedStyle(d).backgroundColor")
        assert dot == "rgb({}, {}, {})".format(*palette(count)[1])
        assert "mean certainty 75.0 %" in tab.page.inner_text("#answer")


@pytest.mark.parametrize("kind", ["label", "objects", "map"])
def test_a_hostile_label_stays_text(browser: "Browser", server: Live, image: Path, tmp_path: Path, kind: str) -> None:
    labels = (HOSTILE, "disc")
    result, _ = masks(labels)
    plain = SemanticMap(torch.zeros(SIZE, dtype=torch.uint8), torch.ones(SIZE), labels)
    row = {
        "label": {"label": HOSTILE, "probability": 0.9, "sure": False, "alternatives": [{"label": HOSTILE, "probability": 0.1}]},
        "objects": found(result),
        "map": found(plain) | {"map": base64.b64encode(classes_png(plain, palette(2))).decode()},
    }[kind]
    named = image.rename(tmp_path / "<img src=x onerror=window.harmed=1>.png")
    card = f"# {HOSTILE}\n\n{HOSTILE}\n\n- {HOSTILE}\n\n| {HOSTILE} |\n| --- |\n| {HOSTILE} |\n\n```\n{HOSTILE}\n```\n"
    model = server.get("/v1/model").json | {"card": card, "name": HOSTILE}
    with opened(browser, server.address, before=lambda tab: served(tab, row, model, labels)) as tab:
        tab.drop(named)
        tab.done()
        assert (HOSTILE, {"label": "90.0 %", "objects": "87.5 %", "map": "100.0 %"}[kind]) in tab.bars
        assert HOSTILE in tab.short_answers[0] or HOSTILE in tab.page.inner_text("#strip")
        tab.page.click("#open-card")
        assert tab.page.inner_text("#card-text").count(HOSTILE) >= 6
        tab.page.wait_for_timeout(200)
        assert tab.page.evaluate("[window.harmed, document.querySelectorAll('img').length]") == [None, 3]  # the page's own
        assert [url for url in tab.requests if url.endswith("/x")] == []


def test_a_row_with_nothing_to_show_says_so(browser: "Browser", server: Live, image: Path) -> None:
    with opened(browser, server.address) as tab:
        tab.answer("/v1/predict", as_json({"predictions": [{"name": "a", "width": 96, "height": 48, "error": None}]}))
        tab.drop(image)
        tab.done()
        assert "nothing that this page can show" in tab.page.inner_text("#answer")
