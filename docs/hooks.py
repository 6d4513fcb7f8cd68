"""What the site has beside the pages of docs/: README as its landing page, the list of the how-to pages, and what pages link to elsewhere.

mkdocs calls the functions `on_...` (mkdocs.yml names this file).

README.md             -> index.md
a linked .md          -> repository/PATH
a linked picture      -> repository/PATH
a linked other file   -> repository/PATH.md, its text in a block, not searched
a linked folder       -> repository/PATH/index.md, its files with their first lines, not searched
"""

import ast
import os.path
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

REPO = Path(__file__).resolve().parents[1]
README = PurePosixPath("README.md")
HOW_TO = PurePosixPath("docs/how_to")
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
LAST_FOUND = {PurePosixPath("LOG.md"), PurePosixPath("CHANGELOG.md"), PurePosixPath("docs/files.md")}  # they name everything
PICTURES = {".png", ".jpg", ".svg"}
# A fenced block or inline code, which stay as they are, or the target of a link with its fragment.
LINK = re.compile(r"^```.*?^```|`[^`\n]+`|\]\((?P<target>[^()\s#]+)(?P<fragment>#[^()\s]*)?\)", flags=re.DOTALL | re.MULTILINE)
TESTED = re.compile(r"^(```\w+) tested$", flags=re.MULTILINE)

# Site address (a File's src_uri) of each page that comes from the repository -> its path there
_origin: dict[str, PurePosixPath] = {}


def site_uri(path: PurePosixPath) -> str:
    """Where a file or folder of the repository is on the site."""
    if path == README:
        return "index.md"
    if path == HOW_TO:
        return "how_to/index.md"
    if path.is_relative_to("docs") and path.suffix != ".py":
        return str(path.relative_to("docs"))
    if (REPO / path).is_dir():
        return f"repository/{path}/index.md"
    return f"repository/{path}" if path.suffix in {".md", *PICTURES} else f"repository/{path}.md"


def with_links(markdown: str, path: PurePosixPath, address: Callable[[PurePosixPath], str]) -> str:
    """The text of the file at `path`, each link to something of the repository replaced by the `address` of that.

    Links to other hosts, and to what does not exist, stay as they are: mkdocs says which are broken.
    """

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or "://" in target:
            return match[0]
        meant = PurePosixPath(os.path.normpath(path.parent / target))
        return f"]({address(meant)}{match['fragment'] or ''})" if (REPO / meant).exists() else match[0]

    return LINK.sub(replaced, markdown)


def linked(path: PurePosixPath) -> Iterator[PurePosixPath]:
    """What the Markdown file at `path` links to in the repository."""
    found: list[PurePosixPath] = []

    def noted(meant: PurePosixPath) -> str:
        found.append(meant)
        return ""

    if path.suffix == ".md":
        with_links((REPO / path).read_text(encoding="utf-8"), path, noted)
    yield from found


def title(path: Path) -> str:
    """The first heading of a page."""
    return next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")).removeprefix("# ")


def first_line(path: Path) -> str:
    """What a file or folder says it is: the first line of its docstring, or nothing."""
    code = path / "__init__.py" if path.is_dir() else path
    if code.suffix != ".py" or not code.is_file():
        return ""
    return (ast.get_docstring(ast.parse(code.read_text(encoding="utf-8"))) or "").split("\n")[0]


def listing(path: PurePosixPath) -> str:
    """The page of a folder."""
    entries = [p for p in sorted((REPO / path).iterdir()) if p.name[0] not in "._"]
    rows = [f"| `{p.name}{'/' if p.is_dir() else ''}` | {first_line(p)} |" for p in entries]
    return "\n".join([f"{UNSEARCHED}# {path}", "", "| file | what it is |", "| --- | --- |", *rows, ""])


def how_to_list() -> str:
    """Every how-to page with its title."""
    pages = sorted((REPO / HOW_TO).glob("*.md"), key=title)
    return "\n".join(["# How to", "", "One task a page.", "", *(f"- [{title(page)}]({page.name})" for page in pages), ""])


def page_text(path: PurePosixPath) -> str:
    """The Markdown of the page that a file or folder of the repository becomes."""
    if path == HOW_TO:
        return how_to_list()
    if (REPO / path).is_dir():
        return listing(path)
    text = (REPO / path).read_text(encoding="utf-8")
    return text if path.suffix == ".md" else f"{UNSEARCHED}# {path}\n\n````{path.suffix[1:]}\n{text}````\n"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds README, the list of how-to pages, what mkdocs.yml lists of the repository, and then all that any of these pages links to."""
    _origin.clear()
    listed = {*_listed(config.nav)}
    own = {PurePosixPath("docs") / file.src_uri for file in files.documentation_pages()}
    waiting = [README, HOW_TO, *own, *(PurePosixPath(uri).relative_to("repository") for uri in listed if uri.startswith("repository/"))]
    seen: set[PurePosixPath] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        waiting += linked(path)
        uri = site_uri(path)
        if path.suffix in PICTURES:
            if not path.is_relative_to("docs"):
                files.append(File.generated(config, uri, abs_src_path=str(REPO / path)))
            continue
        _origin[uri] = path
        if path not in own:
            level = InclusionLevel.INCLUDED if uri in listed else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, uri, content=page_text(path), inclusion=level))
    return files


def _listed(items: object) -> Iterator[str]:
    """Every page that mkdocs.yml lists."""
    if isinstance(items, str):
        yield items
    elif isinstance(items, dict):
        for value in items.values():
            yield from _listed(value)
    elif isinstance(items, list):
        for value in items:
            yield from _listed(value)


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links that hold in the repository, as they hold on the site; and blocks without the mark for the tests."""
    path = _origin.get(page.file.src_uri)
    if path in LAST_FOUND:
        page.meta.setdefault("search", {"boost": 0.1})
    if path is None or path.suffix != ".md":
        return markdown
    here = PurePosixPath(page.file.src_uri).parent
    return TESTED.sub(r"\1", with_links(markdown, path, lambda meant: os.path.relpath(site_uri(meant), here)))
