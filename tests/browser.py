"""Headless Chromium looks at a page: what a reader sees, what the console says, what the page asks the network for."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Seen:
    """What happened when a page was opened."""

    text: str  # the visible text
    errors: tuple[str, ...]  # of the console, and uncaught ones
    requests: tuple[str, ...]  # addresses other than the page itself and data inside it
    broken_images: int
    overflows: bool  # whether the page is wider than the window


def look_at(page: Path, *, width: int = 1100, height: int = 900, dark: bool = False, screenshot: Path | None = None) -> Seen:
    """Open a local page; skipped where there is no Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    errors: list[str] = []
    requests: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
            tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.on("request", lambda request: None if request.url.startswith("data:") else requests.append(request.url))
            tab.goto(page.resolve().as_uri())
            broken = tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
            overflows = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            text = tab.inner_text("body")
            if screenshot:
                tab.screenshot(path=str(screenshot), full_page=True)
        finally:
            browser.close()
    return Seen(text, tuple(errors), tuple(requests[1:]), broken, overflows)
