"""The page as people use it: images in, answers out, and what it says when something is wrong."""

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import convmix
from convmix.inference.prediction import Prediction
from tests.serving.live import Live
from tests.serving.pictures import picture
from tests.serving.tab import Tab, as_json, error, opened
from tests.tiny_run import LABELS, write_image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.slow  # a server and a browser


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dropped")
    for i, colour in enumerate(("white", "black", "red", "lime", "blue", "yellow")):  # the tiny run has a label for each, not one for all
        Image.new("RGB", (30, 20), colour).save(folder / f"picture {i}.png")
    return sorted(folder.iterdir())


def shown(probability: float) -> str:
    """As the page and the command line say it: rounded down."""
    return f"{int(1000 * probability) / 10:.1f} %"


def predicted(run: Path, files: list[Path]) -> list[Prediction]:
    rows = convmix.load(run).predict(files, top=len(LABELS))
    assert all(isinstance(row, Prediction) for row in rows)
    return rows  # type: ignore[return-value]


def test_a_dropped_image_has_the_label_and_the_bars_that_predict_gives(
    browser: "Browser", server: Live, run: Path, images: list[Path]
) -> None:
    rows = predicted(run, images[:3])
    assert len({row.label for row in rows}) > 1  # else any label would do
    with opened(browser, server.address) as tab:
        tab.drop(*images[:3])
        tab.done()
        assert tab.short_answers == [f"{row.label} {shown(row.probability or 0)}" for row in rows]
        for i, row in enumerate(rows):
            tab.page.locator(".option").nth(i).click()
            assert tab.verdict == row.label
            pairs = [(row.label, row.probability), *row.alternatives]
            assert tab.bars == [(label, shown(p or 0)) for label, p in pairs]
            lengths = tab.page.locator(".bars .fill").evaluate_all("fills => fills.map(f => f.offsetWidth / f.parentElement.offsetWidth)")
            assert lengths == pytest.approx([p for _, p in pairs], abs=0.02)
            tab.until(lambda: tab.page.evaluate("[image.naturalWidth, image.naturalHeight]") == [30, 20])
        assert len(tab.asked) == 3


def test_an_image_is_pasted(browser: "Browser", server: Live, run: Path, images: list[Path]) -> None:
    [row] = predicted(run, images[3:4])
    with opened(browser, server.address) as tab:
        tab.paste(images[3].read_bytes())
        tab.done()
        assert tab.verdict == row.label
        assert re.search(rf": {row.label} \d", tab.page.inner_text("#said"))  # for those who hear the page


def test_the_camera_takes_a_picture_and_is_let_go(browser: "Browser", server: Live) -> None:
    with opened(browser, server.address) as tab:
        tab.page.click("#open-camera")
        tab.page.click("#shoot")
        tab.done()
        tab.page.click("#shrink")  # this server takes smaller pictures only
        tab.done()
        assert tab.verdict in LABELS
        tab.until(lambda: tab.page.evaluate("[image.naturalWidth > 100, video.srcObject]") == [True, None])
        assert tab.page.inner_text("#picture-name").startswith("camera ")


def test_without_a_camera_the_page_says_why(browser: "Browser", server: Live) -> None:
    def insecure(tab: Tab) -> None:
        tab.page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")

    with opened(browser, server.address, before=insecure) as tab:
        assert tab.page.is_hidden("#open-camera")
        assert "https or on localhost" in tab.page.inner_text("#no-camera")


def test_below_the_threshold_it_says_not_sure_and_keeps_the_bars(browser: "Browser", server: Live, images: list[Path]) -> None:
    row = {"name": "a", "label": "bee", "probability": 0.62, "sure": False, "alternatives": [{"label": "ant", "probability": 0.3}]}
    with opened(browser, server.address) as tab:
        tab.answer("/v1/predict", as_json({"predictions": [row | {"width": 30, "height": 20, "error": None}]}))
        tab.drop(images[0])
        tab.done()
        assert tab.verdict == "Not sure"
        assert tab.bars == [("bee", "62.0 %"), ("ant", "30.0 %")]
        assert tab.short_answers == ["not sure (bee 62.0 %)"]
        tab.slide("#threshold", 0.62)
        assert tab.verdict == "bee"
        tab.slide("#threshold", 0.63)
        assert tab.verdict == "Not sure"
        assert tab.asked == ["/v1/predict"]  # the slider needs no server


