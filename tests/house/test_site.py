"""`make docs` writes a site that is complete, searchable and at home on this machine: nothing of it comes from another host."""

import html
import inspect
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import convmix
from convmix import config, results
from tests.browser import look_at
from tests.made_once import MadeOnce
from tests.patience import PATIENCE_S

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "docs"))

import docstrings  # noqa: E402
import hooks  # noqa: E402

HOW_TO = sorted((REPO / "docs/how_to").glob("*.md"))


def build(folder: Path) -> None:
    """As `make docs`; a warning, such as that of a broken link, is a failure, and so is whatever needs a network."""
    unreachable = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, **unreachable, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture
def site(made_once: MadeOnce) -> Path:
    return made_once("site", build)


class Page(HTMLParser):
    """What a page refers to, the names of its places, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []  # fetched by the browser without a click
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        self.classes.update(values.get("class", "").split())
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values["href"])
        self.loads += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def plain(text: str) -> str:
    """A docstring's line or a help text without marks, in single spaces."""
    return " ".join(text.replace("`", "").split())


def squeezed(text: str) -> str:
    """Without any space: tags that end inside a sentence leave one too many."""
    return re.sub(r"\s", "", text)


@pytest.mark.slow
def test_every_how_to_page_is_in_the_navigation_and_can_be_searched(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())["docs"]
    start = Page(site / "index.html")
    for source in HOW_TO:
        address = f"how_to/{source.stem}.html"
        assert address in start.links, f"{source.name} is missing in the nav of mkdocs.yml"
        found = [entry for entry in index if entry["location"].split("#")[0] == address]
        searched = squeezed("".join(html.unescape(re.sub(r"<[^>]*>", "", entry["title"] + entry["text"])) for entry in found))
        paragraphs = [p for p in source.read_text().split("\n\n") if re.fullmatch(r"[A-Z][^|`\[*<>]*", p)]
        assert found and squeezed(hooks.title(source)) in searched
        assert all(squeezed(paragraph) in searched for paragraph in paragraphs), f"{source.name} is not in the index as a whole"


@pytest.mark.slow
def test_the_landing_page_is_the_readme(site: Path) -> None:
    page = Page(site / "index.html")
    readme = (REPO / "README.md").read_text()
    sections = re.findall(r"^## (.*)$", readme, re.M)
    assert sections and all(section in page.text for section in sections)
    assert "make docs" in page.text and " tested\n" not in (site / "index.html").read_text()
    assert {"how_to/train.html", "repository/RESULTS.html", "repository/convmix/models/convmixer.py.html"} <= set(page.links)


def test_nothing_comes_from_another_host_and_all_of_it_is_there(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(HOW_TO)
    for path in pages:
        page = Page(path)
        assert "mermaid" not in page.classes  # the theme would fetch what draws them
        for address in [*page.loads, *page.links]:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc and parts.path and path.name != "404.html":
                assert (path.parent / unquote(parts.path)).exists(), f"{path.relative_to(site)}: {address}"
        remote = [address for address in page.loads if urlsplit(address).netloc]
        assert not remote, f"{path.relative_to(site)} loads {remote}"
    for path in site.rglob("*.css"):
        assert not re.search(r"""(@import\s|url\()\s*["']?(https?:)?//""", path.read_text(encoding="utf-8")), path.name


def test_the_api_pages_have_every_public_name_with_its_docstring(site: Path) -> None:
    page = Page(site / "api/index.html")
    text = squeezed(page.text)
    for name in convmix.__all__:
        assert f"convmix.{name}" in page.ids, f"docs/api/index.md lacks ::: convmix.{name}"
        value = getattr(convmix, name)
        first = (inspect.getdoc(value) or "").split("\n")[0]
        assert first and squeezed(plain(first)) in text, f"{name}: {first}"
        if inspect.isfunction(value):
            missing = [parameter for parameter in inspect.signature(value).parameters if parameter not in page.text]
            assert not missing, f"{name} lacks {missing}"


def test_the_api_pages_have_every_setting_with_its_help_and_every_kind_of_answer(site: Path) -> None:
    page = Page(site / "api/settings.html")
    text = squeezed(page.text)
    for setting in config.settings():
        section = type(getattr(config.Run, setting.section)) if setting.section else config.Run
        assert f"convmix.config.{section.__name__}.{setting.name}" in page.ids
        assert squeezed(plain(setting.help)) in text, setting.path
    answers = [name for name, value in vars(results).items() if inspect.isclass(value) and value.__module__ == "convmix.results"]
    assert answers and {f"convmix.results.{name}" for name in answers} <= Page(site / "api/results.html").ids


@pytest.mark.slow
def test_a_page_opened_as_a_file_can_be_searched(site: Path) -> None:
    def search(tab: Any) -> None:
        tab.locator("input.md-search__input").focus()  # from then on the index is read
        tab.locator(".md-search-result__meta", has_text="Type to start searching").wait_for(state="attached", timeout=1000 * PATIENCE_S)
        tab.locator("input.md-search__input").press_sequentially("torchrun")
        tab.locator("a.md-search-result__link[href*='how_to/distributed.html']").first.wait_for(state="attached", timeout=1000 * PATIENCE_S)

    seen = look_at(site / "index.html", act=search)
    assert not seen.errors and not [address for address in seen.requests if not address.startswith(("file:", "blob:"))]
    assert "matching document" in seen.text


def test_links_that_hold_in_the_repository_hold_on_the_site() -> None:
    text = (
        "[a](docs/how_to/train.md#x) `[b](LOG.md)` [c](https://example.org) [d](convmix/errors.py) [e](gone.md)\n"
        "```sh\n[f](LOG.md)\n```\n[g](LOG.md)"
    )
    assert hooks.with_links(text, PurePosixPath("README.md"), hooks.site_uri) == (
        "[a](how_to/train.md#x) `[b](LOG.md)` [c](https://example.org) [d](repository/convmix/errors.py.md) [e](gone.md)\n"
        "```sh\n[f](LOG.md)\n```\n[g](repository/LOG.md)"
    )


def test_arguments_become_a_list_and_other_paragraphs_stay() -> None:
    text = (
        "What it does: much.\n\ntop: labels.\ndevice, precision: where\nand how. workers: processes.\nRaises RunError: sometimes.\n\nAfter."
    )
    assert docstrings.with_list(text, ["top", "device", "precision", "workers"]).split("\n") == [
        "What it does: much.", "", "", "- `top`: labels.", "- `device`, `precision`: where", "    and how.", "- `workers`: processes.",
        "", "Raises RunError: sometimes.", "", "After.",
    ]  # fmt: skip
