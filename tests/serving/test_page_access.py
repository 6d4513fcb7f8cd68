"""The page without a mouse, on a phone, in the dark, and without motion."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving.live import Live
from tests.serving.tab import Tab, opened
from tests.tiny_run import LABELS, write_image

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow  # a server and a browser

PHONE = (360, 640)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dropped")
    long_name = "a-very-long-name-without-any-space-" * 4
    return [write_image(folder / f"{long_name}{i}.png", i, size=(20, 30)) for i in range(8)]


def focused(tab: Tab) -> str:
    """The id of the element that has the focus; for one without, of what it lies in."""
    return str(tab.page.evaluate("document.activeElement.closest('[id]')?.id ?? ''"))


def tabbed(tab: Tab, start: str, *, key: str = "Tab") -> list[str]:
    """Where the key leads from this control until it leaves the page; every stop shows that it has the focus."""
    tab.page.focus(start)
    stops = [focused(tab)]
    for _ in range(60):
        tab.page.keyboard.press(key)
        stop = focused(tab)
        if stop in ("", stops[0]):
            return stops
        outline = tab.page.evaluate(
            "(({ outlineStyle, outlineWidth }) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        )
        assert outline == ["solid", "3px"], stop  # the width alone is 3px where there is no outline too
        stops.append(stop)
    raise AssertionError(f"{key} never leaves the page: {stops}")


def test_everything_can_be_done_with_the_keyboard_alone(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address) as tab:
        keys = tab.page.keyboard
        tab.page.on("filechooser", lambda _: None)  # early: what first asks for it does not wait until the browser knows
        keys.press("Tab")
        assert tab.page.inner_text(":focus") == "Skip to the images"
        keys.press("Enter")
        assert focused(tab) == "main"
        keys.press("Tab")
        assert focused(tab) == "choose"
        with tab.page.expect_file_chooser() as chooser:
            keys.press("Enter")
        chooser.value.set_files(images[:3])
        tab.done()
        for _ in range(40):
            keys.press("Tab")
            if tab.page.evaluate("document.activeElement.role") == "option":
                break
        names = [image.name for image in images]
        for key, i in (("ArrowRight", 1), ("End", 2), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0)):
            keys.press(key)
            assert tab.page.inner_text("#picture-name") == names[i], key
            assert tab.page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
        keys.press("Delete")
        assert tab.page.inner_text("#picture-name") == names[1]
        assert len(tab.short_answers) == 2
        tab.page.focus("#threshold")
        keys.press("End")
        assert tab.verdict == "Not sure"
        tab.page.focus("#why")
        keys.press("Space")
        tab.page.wait_for_selector("#heat", state="visible")
        tab.page.focus("#open-card")
        keys.press("Enter")
        assert tab.page.is_visible("#card-text")
        keys.press("Escape")
        assert tab.page.is_hidden("#card-text")
        assert focused(tab) == "open-card"


def test_the_tab_key_reaches_every_control_and_is_caught_by_none(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address) as tab:
        assert tabbed(tab, "#skip") == ["skip", "open-card", "theme", "choose", "open-camera"]
        tab.drop(*images[:3])
        tab.done()
        stops = tabbed(tab, "#skip")
        for control in ("choose", "threshold", "why", "remove", "download", "clear"):
            assert control in stops
        assert sum(stop.startswith("image-") for stop in stops) == 1  # one stop, however many images
        assert tabbed(tab, f"#{stops[-1]}", key="Shift+Tab") == stops[::-1]


def test_controls_have_names_and_changes_are_announced(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address) as tab:
        tab.drop(*images[:2])
        tab.done()
        tree = tab.page.locator("body").aria_snapshot()
        for part in ('slider "Sure from a probability of"', 'button "Why?"', 'listbox "Images; arrow keys choose, Delete removes"',
                     'button "Dark colours"', 'heading "2 images"', 'link "Skip to the images"'):  # fmt: skip
            assert part in tree, tree
        assert tab.page.inner_text("#said") == "2 images done"
        assert tab.page.get_attribute("#said", "aria-live") == "polite"
        assert tab.page.get_attribute("#image", "alt") == images[0].name


def too_small(tab: Tab) -> list[str]:
    """Controls that a thumb misses: lower than 44 pixels."""
    visible = tab.page.locator("button:visible, select:visible")
    return list(visible.evaluate_all("all => all.filter(b => b.offsetHeight < 44).map(b => b.id)"))


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(browser: "Browser", server: Live, images: list[Path], dark: bool) -> None:
    with opened(browser, server.address, size=PHONE, dark=dark, has_touch=True, is_mobile=True) as tab:
        assert not tab.overflows
        assert too_small(tab) == []
        tab.drop(*images)
        tab.done()
        assert not tab.overflows
        assert tab.page.evaluate("image.getBoundingClientRect().width") > 300
        tab.page.tap("#why")
        tab.page.wait_for_selector("#heat", state="visible")
        small = tab.page.locator("button:visible, select:visible").evaluate_all(
            "all => all.filter(b => b.offsetHeight < 44).map(b => b.id)"
        )
        assert small == []
        assert not tab.overflows
        tab.page.tap("#open-card")
        assert not tab.overflows


def test_dark_follows_the_system_until_the_reader_chooses_and_that_is_kept(browser: "Browser", server: Live) -> None:
    def brightness(tab: Tab) -> float:
        colour = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(v) for v in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    with opened(browser, server.address, dark=True) as tab:
        assert brightness(tab) < 40
        tab.page.emulate_media(color_scheme="light")
        assert brightness(tab) > 215
        tab.page.click("#theme")
        assert brightness(tab) < 40
        tab.page.reload()
        assert brightness(tab) < 40
        tab.page.wait_for_selector("#theme:has-text('Light')")


def test_nothing_moves_for_those_who_do_not_want_it(browser: "Browser", server: Live, images: list[Path]) -> None:
    for motion, moving in (("no-preference", "turn"), ("reduce", "none")):
        with opened(browser, server.address, reduced_motion=motion) as tab:
            tab.answer("/v1/predict", lambda route: None)
            tab.drop(images[0])
            tab.page.wait_for_selector(".waiting")
            assert tab.page.locator(".waiting").evaluate("w => getComputedStyle(w, '::after').animationName") == moving


def test_a_picture_is_answered_in_a_narrow_window(browser: "Browser", server: Live, images: list[Path]) -> None:
    with opened(browser, server.address, size=(320, 480)) as tab:  # a window of 1280 at 400 %
        tab.drop(images[0])
        tab.done()
        assert tab.verdict in LABELS
        assert not tab.overflows
