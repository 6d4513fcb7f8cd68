"""The trees of files in docs/files.md and README.md are what docs/tree.py writes, and every file says what it is."""

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "docs"))

import tree  # noqa: E402

PACKAGE = REPO / "convmix"
MOST_LOOSE_MODULES = 14


@pytest.mark.slow
@pytest.mark.parametrize("page", tree.PAGES, ids=lambda page: page.name)
def test_the_tree_of_a_page_is_up_to_date(page: Path) -> None:
    written = page.read_text()
    assert tree.with_tree(written, deep=tree.PAGES[page]) == written, "python docs/tree.py writes it"


def test_every_file_is_in_the_tree() -> None:
    written = tree.tree(deep=True)
    assert [path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" and path.name not in written] == []
    assert written.count(".py ") == sum(path.name != "__init__.py" for path in PACKAGE.rglob("*.py")) + 1  # the package's own


def test_every_file_and_folder_says_what_it_is() -> None:
    silent = [str(path.relative_to(REPO)) for path in PACKAGE.rglob("*.py") if len(tree.first_line(path).split()) < 2]
    assert not silent, f"a docstring each, please: {silent}"


def test_loose_modules_are_few() -> None:
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= MOST_LOOSE_MODULES, f"these belong into folders: {loose}"
