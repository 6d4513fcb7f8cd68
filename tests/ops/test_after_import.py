"""What waits for an import happens once, after it, whoever imports."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convmix.ops.after_import import after_import


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for modules of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def waiting() -> int:
    return [type(finder).__name__ for finder in sys.meta_path].count("_AfterImport")


def test_actions_wait_for_the_import_and_find_the_module_whole(folder: Path) -> None:
    (folder / "waited_for.py").write_text("value = 1\n")
    said: list[object] = []

    def look() -> None:
        said.append(sys.modules["waited_for"].value)

    idle = waiting()
    for _ in range(2):
        after_import("waited_for", look)
    after_import("waited_for", lambda: said.append("second"))
    assert said == [] and waiting() == 1
    importlib.import_module("waited_for")
    assert said == [1, "second"]
    assert waiting() == idle  # the finder has left, unless something else is waited for
    after_import("waited_for", look)
    assert said == [1, "second", 1]  # at once where the module is there


def test_after_a_failed_import_the_next_one_counts(folder: Path) -> None:
    file = folder / "fails_first.py"
    file.write_text("raise OSError('not yet')\n")
    said: list[str] = []
    after_import("fails_first", lambda: said.append("done"))
    with pytest.raises(OSError, match="not yet"):
        importlib.import_module("fails_first")
    assert said == []
    file.write_text("value = 'a longer file, so that no bytecode is taken for it'\n")
    importlib.invalidate_caches()
    importlib.import_module("fails_first")
    assert said == ["done"]
