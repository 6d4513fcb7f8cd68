"""The trees of files in docs/files.md and README.md, written from the import contract in pyproject.toml and from the docstrings.

python docs/tree.py            writes both
order of folders and loose files <- the layers of [tool.importlinter], lowest first
a line's text                    <- the first line of the file's docstring, or of the folder's __init__.py
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "convmix"
BLOCK = re.compile(r"^```text\nconvmix/.*?^```", flags=re.DOTALL | re.MULTILINE)
WIDTH = 26  # columns of the names


def layers() -> list[str]:
    """Folders and loose files of the package, each after everything that it may import."""
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layered] = [contract for contract in contracts if contract["type"] == "layers"]
    return [*reversed(layered["layers"]), "__init__"]


def first_line(path: Path) -> str:
    """Of a file's docstring, without the full stop."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].removesuffix(".")


def line(level: int, name: str, text: str) -> str:
    return f"{'  ' * level + name:<{WIDTH}} {text}".rstrip()


def entries(folder: Path, level: int, *, deep: bool) -> Iterator[str]:
    """A line for the folder, and for all that it holds where the tree goes that deep."""
    yield line(level, f"{folder.name}/", first_line(folder / "__init__.py"))
    if deep:
        for path in sorted(folder.iterdir()):
            if (path / "__init__.py").is_file():
                yield from entries(path, level + 1, deep=True)
            elif path.suffix == ".py" and path.name != "__init__.py":
                yield line(level + 1, path.name, first_line(path))


def tree(*, deep: bool) -> str:
    """The block as it stands in a page."""
    lines = ["convmix/"]
    for name in layers():
        if (PACKAGE / name).is_dir():
            lines += entries(PACKAGE / name, 1, deep=deep)
        else:
            lines.append(line(1, f"{name}.py", first_line(PACKAGE / f"{name}.py")))
    return "\n".join(["```text", *lines, "```"])


def with_tree(page: str, *, deep: bool) -> str:
    """The page with its block replaced."""
    changed, count = BLOCK.subn(lambda _: tree(deep=deep), page)
    if count != 1:
        raise SystemExit("the page has no ```text block that begins with convmix/")
    return changed


PAGES = {REPO / "docs/files.md": True, REPO / "README.md": False}

if __name__ == "__main__":
    for page, deep in PAGES.items():
        page.write_text(with_tree(page.read_text(), deep=deep))
