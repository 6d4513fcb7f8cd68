"""Headless Chromium looks at a page: what a reader sees, what the console says, what the page asks the network for."""

import atexit
import functools
import queue
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Seen:
    """What happened when a page was opened."""

    text: str  # the visible text
    errors: tuple[str, ...]  # of the console, and uncaught ones
    requests: tuple[str, ...]  # addresses other than the page itself and data inside it
    broken_images: int
    overflows: bool  # whether the page is wider than the window


def look_at(
    page: Path,
    *,
    width: int = 1100,
    height: int = 900,
    dark: bool = False,
    screenshot: Path | None = None,
    act: Callable[[Any], object] = lambda tab: None,
) -> Seen:
    """Open a local page in a session of its own, `act` on it, then look; skipped where there is no Chromium."""
    pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: apt-get install chromium")

    def look(browser: Any) -> Seen:
        errors: list[str] = []
        requests: list[str] = []
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        try:
            tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.on("request", lambda request: None if request.url.startswith("data:") else requests.append(request.url))
            tab.goto(page.resolve().as_uri())
            act(tab)
            broken = tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
            overflows = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            text = tab.inner_text("body")
            if screenshot:
                tab.screenshot(path=str(screenshot), full_page=True)
        finally:
            tab.close()
        return Seen(text, tuple(errors), tuple(requests[1:]), broken, overflows)

    seen: Future[Seen] = Future()
    _visitors(executable).put((seen, look))
    return seen.result(timeout=300)


_Visit = tuple[Future[Seen], Callable[[Any], Seen]]


@functools.cache
def _visitors(executable: str) -> "queue.Queue[_Visit | None]":
    """Who looks next; one Chromium serves all of a process, which starting costs more than looking."""
    visitors: queue.Queue[_Visit | None] = queue.Queue()
    # In a thread of its own: where Playwright's loop has run, asyncio.run does not.
    thread = threading.Thread(target=_serve, args=(executable, visitors), daemon=True)
    thread.start()

    def stop() -> None:
        visitors.put(None)
        thread.join(timeout=60)

    atexit.register(stop)
    return visitors


def _serve(executable: str, visitors: "queue.Queue[_Visit | None]") -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser: Any = None
        while (visit := visitors.get()) is not None:
            seen, look = visit
            try:
                if browser is None or not browser.is_connected():
                    browser = play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
                seen.set_result(look(browser))
            except BaseException as error:  # raised where it was asked for
                seen.set_exception(error)
        if browser is not None:
            browser.close()