def test_why_lays_the_explanation_over_the_image(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address) as tab:
        tab.drop(*images[:2])
        tab.done()
        label = tab.verdict
        tab.page.click("#why")
        tab.page.wait_for_selector("#heat", state="visible")
        assert tab.page.evaluate("heat.decode().then(() => [heat.naturalWidth, heat.naturalHeight])") == [8, 8]  # as the model sees it
        assert f"what speaks for {label} is orange" in tab.page.inner_text("#why-text")
        box, over = tab.page.locator("#image").bounding_box(), tab.page.locator("#heat").bounding_box()
        assert box == over
        tab.page.click("#why")
        assert tab.page.is_hidden("#heat")
        tab.page.click("#why")  # it is known by now
        assert tab.page.is_visible("#heat")
        tab.page.locator(".option").nth(1).click()  # of this one nothing was asked
        assert tab.page.is_hidden("#heat")
        assert tab.page.get_attribute("#why", "aria-pressed") == "false"
        assert tab.asked.count("/v1/explain") == 1


def test_a_model_that_cannot_be_explained_is_said_in_the_words_of_the_server(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address, errors=True) as tab:
        tab.answer("/v1/explain", as_json(error("cannot_explain", "an exported model cannot be explained"), status=422))
        tab.drop(images[0])
        tab.done()
        tab.page.click("#why")
        tab.page.wait_for_selector("#why-text.error")
        assert tab.page.inner_text("#why-text") == "an exported model cannot be explained"
        assert tab.page.is_hidden("#heat")
        assert tab.page.get_attribute("#why", "aria-pressed") == "false"


def test_a_bad_image_shows_the_reason_of_the_server_and_costs_no_other_its_answer(
    browser: "Browser", server: Live, run: Path, images: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture(1, size=(40, 40), format="JPEG")[:300])
    reason = server.predict(broken.read_bytes()).json["error"]["message"]
    with opened(browser, server.address, errors=True) as tab:
        tab.drop(images[0], broken, images[1])
        tab.done()
        [first, second] = predicted(run, images[:2])
        assert tab.short_answers == [f"{first.label} {shown(first.probability or 0)}", "no answer",
                                     f"{second.label} {shown(second.probability or 0)}"]  # fmt: skip
        tab.page.locator(".option").nth(1).click()
        assert tab.page.inner_text("#answer .error") == reason
        assert "1 without an answer" in tab.page.inner_text("#said")


def test_an_image_beyond_the_limits_is_not_sent_until_a_smaller_copy_is_wanted(browser: "Browser", server: Live, tmp_path: Path) -> None:
    heavy, wide = write_image(tmp_path / "heavy.png", 1, size=(200, 240)), tmp_path / "wide.png"
    heavy.write_bytes(heavy.read_bytes() + bytes(600_000))
    Image.new("RGB", (400, 300)).save(wide)  # 0.12 megapixels, the server takes 0.05
    with opened(browser, server.address) as tab:
        tab.drop(heavy, wide)
        tab.done()
        assert tab.asked == []
        assert "the server takes 0.5 MiB at most, so it was not sent" in tab.page.inner_text("#answer")
        tab.page.locator(".option").nth(1).click()
        assert "the server takes 0.050 million pixels at most, so it was not sent" in tab.page.inner_text("#answer")
        tab.page.click("#shrink")
        tab.done()
        assert tab.asked == ["/v1/predict"]
        assert tab.verdict in LABELS


def test_a_busy_server_is_asked_again_when_it_says(browser: "Browser", server: Live, images: list[Path]) -> None:
    refused: list[str] = []

    def busy(route: "Route") -> None:
        if len(refused) == 2:
            return route.continue_()
        refused.append(route.request.url)
        return as_json(error("queue_full", "busy"), status=429, headers={"retry-after": "0.2"})(route)

    with opened(browser, server.address, errors=True) as tab:
        tab.answer("/v1/predict", busy)
        tab.drop(images[0])
        tab.done()
        assert tab.verdict in LABELS
        assert len(tab.asked) == 3


def test_requests_in_flight_can_be_stopped_and_tried_again(browser: "Browser", server: Live, images: list[Path]) -> None:
    held: list[Any] = []
    with opened(browser, server.address, errors=True) as tab:
        given_up: list[str] = []
        tab.page.on("requestfailed", lambda request: given_up.append(request.failure))
        tab.answer("/v1/predict", lambda route: held.append(route))
        tab.drop(*images)
        tab.until(lambda: len(held) >= 4)
        tab.page.wait_for_timeout(300)  # for one too many
        assert len(held) == 4  # a few at a time
        assert sorted(tab.short_answers) == ["asking"] * 4 + ["waiting"] * 2
        tab.page.click("#cancel")
        tab.done()
        assert tab.short_answers == ["stopped"] * 6
        tab.until(lambda: len(given_up) >= 4)
        assert given_up == ["net::ERR_ABORTED"] * 4
        tab.page.unroute("**/v1/predict")
        tab.page.click("#again")
        tab.page.wait_for_selector(".verdict:not(:has-text('No answer'))")
        assert tab.verdict in LABELS


