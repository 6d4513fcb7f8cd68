"""Imports point one way, `import convmix` is light, files are small, named by their noun and free of machine paths."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "convmix"

BANNED_NAMES = {"util", "utils", "common", "misc", "helper", "helpers", "core", "engine"}
MAX_LINES = 400
HEAVY = ("torch", "torchvision", "timm", "datasets", "accelerate", "matplotlib", "pandas", "sklearn", "scipy", "cyclopts", "rich")


def tracked_files() -> list[Path]:
    """What git tracks or would track; skipped outside a checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in sorted(set(listing.stdout.split("\0")) - {""}) if (path := REPO / name).is_file()]


def broken_contracts(folder: Path) -> str:
    """What import-linter says of the package in `folder`; nothing where it keeps the contracts in its pyproject.toml."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_a_folder_imports_only_what_is_listed_below_it() -> None:
    assert broken_contracts(REPO) == ""


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("errors.py", "def f():\n    import convmix.config", "convmix.errors is not allowed to import convmix.config"),
        ("models/layers.py", "from convmix.models import convmixer", "No cycles are allowed in convmix.models"),
        ("somewhere.py", "import torch", "somewhere"),  # in no layer
    ],
)
def test_an_import_against_the_order_is_noticed(file: str, line: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "convmix", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    with (tmp_path / "convmix" / file).open("a") as source:
        source.write(f"\n{line}\n")
    assert said in broken_contracts(tmp_path)


def test_import_convmix_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import convmix; "
        f"print(len(set(sys.modules) - before), *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    count, *heavy = done.stdout.split()
    assert not heavy, f"import convmix imports {heavy}"
    assert int(count) <= 60, f"import convmix imports {count} modules"  # 30, those of the standard library counted; torch alone is 1,000


def test_files_are_small_rooms() -> None:
    files = [p for folder in ("convmix", "tests", "benchmarks") for p in sorted((REPO / folder).rglob("*.py"))]
    large = {str(p.relative_to(REPO)): n for p in files if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert not large, f"over {MAX_LINES} lines: {large}"


def test_files_are_named_by_their_noun() -> None:
    banned = [str(p.relative_to(REPO)) for p in PACKAGE.rglob("*") if p.stem in BANNED_NAMES]
    assert not banned, f"name these by what they hold: {banned}"


def test_no_tracked_file_names_a_machine() -> None:
    """No absolute path of somebody's machine, no address of a package index."""
    path = re.compile(r"(?<![\w.}])/(?:work|root|home|Users|farm)/(?!somebody)[\w.]")  # somebody: invented
    index = re.compile("|".join((r"--(?:extra-)?index-" + "url", r"pypi\." + "org", r"pytorch\." + "org/whl", r"find-" + "links")))
    hits = []
    for file in tracked_files():
        content = file.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if path.search(line) or index.search(line):
                hits.append(f"{file.relative_to(REPO)}:{number}: {line.strip()[:100]}")
    assert not hits, "\n".join(hits)
