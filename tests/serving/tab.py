"""The page of a running server in headless Chromium: images go in as people put them in, and what then stands there is read."""

import base64
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

_DONE = "#strip:has(.option):not(:has([data-state=waiting],[data-state=sent]))"  # every image has an answer, or a reason why not


@dataclass
class Tab:
    """An open page, and what went wrong on it."""

    page: "Page"
    address: str
    errors: list[str] = field(default_factory=list)  # of the console, and uncaught ones
    requests: list[str] = field(default_factory=list)  # addresses, data and object URLs left out
    asked: list[str] = field(default_factory=list)  # the POST requests among them

    def drop(self, *files: Path) -> None:
        """Drag files over the page and let go, as the browser itself gets it from the system."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})
        self.page.wait_for_selector("#workplace", state="visible")

    def paste(self, png: bytes) -> None:
        """Put an image on the clipboard and press Control+V."""
        self.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.address)
        self.page.evaluate(
            """async (data) => {
              const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
              await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
            }""",
            base64.b64encode(png).decode(),
        )
        self.page.keyboard.press("Control+V")
        self.page.wait_for_selector("#workplace", state="visible")

    def done(self) -> None:
        """Wait until every image has its answer or its error."""
        self.page.wait_for_selector(_DONE, state="attached")
        self.page.wait_for_selector("#cancel", state="hidden")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what events of the browser bring."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "it never came"
            self.page.wait_for_timeout(10)

    def answer(self, route: str, reply: Callable[["Route"], None]) -> None:
        """Answer requests to `route` here and not in the server."""
        self.page.route(f"**{route}", reply)

    @property
    def verdict(self) -> str:
        return self.page.inner_text(".verdict")

    @property
    def bars(self) -> list[tuple[str, str]]:
        """Names and shares beside the image."""
        return [tuple(line.split("\n")) for line in self.page.locator("#answer .bars li").all_inner_texts()]  # type: ignore[misc]

    @property
    def short_answers(self) -> list[str]:
        """Beneath the small images."""
        return self.page.locator(".thumb-answer").all_inner_texts()

    @property
    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        window = self.page.viewport_size  # innerWidth of a phone grows with what it holds
        assert window is not None
        return bool(self.page.evaluate("document.documentElement.scrollWidth") > window["width"])

    def slide(self, slider: str, value: float) -> None:
        """Move a slider and let go."""
        self.page.locator(slider).evaluate(
            "(s, v) => { s.value = v; for (const kind of ['input', 'change']) s.dispatchEvent(new Event(kind, {bubbles: true})); }",
            value,
        )


def as_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Callable[["Route"], None]:
    """A reply for `Tab.answer`."""
    all_headers = {"content-type": "application/json", **(headers or {})}
    return lambda route: route.fulfill(status=status, headers=all_headers, body=json.dumps(value))


def error(code: str, message: str) -> dict[str, Any]:
    """The body of a refusal."""
    return {"error": {"code": code, "message": message, "image": 0}}


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator["Browser"]:
    """Headless Chromium; skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", *flags])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: "Browser",
    address: str,
    *,
    size: tuple[int, int] = (1280, 800),
    dark: bool = False,
    before: Callable[[Tab], None] = lambda tab: None,
    errors: bool = False,
    **context: Any,
) -> Iterator[Tab]:
    """The page in a window of this width and height. `before` is called before it loads.

    At the end: no request left the server's origin, and, unless `errors` are expected, the console is empty.
    """
    made = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", **context)
    made.set_default_timeout(1000 * PATIENCE_S)
    page = made.new_page()
    tab = Tab(page, address)
    page.on("console", lambda message: tab.errors.append(message.text))
    page.on("pageerror", lambda error: tab.errors.append(str(error)))

    def note(request: Any) -> None:
        if not request.url.startswith(("data:", "blob:")):
            tab.requests.append(request.url)
            if request.method == "POST":
                tab.asked.append(request.url.removeprefix(address))

    page.on("request", note)
    before(tab)
    try:
        page.goto(address + "/")
        page.wait_for_selector("#open-card:enabled, #key-form:not([hidden]), #trouble:not([hidden])")
        yield tab
        assert [url for url in tab.requests if not url.startswith(address + "/")] == []
        if not errors:
            assert tab.errors == []
    finally:
        made.close()