def test_a_key_is_asked_for_and_then_used(browser: "Browser", server: Live, images: list[Path]) -> None:
    def guarded(route: "Route") -> None:
        if route.request.headers.get("authorization") == "Bearer sesame":
            route.continue_()
        else:
            as_json(error("unauthorized", "the API key is missing or wrong"), status=401)(route)

    with opened(browser, server.address, errors=True, before=lambda tab: tab.answer("/v1/*", guarded)) as tab:
        assert tab.page.evaluate("document.activeElement.id") == "key"
        tab.page.keyboard.type("wrong")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#key-error:has-text('the API key is missing or wrong')")
        tab.drop(images[0])
        tab.done()
        assert tab.short_answers == ["no answer"]
        tab.page.fill("#key", "sesame")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector(".verdict:not(:has-text('No answer'))")
        assert tab.verdict in LABELS
        assert tab.page.is_hidden("#key-form")


def test_what_is_no_image_is_refused_by_name(browser: "Browser", server: Live, tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with opened(browser, server.address) as tab:
        tab.drop(images[0], tmp_path / "notes.txt")
        tab.done()
        assert len(tab.short_answers) == 1
        assert tab.page.inner_text("#trouble") == "Not an image: notes.txt"


def test_the_download_holds_the_rows_of_the_server(browser: "Browser", server: Live, run: Path, images: list[Path]) -> None:
    with opened(browser, server.address) as tab:
        tab.drop(*images[:2])
        tab.done()
        with tab.page.expect_download() as download:
            tab.page.click("#download")
        written = json.loads(Path(download.value.path()).read_text())
    assert download.value.suggested_filename == "predictions.json"
    assert written["model"] == {"name": "tiny", "task": "classify"}
    for row, expected in zip(written["predictions"], predicted(run, images[:2]), strict=True):
        assert (row["name"], row["label"]) == (Path(expected.name).name, expected.label)
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-5)
        assert (row["width"], row["height"]) == (30, 20)


def test_fifty_images_are_answered_and_leave_one_object_url(browser: "Browser", server: Live, tmp_path: Path) -> None:
    def counted(tab: Tab) -> None:
        tab.page.add_init_script(
            """window.open_urls = new Set();
            const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
            URL.createObjectURL = (blob) => { const url = create(blob); open_urls.add(url); return url; };
            URL.revokeObjectURL = (url) => { open_urls.delete(url); revoke(url); };"""
        )

    files = [write_image(tmp_path / f"{i}.png", i) for i in range(50)]
    with opened(browser, server.address, before=counted) as tab:
        tab.drop(*files)
        tab.done()
        assert len(tab.short_answers) == 50
        assert all(re.fullmatch(r"(ant|bee|cat) [\d.]+ %", said) for said in tab.short_answers)
        for i in (7, 30, 49):
            tab.page.locator(".option").nth(i).click()
        assert tab.page.evaluate("open_urls.size") == 1
        tab.page.click("#clear")
        assert tab.page.evaluate("open_urls.size") == 0
        assert tab.page.is_hidden("#workplace")


def test_the_model_card_is_shown(browser: "Browser", server: Live, run: Path) -> None:
    card = "---\ntags:\n- x\n---\n# Tiny\n\n| split | accuracy |\n| --- | --- |\n| val | `a<b>` |\n\n- **one**\n- two\n"
    model = server.get("/v1/model").json | {"card": card}
    with opened(browser, server.address, before=lambda tab: tab.answer("/v1/model", as_json(model))) as tab:
        tab.page.click("#open-card")
        said = tab.page.inner_text("#card-text")
        for fact in ("tiny", "classify", "8 x 8 pixels, 3 channels", "not calibrated", "Tiny"):
            assert fact in said
        assert "tags" not in said  # the Hub's front matter
        assert tab.page.locator("#card-text td").all_inner_texts() == ["val", "a<b>"]
        assert tab.page.locator("#card-text li").all_inner_texts() == ["one", "two"]


def test_the_pages_files_are_small_and_need_no_other_site() -> None:
    folder = Path(convmix.__file__).parent / "serving" / "page"
    files = sorted(folder.iterdir())
    assert sum(file.stat().st_size for file in files) < 100_000
    for file in files:
        text = file.read_text("ascii")
        outside = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert outside == set(), file.name
    html = (folder / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", html)  # the content security policy forbids what stands in line
    assert io.StringIO(html).readline() == "<!doctype html>\n"
