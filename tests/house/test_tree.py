"""The trees of files in docs/files.md and, folder by folder, in README.md equal the disk."""

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^(?P<indent> *)(?P<name>[\w.]+/?)(?P<gap> +)?(?P<why>.*)$")


def tree_of(page: str) -> dict[str, str]:
    """Path -> explanation of every line under `convmix/` in the page's tree, two spaces per level."""
    match = re.search(r"^```text\n(convmix/.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert match, "the page has no ```text block that begins with convmix/"
    entries: dict[str, str] = {}
    folders: list[str] = []
    for line in match.group(1).splitlines():
        parsed = LINE.match(line)
        assert parsed, f"not a line of a tree: {line!r}"
        level = len(parsed["indent"]) // 2
        folders = folders[:level]
        path = "".join(folders) + parsed["name"]
        if path.endswith("/"):
            folders.append(parsed["name"])
        entries[path] = parsed["why"]
    return {path: why for path, why in entries.items() if path.startswith("convmix/")}


def tree_on_disk() -> dict[str, str]:
    """Path -> first line of the docstring; a package's `__init__` without code needs no line."""
    tree = {}
    for path in sorted((REPO / "convmix").rglob("*.py")):
        module = ast.parse(path.read_text())
        only_docstring = not module.body or (len(module.body) == 1 and ast.get_docstring(module) is not None)
        if path.name == "__init__.py" and only_docstring:
            continue
        tree[path.relative_to(REPO).as_posix()] = (ast.get_docstring(module) or "").split("\n")[0]
    return tree


def test_the_tree_of_files_equals_the_disk() -> None:
    written = {p for p in tree_of((REPO / "docs/files.md").read_text()) if p.endswith(".py")}
    disk = tree_on_disk()
    missing = "\n".join(f"  {path}  {disk[path]}" for path in sorted(disk.keys() - written))
    gone = "\n".join(f"  {path}" for path in sorted(written - disk.keys()))
    assert written == disk.keys(), f"docs/files.md\nlacks:\n{missing}\nhas but the disk has not:\n{gone}"


def test_the_tree_of_the_readme_equals_the_disk() -> None:
    written = tree_of((REPO / "README.md").read_text()).keys() - {"convmix/"}
    tops = ["/".join(path.split("/")[:2]) for path in tree_on_disk()]
    assert written == {top if top.endswith(".py") else f"{top}/" for top in tops}


def test_every_line_of_the_trees_explains_its_file() -> None:
    for page in ("docs/files.md", "README.md"):
        silent = [path for path, why in tree_of((REPO / page).read_text()).items() if path != "convmix/" and len(why.split()) < 2]
        assert not silent, f"{page}: half a line each, please: {silent}"


def test_a_tree_is_read_with_its_levels() -> None:
    tree = tree_of(
        "x\n```text\nconvmix/           the package\n  a.py   one thing\n  data/  pixels\n    b.py another\n  c.py  last\ntests/  t\n```\n"
    )
    assert tree == {
        "convmix/": "the package",
        "convmix/a.py": "one thing",
        "convmix/data/": "pixels",
        "convmix/data/b.py": "another",
        "convmix/c.py": "last",
    }
