"""The cases that the shared folder writes: each is read as its `expected.json` says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convmix.data.inspection import inspect
from convmix.errors import DataError


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_every_case_is_read_as_expected(shared: Path, tmp_path: Path) -> None:
    maker = shared / "cases" / "make.py"
    if not maker.is_file():
        pytest.skip(f"no {maker}")
    subprocess.run([sys.executable, maker, tmp_path], check=True, capture_output=True)
    expected = json.loads((tmp_path / "expected.json").read_text())
    assert len(expected) >= 20
    wrong = {name: why for name, case in expected.items() if (why := differs(tmp_path / name, case))}
    assert not wrong


def differs(folder: Path, case: dict[str, object]) -> str:
    """What is not as expected, nothing where all is."""
    path = folder / (folder / "GIVE").read_text().strip() if (folder / "GIVE").is_file() else folder
    try:
        found = inspect(path)
    except DataError as error:
        return "" if str(case.get("error", "\0")).lower() in str(error).lower() else f"refused: {error}"
    if "error" in case:
        return f"not refused: {found}"
    note = str(case.get("note", "")).lower()
    read = {"layout": found.layout, "task": found.task, "classes": list(found.classes), "images": found.images, "splits": found.splits}
    wrong = {key: (read[key], value) for key, value in case.items() if key != "note" and read[key] != value}
    return str(wrong or "") if any(note in said.lower() for said in found.notes) or not note else f"no note of {note}: {found.notes}"
